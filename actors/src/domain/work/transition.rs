//! The verbs of a work item. Each takes a record and gives the next one, or says why not.

use loom_protocol::work::{Reason, Usage, WorkErrorInfo, WorkResult, WorkStatus, limits};
use loom_protocol::{AgentGuid, Timestamp};

use super::UNSPENT_RETURNS;
use super::command::{Decision, FailureReport, Fence, Refusal};
use super::record::{EndedLease, Holder, LeaseEnd, LeaseRecord, WorkRecord};
use crate::domain::retry::{self, Backoff, Return, Verdict};

impl WorkRecord {
    /// Pending → Assigned, or InProgress with `start`: a claim was matched. Attempt + 1.
    pub(super) fn assign(
        &self,
        holder: &Holder,
        claim_id: Option<&str>,
        start: bool,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.status != WorkStatus::Pending {
            return Err(Refusal::NotPending {
                id: self.id,
                status: self.status,
            });
        }
        Ok(self.write(now, |next| {
            next.status = if start {
                WorkStatus::InProgress
            } else {
                WorkStatus::Assigned
            };
            next.attempt += 1;
            next.lease = Some(LeaseRecord {
                holder: holder.clone(),
                claim_id: claim_id.map(Into::into),
                assigned_at: now,
            });
            next.started_at = start.then_some(now);
            next.progress = None;
            next.progress_message = None;
            next.pending_reason = None;
            next.not_before = None;
        }))
    }

    /// Assigned → InProgress: the agent begins.
    pub(super) fn start(&self, by: &Fence, now: Timestamp) -> Result<Decision, Refusal> {
        self.check_lease(by)?;
        if self.status == WorkStatus::InProgress {
            return Ok(Decision::Already);
        }
        Ok(self.write(now, |next| {
            next.status = WorkStatus::InProgress;
            next.started_at = Some(now);
        }))
    }

    /// Assigned or InProgress → InProgress: the agent goes on.
    pub(super) fn note_progress(
        &self,
        by: &Fence,
        progress: Option<f64>,
        message: Option<&str>,
        usage: Option<Usage>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        self.check_lease(by)?;
        Ok(self.write(now, |next| {
            next.status = WorkStatus::InProgress;
            next.started_at = next.started_at.or(Some(now));
            next.progress = progress.or(next.progress);
            if let Some(message) = message {
                next.progress_message = Some(message.into());
            }
            next.usage = usage.or(next.usage);
        }))
    }

    /// Assigned or InProgress → Completed: the agent has finished.
    pub(super) fn complete(
        &self,
        by: &Fence,
        result: &WorkResult,
        usage: Option<Usage>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.is_repeat(by, LeaseEnd::Completed) {
            return Ok(Decision::Already);
        }
        self.check_lease(by)?;
        Ok(self.write(now, |next| {
            next.status = WorkStatus::Completed;
            next.started_at = next.started_at.or(Some(now));
            next.result = Some(result.clone());
            next.usage = usage.or(next.usage);
            next.end_lease(LeaseEnd::Completed);
        }))
    }

    /// Assigned or InProgress → Pending while attempts last, else → Failed: the agent has failed.
    pub(super) fn fail(
        &self,
        by: &Fence,
        failure: &FailureReport,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.is_repeat(by, LeaseEnd::Failed) {
            return Ok(Decision::Already);
        }
        self.check_lease(by)?;
        let error = WorkErrorInfo {
            message: failure.message.clone(),
            code: failure.code.clone(),
            recoverable: failure.recoverable,
            occurred_at: failure.occurred_at,
            reason: failure.reason,
            attempt: Some(self.attempt),
            agent_guid: Some(by.guid),
        };
        Ok(self.write(now, |next| {
            next.push_error(error);
            next.end_lease(LeaseEnd::Failed);
            let why = match failure.not_before {
                _ if !failure.recoverable => Return::NotRecoverable,
                Some(time) => Return::NotBefore(time),
                None => Return::After(failure.backoff),
            };
            next.give_back(failure.reason, failure.spends_attempt, why);
        }))
    }

    /// Assigned or InProgress → Pending: the agent gives it back.
    pub(super) fn release(
        &self,
        by: &Fence,
        reason: Reason,
        not_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.is_repeat(by, LeaseEnd::Released) {
            return Ok(Decision::Already);
        }
        self.check_lease(by)?;
        Ok(self.write(now, |next| {
            next.end_lease(LeaseEnd::Released);
            let why = not_before.map_or(Return::AtOnce, Return::NotBefore);
            next.give_back(reason, false, why);
        }))
    }

    /// Assigned or InProgress → Pending while attempts last, else → Failed: the coordinator takes it back.
    pub(super) fn revoke(
        &self,
        guid: AgentGuid,
        attempt: u32,
        (reason, spends_attempt): (Reason, bool),
        backoff: Option<Backoff>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let lease = Fence {
            guid,
            attempt: Some(attempt),
            reported_at: now,
        };
        if self.is_repeat(&lease, LeaseEnd::Revoked) {
            return Ok(Decision::Already);
        }
        self.check_lease(&lease)?;
        Ok(self.write(now, |next| {
            if spends_attempt {
                next.push_error(WorkErrorInfo {
                    message: format!("the lease of agent {guid} was taken back: {reason}"),
                    code: None,
                    recoverable: true,
                    occurred_at: now,
                    reason,
                    attempt: Some(attempt),
                    agent_guid: Some(guid),
                });
            }
            next.end_lease(LeaseEnd::Revoked);
            let why = backoff.map_or(Return::AtOnce, Return::After);
            next.give_back(reason, spends_attempt, why);
        }))
    }

