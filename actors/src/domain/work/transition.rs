//! The verbs of a work item. Each takes a record and gives the next one, or says why not.
//!
//! A [`Command`] is what somebody wants of an item; [`Command::decide`] applies it to the record as
//! it is now. The ledger repeats the decision on a newer record when its write met a conflict.

use loom_protocol::work::{
    CancelInfo, Reason, Usage, WorkErrorInfo, WorkResult, WorkStatus, limits,
};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};

use super::UNSPENT_RETURNS;
use super::record::{EndedLease, Holder, LeaseEnd, LeaseRecord, WorkRecord};

/// Which lease a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The agent.
    pub guid: AgentGuid,
    /// The attempt; `None` in a published report means the present lease, if the report is later than it.
    pub attempt: Option<u32>,
    /// When the report arrived at the server.
    pub reported_at: Timestamp,
}

/// How an attempt failed, as reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureReport {
    /// What went wrong.
    pub message: String,
    /// The agent's own code.
    pub code: Option<String>,
    /// Whether another attempt may help.
    pub recoverable: bool,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Which kind of failure.
    pub reason: Reason,
    /// Whether it counts as an attempt.
    pub spends_attempt: bool,
    /// Not to be offered again before.
    pub not_before: Option<Timestamp>,
}

/// What somebody wants of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A claim was matched with the item.
    Assign {
        /// By whom.
        holder: Holder,
        /// The agent's name for the claim.
        claim_id: Option<String>,
        /// Whether to start it at once.
        start: bool,
    },
    /// The agent begins.
    Start(Fence),
    /// The agent goes on; persisted now and then only.
    Progress {
        /// By whom.
        by: Fence,
        /// 0 to 100.
        progress: Option<f64>,
        /// A sentence.
        message: Option<String>,
        /// What it has used up.
        usage: Option<Usage>,
    },
    /// The agent has finished.
    Complete {
        /// By whom.
        by: Fence,
        /// What it came to.
        result: WorkResult,
        /// What it used up.
        usage: Option<Usage>,
    },
    /// The agent has failed.
    Fail {
        /// By whom.
        by: Fence,
        /// How.
        failure: FailureReport,
    },
    /// The agent gives it back.
    Release {
        /// By whom.
        by: Fence,
        /// Why.
        reason: Reason,
        /// Not to be offered again before.
        not_before: Option<Timestamp>,
    },
    /// The coordinator takes it back.
    Revoke {
        /// From whom.
        guid: AgentGuid,
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: Reason,
        /// Whether that spends the attempt at once.
        spends_attempt: bool,
    },
    /// Somebody calls it off.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// The agent was told that it is called off.
    CancelDelivered,
    /// The agent has obeyed the cancellation.
    Stopped(Fence),
}

/// What a command comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write this.
    Write(Box<WorkRecord>),
    /// It is so already: answer with the record as it is.
    Already,
}

/// Why a command cannot be done; a normal outcome with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The lease is not (or no longer) the sender's.
    #[error(
        "agent {guid} does not hold work item {id} with attempt {named}: {now}; stop that work and discard its result"
    )]
    Stale {
        /// The item.
        id: loom_protocol::WorkId,
        /// The sender.
        guid: AgentGuid,
        /// The attempt that it named, as text.
        named: String,
        /// How the item stands, as a clause.
        now: String,
    },
    /// The item has ended.
    #[error("work item {id} is {status} already and takes no more changes")]
    Ended {
        /// The item.
        id: loom_protocol::WorkId,
        /// Its status.
        status: WorkStatus,
    },
    /// Another claim was faster.
    #[error("work item {id} is not pending but {status}")]
    NotPending {
        /// The item.
        id: loom_protocol::WorkId,
        /// Its status.
        status: WorkStatus,
    },
}

impl From<Refusal> for WireError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Stale { .. } => ErrorCode::StaleLease,
            Refusal::Ended { .. } | Refusal::NotPending { .. } => ErrorCode::TerminalState,
        };
        Self::new(code, refusal.to_string())
    }
}

impl Command {
    /// Applies the command to the record as it is now.
    pub fn decide(&self, record: &WorkRecord, now: Timestamp) -> Result<Decision, Refusal> {
        match self {
            Self::Assign {
                holder,
                claim_id,
                start,
            } => record.assign(holder, claim_id.as_deref(), *start, now),
            Self::Start(by) => record.start(by, now),
            Self::Progress {
                by,
                progress,
                message,
                usage,
            } => record.note_progress(by, *progress, message.as_deref(), *usage, now),
            Self::Complete { by, result, usage } => record.complete(by, result, *usage, now),
            Self::Fail { by, failure } => record.fail(by, failure, now),
            Self::Release {
                by,
                reason,
                not_before,
            } => record.release(by, *reason, *not_before, now),
            Self::Revoke {
                guid,
                attempt,
                reason,
                spends_attempt,
            } => record.revoke(*guid, *attempt, *reason, *spends_attempt, now),
            Self::Cancel { by, reason } => record.cancel(by, reason.as_deref(), now),
            Self::CancelDelivered => Ok(record.cancel_delivered(now)),
            Self::Stopped(by) => record.stopped(by, now),
        }
    }
}

impl WorkRecord {
    /// Pending → Assigned, or InProgress with `start`: a claim was matched. Attempt + 1.
    fn assign(
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
        self.write(now, |next| {
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
        })
    }

