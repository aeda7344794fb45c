//! The verbs of an item whose lease the coordinator took back, for as long as nobody has had it since:
//! its agent may still complete it, or have it again. What the loss had cost is given back then: the
//! spent attempt with the error that told of it, the return that was counted, and the pause. (Where
//! that error had pushed the oldest one out, the oldest one stays lost.)

use loom_protocol::Timestamp;
use loom_protocol::work::{Reason, WorkStatus};

use super::command::{Decision, Fence, Refusal};
use super::record::{Holder, Loss, WorkRecord};

/// Why a lease may have been taken back so that its agent is not contradicted when it comes back. Not
/// among them: it left, or the deadline passed.
const LOSSES: [Reason; 3] = [Reason::AgentLost, Reason::Timeout, Reason::NotStarted];

impl WorkRecord {
    /// What was lost, where this record was leased and `next` is what taking the lease back made of it.
    pub(super) fn loss_by(&self, reason: Reason, next: &Self) -> Option<Loss> {
        let lease = self.lease.clone()?;
        let is_loss = next.status == WorkStatus::Pending && LOSSES.contains(&reason);
        is_loss.then_some(Loss {
            lease,
            started_at: self.started_at,
            attempts: self.attempts,
            unstarted_returns: self.unstarted_returns,
            releases: self.releases,
        })
    }

    /// Whether the newest attempt was this agent's, was taken back, and nobody has had the item since.
    pub(super) fn is_lost_by(&self, by: &Fence) -> bool {
        let is_its_own = |loss: &Loss| {
            loss.lease.holder.guid == by.guid
                && by.attempt.map_or_else(
                    || by.reported_at >= loss.lease.assigned_at,
                    |attempt| attempt == self.attempt,
                )
        };
        self.status == WorkStatus::Pending && self.loss.as_ref().is_some_and(is_its_own)
    }

    /// The lease that was lost is as it was before that, for the end that it comes to. Nothing where
    /// none was lost.
    pub(super) fn recover_lease(&mut self) {
        if let Some(loss) = self.give_cost_back() {
            self.lease = Some(loss.lease);
            self.started_at = loss.started_at;
        }
    }

    /// Pending → Assigned, or InProgress with `start`: its last agent has it again. Attempt + 1.
    pub(super) fn resume(
        &self,
        holder: &Holder,
        attempt: u32,
        (claim_id, start): (Option<&str>, bool),
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let by = Fence {
            guid: holder.guid,
            attempt: Some(attempt),
            reported_at: now,
        };
        if !self.is_lost_by(&by) {
            return Err(self.stale(&by));
        }
        Ok(self.write(now, |next| {
            next.give_cost_back();
            next.give_to(holder, claim_id, start);
        }))
    }

    fn give_cost_back(&mut self) -> Option<Loss> {
        let loss = self.loss.take()?;
        let told = self.errors.last().and_then(|error| error.attempt);
        if self.attempts > loss.attempts && told == Some(self.attempt) {
            self.errors.pop();
        }
        self.attempts = loss.attempts;
        self.unstarted_returns = loss.unstarted_returns;
        self.releases = loss.releases;
        self.pending_reason = None;
        self.not_before = None;
        Some(loss)
    }
}

#[cfg(test)]
mod tests;
