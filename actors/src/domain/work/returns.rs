//! How an item comes back to the queue, and what that costs.
//!
//! | it comes back because | it costs |
//! |---|---|
//! | it failed, was without progress, or its agent was lost with it | the attempt |
//! | an attempt was never started | nothing five times in a row, then an attempt each; a start begins anew |
//! | its agent gave it back, or left while it was at it | nothing five times, then an attempt each; only a retry from the dead letters begins anew |
//! | its agent met a usage limit, its provider is in trouble, its account needs a person | nothing, ever: the agent is paused meanwhile |

use loom_protocol::text::without_middle;
use loom_protocol::work::{Reason, WorkErrorInfo, WorkStatus, limits};

use super::FREE_RETURNS;
use super::record::WorkRecord;
use crate::domain::retry::{self, RetryVerdict, Return};

/// As what an attempt that came to nothing counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// It is spent.
    Spent,
    /// It was never started.
    Unstarted,
    /// The item was given back.
    Released,
}

impl Counts {
    /// One that its agent has ended.
    pub const fn of_agent(spends: bool) -> Self {
        if spends { Self::Spent } else { Self::Released }
    }

    /// One that the coordinator has ended, of an item that stood so.
    pub fn of_revoke(spends: bool, status: WorkStatus) -> Self {
        match status {
            _ if spends => Self::Spent,
            WorkStatus::Assigned => Self::Unstarted,
            _ => Self::Released,
        }
    }
}

impl WorkRecord {
    /// Puts the item back, spending the attempt or counting the return, or gives it up.
    pub(super) fn give_back(&mut self, reason: Reason, counts: Counts, why: Return) {
        self.status = WorkStatus::Pending;
        self.started_at = None;
        self.progress = None;
        self.progress_message = None;
        self.pending_reason = Some(reason);
        if self.costs_an_attempt(reason, counts) {
            self.say_why(reason, counts);
            self.attempts += 1;
        }
        match retry::judge(self.attempts, self.max_attempts, why, self.updated_at) {
            RetryVerdict::GiveUp => self.give_up(),
            RetryVerdict::Again { not_before } => {
                self.lease = None;
                self.not_before = not_before;
            }
        }
    }

    fn costs_an_attempt(&mut self, reason: Reason, counts: Counts) -> bool {
        let returns = match counts {
            Counts::Spent => return true,
            _ if reason.pauses() => return false,
            Counts::Unstarted => &mut self.unstarted_returns,
            Counts::Released => &mut self.releases,
        };
        *returns = returns.saturating_add(1);
        *returns > FREE_RETURNS
    }

    /// Whoever had it last stays named, as with every end.
    pub(super) fn give_up(&mut self) {
        self.status = WorkStatus::Failed;
        let lost = self.loss.take().map(|loss| loss.lease);
        self.lease = self.lease.take().or(lost);
        self.pending_reason = None;
        self.not_before = None;
    }

    /// Each spent attempt has an error that tells of it. Where the item never ran, that is why.
    fn say_why(&mut self, reason: Reason, counts: Counts) {
        let told = self.errors.last().and_then(|error| error.attempt);
        let is_told = told == Some(self.attempt);
        if is_told && counts == Counts::Spent {
            return;
        }
        let (returns, how) = match counts {
            Counts::Unstarted => (self.unstarted_returns, "without having been started"),
            Counts::Spent | Counts::Released => (self.releases, "without a spent attempt"),
        };
        let reason_told = if self.ever_ran() {
            reason
        } else {
            Reason::NotStarted
        };
        let came_back =
            format!("the item has come back {returns} times {how}, so that this costs one");
        if let Some(told) = self.errors.last_mut().filter(|_| is_told) {
            // The agent has said why it gives the item back.
            let room = limits::ERROR.saturating_sub(came_back.len() + 2);
            told.message = format!("{}; {came_back}", without_middle(&told.message, room));
            told.reason = reason_told;
            return;
        }
        let ended = self.ended_lease.as_ref();
        self.push_error(WorkErrorInfo {
            message: format!("{reason}: {came_back}"),
            code: None,
            recoverable: true,
            occurred_at: self.updated_at,
            reason: reason_told,
            attempt: Some(self.attempt),
            agent_guid: ended.map(|ended| ended.guid),
        });
    }

    /// Whether an agent ever worked on it. Of a record of 0.1.0 only its errors tell.
    fn ever_ran(&self) -> bool {
        const OF_A_RUN: [Reason; 9] = [
            Reason::AgentError,
            Reason::AgentLost,
            Reason::Timeout,
            Reason::UsageLimit,
            Reason::NoResult,
            Reason::Denied,
            Reason::Checks,
            Reason::Outage,
            Reason::Account,
        ];
        let tells = |error: &WorkErrorInfo| OF_A_RUN.contains(&error.reason);
        self.has_run || self.errors.iter().any(tells)
    }

    pub(super) fn push_error(&mut self, error: WorkErrorInfo) {
        if self.errors.len() >= limits::ERRORS {
            self.errors.remove(0);
        }
        self.errors.push(error);
    }
}

#[cfg(test)]
mod tests;