    /// Assigned → InProgress: the agent begins.
    fn start(&self, by: &Fence, now: Timestamp) -> Result<Decision, Refusal> {
        self.check_lease(by)?;
        if self.status == WorkStatus::InProgress {
            return Ok(Decision::Already);
        }
        self.write(now, |next| {
            next.status = WorkStatus::InProgress;
            next.started_at = Some(now);
        })
    }

    /// Assigned or InProgress → InProgress: the agent goes on.
    fn note_progress(
        &self,
        by: &Fence,
        progress: Option<f64>,
        message: Option<&str>,
        usage: Option<Usage>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        self.check_lease(by)?;
        self.write(now, |next| {
            next.status = WorkStatus::InProgress;
            next.started_at = next.started_at.or(Some(now));
            next.progress = progress.or(next.progress);
            if let Some(message) = message {
                next.progress_message = Some(message.into());
            }
            next.usage = usage.or(next.usage);
        })
    }

    /// Assigned or InProgress → Completed: the agent has finished.
    fn complete(
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
        self.write(now, |next| {
            next.status = WorkStatus::Completed;
            next.started_at = next.started_at.or(Some(now));
            next.result = Some(result.clone());
            next.usage = usage.or(next.usage);
            next.end_lease(LeaseEnd::Completed);
        })
    }

    /// Assigned or InProgress → Pending while attempts last, else → Failed: the agent has failed.
    fn fail(
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
        self.write(now, |next| {
            next.push_error(error);
            next.end_lease(LeaseEnd::Failed);
            next.give_back(failure.reason, failure.spends_attempt, failure.not_before);
            if !failure.recoverable {
                next.give_up();
            }
        })
    }

    /// Assigned or InProgress → Pending: the agent gives it back.
    fn release(
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
        self.write(now, |next| {
            next.end_lease(LeaseEnd::Released);
            next.give_back(reason, false, not_before);
        })
    }

    /// Assigned or InProgress → Pending while attempts last, else → Failed: the coordinator takes it back.
    fn revoke(
        &self,
        guid: AgentGuid,
        attempt: u32,
        reason: Reason,
        spends_attempt: bool,
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
        self.write(now, |next| {
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
            next.give_back(reason, spends_attempt, None);
        })
    }

    /// Pending, Assigned or InProgress → Cancelled: somebody calls it off.
    fn cancel(&self, by: &str, reason: Option<&str>, now: Timestamp) -> Result<Decision, Refusal> {
        if self.status.is_terminal() {
            return Err(Refusal::Ended {
                id: self.id,
                status: self.status,
            });
        }
        self.write(now, |next| {
            next.cancel = Some(CancelInfo {
                requested_at: now,
                by: by.into(),
                reason: reason.map(Into::into),
                delivered_at: None,
                stopped_at: None,
            });
            if next.status.is_leased() {
                next.end_lease(LeaseEnd::Revoked);
            }
            next.status = WorkStatus::Cancelled;
            next.pending_reason = None;
        })
    }

    /// Cancelled stays Cancelled: the agent was told.
    fn cancel_delivered(&self, now: Timestamp) -> Decision {
        self.note_cancel(|cancel| cancel.delivered_at.get_or_insert(now) == &now, now)
    }

    /// Cancelled stays Cancelled: the agent has obeyed.
    fn stopped(&self, by: &Fence, now: Timestamp) -> Result<Decision, Refusal> {
        if !self.is_repeat(by, LeaseEnd::Revoked) {
            return Err(self.stale(by));
        }
        Ok(self.note_cancel(|cancel| cancel.stopped_at.get_or_insert(now) == &now, now))
    }

    fn note_cancel(&self, note: impl FnOnce(&mut CancelInfo) -> bool, now: Timestamp) -> Decision {
        let mut next = self.clone();
        match next.cancel.as_mut().map(note) {
            Some(true) => {
                next.updated_at = now;
                Decision::Write(Box::new(next))
            }
            _ => Decision::Already,
        }
    }

    fn write(&self, now: Timestamp, change: impl FnOnce(&mut Self)) -> Result<Decision, Refusal> {
        let mut next = self.clone();
        next.updated_at = now;
        change(&mut next);
        Ok(Decision::Write(Box::new(next)))
    }

    /// Puts the item back, spending the attempt or counting the return; gives up when none is left.
    fn give_back(&mut self, reason: Reason, spends: bool, not_before: Option<Timestamp>) {
        self.status = WorkStatus::Pending;
        self.lease = None;
        self.started_at = None;
        self.progress = None;
        self.progress_message = None;
        self.pending_reason = Some(reason);
        self.not_before = not_before;
        let spends = spends || {
            self.unspent_returns = self.unspent_returns.saturating_add(1);
            self.unspent_returns >= UNSPENT_RETURNS
        };
        if spends {
            self.attempts += 1;
        }
        if self.attempts >= self.max_attempts {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.status = WorkStatus::Failed;
        self.pending_reason = None;
        self.not_before = None;
    }

    fn end_lease(&mut self, end: LeaseEnd) {
        if let Some(lease) = &self.lease {
            self.ended_lease = Some(EndedLease {
                guid: lease.holder.guid,
                attempt: self.attempt,
                end,
            });
        }
    }

    fn push_error(&mut self, error: WorkErrorInfo) {
        if self.errors.len() >= limits::ERRORS {
            self.errors.remove(0);
        }
        self.errors.push(error);
    }

    /// Whether the report is about a lease that ended in just this way.
    fn is_repeat(&self, by: &Fence, end: LeaseEnd) -> bool {
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
    fn check_lease(&self, by: &Fence) -> Result<(), Refusal> {
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

    fn stale(&self, by: &Fence) -> Refusal {
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
pub(super) mod tests;