    /// Pending, Assigned or InProgress → Failed: its deadline has passed.
    pub(super) fn miss_deadline(&self, attempt: u32, now: Timestamp) -> Result<Decision, Refusal> {
        let (id, status) = (self.id, self.status);
        if status.is_terminal() {
            return Err(Refusal::Ended { id, status });
        }
        if self.attempt != attempt {
            return Err(Refusal::NotPending { id, status });
        }
        let deadline = self.deadline.unwrap_or(now);
        let holder = self.lease.as_ref().map(|lease| lease.holder.guid);
        Ok(self.write(now, |next| {
            next.push_error(WorkErrorInfo {
                message: format!("its deadline, {deadline}, has passed"),
                code: None,
                recoverable: false,
                occurred_at: now,
                reason: Reason::Deadline,
                attempt: holder.map(|_| attempt),
                agent_guid: holder,
            });
            next.end_lease(LeaseEnd::Revoked);
            next.give_up();
        }))
    }

    pub(super) fn write(&self, now: Timestamp, change: impl FnOnce(&mut Self)) -> Decision {
        let mut next = self.clone();
        next.updated_at = now;
        change(&mut next);
        Decision::Write(Box::new(next))
    }

    /// Puts the item back, spending the attempt or counting the return, or gives it up.
    fn give_back(&mut self, reason: Reason, spends: bool, why: Return) {
        self.status = WorkStatus::Pending;
        self.lease = None;
        self.started_at = None;
        self.progress = None;
        self.progress_message = None;
        self.pending_reason = Some(reason);
        // A usage limit may be met as often as it likes: the agent is paused meanwhile.
        let is_free = reason == Reason::UsageLimit;
        let spends = spends
            || !is_free && {
                self.unspent_returns = self.unspent_returns.saturating_add(1);
                self.unspent_returns >= UNSPENT_RETURNS
            };
        if spends {
            self.say_why(reason);
            self.attempts += 1;
        }
        match retry::judge(self.attempts, self.max_attempts, why, self.updated_at) {
            Verdict::GiveUp => self.give_up(),
            Verdict::Again { not_before } => self.not_before = not_before,
        }
    }

    fn give_up(&mut self) {
        self.status = WorkStatus::Failed;
        self.lease = None;
        self.pending_reason = None;
        self.not_before = None;
    }

    pub(super) fn end_lease(&mut self, end: LeaseEnd) {
        if let Some(lease) = &self.lease {
            self.ended_lease = Some(EndedLease {
                guid: lease.holder.guid,
                attempt: self.attempt,
                end,
            });
        }
    }

    /// Each spent attempt has an error that tells of it.
    fn say_why(&mut self, reason: Reason) {
        let told = self.errors.last().and_then(|error| error.attempt);
        if told == Some(self.attempt) {
            return;
        }
        let ended = self.ended_lease.as_ref();
        self.push_error(WorkErrorInfo {
            message: format!(
                "{reason}: the item has come back {} times without a spent attempt, so that this costs one",
                self.unspent_returns
            ),
            code: None,
            recoverable: true,
            occurred_at: self.updated_at,
            reason,
            attempt: Some(self.attempt),
            agent_guid: ended.map(|ended| ended.guid),
        });
    }

    fn push_error(&mut self, error: WorkErrorInfo) {
        if self.errors.len() >= limits::ERRORS {
            self.errors.remove(0);
        }
        self.errors.push(error);
    }

    /// Whether the report is about a lease that ended in just this way.
    pub(super) fn is_repeat(&self, by: &Fence, end: LeaseEnd) -> bool {
        self.ended_lease.as_ref().is_some_and(|ended| {
            ended.guid == by.guid
                && ended.end == end
                && by.attempt.map_or_else(
                    || !self.status.is_leased(),
                    |attempt| ended.attempt == attempt,
                )
        })
    }

    /// Whether the report is about the present lease.
    pub(super) fn check_lease(&self, by: &Fence) -> Result<(), Refusal> {
        let held = self.lease.as_ref().is_some_and(|lease| {
            self.status.is_leased()
                && lease.holder.guid == by.guid
                && by.attempt.map_or_else(
                    || by.reported_at >= lease.assigned_at,
                    |attempt| attempt == self.attempt,
                )
        });
        if held { Ok(()) } else { Err(self.stale(by)) }
    }

    pub(super) fn stale(&self, by: &Fence) -> Refusal {
        let now = match &self.lease {
            Some(lease) if self.status.is_leased() => {
                let (attempt, holder) = (self.attempt, lease.holder.guid);
                format!(
                    "it is {} by agent {holder} with attempt {attempt}",
                    self.status
                )
            }
            _ => format!("it is {}", self.status),
        };
        Refusal::Stale {
            id: self.id,
            guid: by.guid,
            named: by
                .attempt
                .map_or_else(|| "(none)".into(), |n| n.to_string()),
            now,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
