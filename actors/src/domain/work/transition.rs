//! The verbs of a work item. Each takes a record and gives the next one, or says why not.

use loom_protocol::work::{Reason, WorkErrorInfo, WorkResult, WorkStatus};
use loom_protocol::{AgentGuid, Timestamp};

use super::command::{Decision, FailureReport, Fence, Refusal};
use super::record::{EndedLease, Holder, LeaseEnd, LeaseRecord, WorkRecord};
use super::returns::Counts;
use super::run_report::RunReport;
use crate::domain::retry::{Backoff, Return};

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
            next.close_usage();
            next.give_to(holder, claim_id, start);
        }))
    }

    /// A new attempt, of an item that is pending in a record that is being written.
    pub(super) fn give_to(&mut self, holder: &Holder, claim_id: Option<&str>, start: bool) {
        let now = self.updated_at;
        self.status = WorkStatus::Assigned;
        self.attempt += 1;
        self.lease = Some(LeaseRecord {
            holder: holder.clone(),
            claim_id: claim_id.map(Into::into),
            assigned_at: now,
        });
        self.loss = None;
        self.started_at = None;
        self.progress = None;
        self.progress_message = None;
        self.pending_reason = None;
        self.not_before = None;
        if start {
            self.begin();
        }
    }

    /// The present attempt is being worked on: it is none that was never started.
    fn begin(&mut self) {
        self.status = WorkStatus::InProgress;
        self.started_at = self.started_at.or(Some(self.updated_at));
        self.unstarted_returns = 0;
        self.has_run = true;
    }

    /// Assigned → InProgress: the agent begins.
    pub(super) fn start(&self, by: &Fence, now: Timestamp) -> Result<Decision, Refusal> {
        self.check_lease(by)?;
        if self.status == WorkStatus::InProgress {
            return Ok(Decision::Already);
        }
        Ok(self.write(now, Self::begin))
    }

    /// Assigned or InProgress → InProgress: the agent goes on.
    pub(super) fn note_progress(
        &self,
        by: &Fence,
        progress: Option<f64>,
        message: Option<&str>,
        report: &RunReport,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        self.check_lease(by)?;
        Ok(self.write(now, |next| {
            next.begin();
            next.progress = progress.or(next.progress);
            if let Some(message) = message {
                next.progress_message = Some(message.into());
            }
            next.note_run(report);
        }))
    }

    /// Assigned or InProgress → Completed: the agent has finished. Pending → Completed: its lease was
    /// taken back, and nobody has had the item since.
    pub(super) fn complete(
        &self,
        by: &Fence,
        result: &WorkResult,
        report: &RunReport,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.is_repeat(by, LeaseEnd::Completed) {
            return Ok(Decision::Already);
        }
        if !self.is_lost_by(by) {
            self.check_lease(by)?;
        }
        Ok(self.write(now, |next| {
            next.recover_lease();
            next.status = WorkStatus::Completed;
            next.started_at = next.started_at.or(Some(now));
            next.result = Some(result.clone());
            next.note_end(report);
            next.end_lease(LeaseEnd::Completed);
        }))
    }

    /// Assigned or InProgress → Pending while attempts last, else → Failed: the agent has failed.
    pub(super) fn fail(
        &self,
        by: &Fence,
        failure: &FailureReport,
        report: &RunReport,
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
            next.note_end(report);
            next.push_error(error);
            next.end_lease(LeaseEnd::Failed);
            let why = match failure.not_before {
                _ if !failure.recoverable => Return::NotRecoverable,
                Some(time) => Return::NotBefore(time),
                None => Return::After(failure.backoff),
            };
            let counts = Counts::of_agent(failure.spends_attempt);
            next.give_back(failure.reason, counts, why);
        }))
    }

    /// Assigned or InProgress → Pending: the agent gives it back.
    pub(super) fn release(
        &self,
        by: &Fence,
        (reason, message): (Reason, Option<&str>),
        not_before: Option<Timestamp>,
        report: &RunReport,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.is_repeat(by, LeaseEnd::Released) {
            return Ok(Decision::Already);
        }
        self.check_lease(by)?;
        Ok(self.write(now, |next| {
            next.note_run(report);
            next.end_lease(LeaseEnd::Released);
            if let Some(message) = message {
                next.push_error(WorkErrorInfo {
                    message: format!("{reason}: {message}"),
                    code: None,
                    recoverable: true,
                    occurred_at: now,
                    reason,
                    attempt: Some(self.attempt),
                    agent_guid: Some(by.guid),
                });
            }
            let why = not_before.map_or(Return::AtOnce, Return::NotBefore);
            next.give_back(reason, Counts::of_agent(false), why);
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
            let counts = Counts::of_revoke(spends_attempt, self.status);
            next.give_back(reason, counts, why);
            next.loss = self.loss_by(reason, next);
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

    pub(super) fn end_lease(&mut self, end: LeaseEnd) {
        if let Some(lease) = &self.lease {
            self.ended_lease = Some(EndedLease {
                guid: lease.holder.guid,
                attempt: self.attempt,
                end,
            });
        }
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

    /// Whether the report is about the present lease: all that progress which is not written down has to pass.
    pub(crate) fn check_lease(&self, by: &Fence) -> Result<(), Refusal> {
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
