//! What somebody may want of an item, and what comes of it.
//!
//! [`Command::decide`] applies a command to the record as it is now; the verbs are in `transition`.
//! The ledger repeats the decision on a newer record when its write met a conflict.

use loom_protocol::work::{Reason, WorkResult, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};

use super::record::{Holder, WorkRecord};
use super::run_report::RunReport;
use crate::domain::retry::Backoff;

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
#[derive(Debug, Clone, PartialEq)]
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
    /// Not to be offered again before, as the agent says.
    pub not_before: Option<Timestamp>,
    /// The pause before the next attempt, where the agent does not say.
    pub backoff: Backoff,
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
    /// The agent whose lease was taken back has the item again, if nobody has had it since.
    Resume {
        /// Which agent.
        holder: Holder,
        /// The attempt that was taken back.
        attempt: u32,
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
        /// What it says of its run.
        report: RunReport,
    },
    /// The agent has finished.
    Complete {
        /// By whom.
        by: Fence,
        /// What it came to.
        result: WorkResult,
        /// What it says of its run.
        report: RunReport,
    },
    /// The agent has failed.
    Fail {
        /// By whom.
        by: Fence,
        /// How.
        failure: FailureReport,
        /// What it says of its run.
        report: RunReport,
    },
    /// The agent gives it back.
    Release {
        /// By whom.
        by: Fence,
        /// Why.
        reason: Reason,
        /// The same in the agent's words.
        message: Option<String>,
        /// Not to be offered again before.
        not_before: Option<Timestamp>,
        /// What it says of its run.
        report: RunReport,
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
        /// The pause before the next attempt; `None`: it is offered again at once.
        backoff: Option<Backoff>,
    },
    /// Somebody calls it off.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
        /// Whether it was sent before and may have counted: then it is so already where the item is
        /// cancelled by the same one for the same reason.
        again: bool,
    },
    /// Its deadline has passed: nobody is to begin it, or to go on with this attempt.
    MissDeadline {
        /// The item's attempt when the deadline was found to have passed.
        attempt: u32,
    },
    /// The agent knows that it is called off: an answer that says so was made for it.
    CancelDelivered(Fence),
    /// The agent has obeyed the cancellation.
    Stopped {
        /// Who.
        by: Fence,
        /// What there was by then.
        result: Option<WorkResult>,
        /// What it says of its run.
        report: RunReport,
    },
    /// It cannot be given to its agent: no message carries it.
    GiveUpForSize {
        /// The attempt.
        attempt: u32,
        /// Why, with the numbers.
        why: String,
    },
    /// The dead letter of a failed item is written.
    NoteDeadLetter {
        /// Where.
        sequence: u64,
        /// Of which failure: how often the item had been put back before.
        retries: u32,
    },
    /// A dead letter is put back into the queue.
    Retry {
        /// Of which failure, as in `NoteDeadLetter`; `None`: of the present one.
        retries: Option<u32>,
        /// Whether the spent attempts are forgotten; otherwise one more is given.
        reset_attempts: bool,
        /// Whether the schedule does it.
        automatic: bool,
    },
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
    /// There is nothing to stop: the lease is the sender's and goes on.
    #[error(
        "work item {id} was not called off, and attempt {attempt} of agent {guid} is valid: complete, fail or release it"
    )]
    NotCalledOff {
        /// The item.
        id: loom_protocol::WorkId,
        /// The sender.
        guid: AgentGuid,
        /// Its attempt.
        attempt: u32,
    },
    /// Another claim was faster.
    #[error("work item {id} is not pending but {status}")]
    NotPending {
        /// The item.
        id: loom_protocol::WorkId,
        /// Its status.
        status: WorkStatus,
    },
    /// It has no dead letter.
    #[error("work item {id} has no dead letter: it is {status}")]
    NotFailed {
        /// The item.
        id: loom_protocol::WorkId,
        /// Its status.
        status: WorkStatus,
    },
    /// There is nothing to be put back.
    #[error(
        "the dead letter {id} is a published message that was refused, no work item; publish it mended and discard the letter"
    )]
    NotAnItem {
        /// The letter.
        id: loom_protocol::WorkId,
    },
}

impl From<Refusal> for WireError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Stale { .. } => ErrorCode::StaleLease,
            Refusal::Ended { .. } | Refusal::NotPending { .. } | Refusal::NotFailed { .. } => {
                ErrorCode::TerminalState
            }
            Refusal::NotAnItem { .. } | Refusal::NotCalledOff { .. } => ErrorCode::InvalidRequest,
        };
        Self::new(code, refusal.to_string())
    }
}

impl Command {
    /// The command, sent once more because its answer got lost.
    #[must_use]
    pub fn once_more(&self) -> Self {
        let mut same = self.clone();
        if let Self::Cancel { again, .. } = &mut same {
            *again = true;
        }
        same
    }

    /// Applies the command to the record as it is now.
    pub fn decide(&self, record: &WorkRecord, now: Timestamp) -> Result<Decision, Refusal> {
        match self {
            Self::Assign {
                holder,
                claim_id,
                start,
            } => record.assign(holder, claim_id.as_deref(), *start, now),
            Self::Resume {
                holder,
                attempt,
                claim_id,
                start,
            } => record.resume(holder, *attempt, (claim_id.as_deref(), *start), now),
            Self::Start(by) => record.start(by, now),
            Self::Progress {
                by,
                progress,
                message,
                report,
            } => record.note_progress(by, *progress, message.as_deref(), report, now),
            Self::Complete { by, result, report } => record.complete(by, result, report, now),
            Self::Fail {
                by,
                failure,
                report,
            } => record.fail(by, failure, report, now),
            Self::Release {
                by,
                reason,
                message,
                not_before,
                report,
            } => record.release(by, (*reason, message.as_deref()), *not_before, report, now),
            Self::Revoke {
                guid,
                attempt,
                reason,
                spends_attempt,
                backoff,
            } => record.revoke(*guid, *attempt, (*reason, *spends_attempt), *backoff, now),
            Self::Cancel { by, reason, again } => {
                if *again && record.is_cancelled_so(by, reason.as_deref()) {
                    return Ok(Decision::Already);
                }
                record.cancel(by, reason.as_deref(), now)
            }
            Self::MissDeadline { attempt } => record.miss_deadline(*attempt, now),
            Self::CancelDelivered(by) => Ok(record.cancel_delivered(by, now)),
            Self::Stopped { by, result, report } => {
                record.stopped(by, result.as_ref(), report, now)
            }
            Self::GiveUpForSize { attempt, why } => {
                let held = record.status.is_leased() && record.attempt == *attempt;
                let (id, status) = (record.id, record.status);
                if !held {
                    return Err(Refusal::NotPending { id, status });
                }
                Ok(record.write(now, |next| next.fail_for_size(why, now)))
            }
            Self::NoteDeadLetter { sequence, retries } => {
                record.note_dead_letter(*sequence, *retries, now)
            }
            Self::Retry {
                retries,
                reset_attempts,
                automatic,
            } => record.retry(*retries, *reset_attempts, *automatic, now),
        }
    }
}
