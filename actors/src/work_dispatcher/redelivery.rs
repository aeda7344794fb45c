//! Items that were given already, once more: the answer to a claim may get lost, or die with the actor.

use std::cmp::Reverse;

use loom_protocol::AgentGuid;
use ractor::RpcReplyPort;

use super::claims::{Claim, ClaimError, ClaimOutcome};
use super::env::DispatcherEnv;
use super::unacknowledged::UnacknowledgedAssignments;
use crate::work_ledger::{Applied, LeaseInfo, ReadModel};

/// What the agent holds by this claim.
pub(super) fn leases_under(read: &ReadModel, order: &Claim) -> Vec<LeaseInfo> {
    let mut leases = read.leases_of(order.guid);
    leases.retain(|lease| lease.claim_id.as_deref() == Some(&order.claim_id));
    leases
}

/// The answer to this claim got lost: the same items once more.
pub(super) fn redeliver(
    env: &mut DispatcherEnv,
    leases: Vec<LeaseInfo>,
    reply: RpcReplyPort<ClaimOutcome>,
) {
    let read = env.args.read.clone();
    env.spawn(async move {
        let mut given = Vec::with_capacity(leases.len());
        for lease in leases {
            match read.record(lease.id).await {
                Ok((record, revision)) if record.attempt == lease.attempt => {
                    given.push(Applied::already(record, revision));
                }
                Ok(_) => {}
                Err(error) => {
                    let _ = reply.send(Err(ClaimError::Ledger(error.into())));
                    return;
                }
            }
        }
        given.sort_by_key(|applied| {
            let record = &applied.record;
            (Reverse(record.priority), record.created)
        });
        let _ = reply.send(Ok(given));
    });
}

impl UnacknowledgedAssignments {
    /// What was leased before this incarnation and is not started: the answer may have died with the one before.
    pub fn of(read: &ReadModel) -> Self {
        let mut unacknowledged = Self::default();
        for id in read.leased() {
            if let Some((guid, lease)) = read.lease(id)
                && !lease.started
            {
                unacknowledged.note(guid, id);
            }
        }
        unacknowledged
    }

    /// What the agent may not have been told of, beside what it is told now.
    pub fn tell_leases(
        &mut self,
        read: &ReadModel,
        guid: AgentGuid,
        claim_id: &str,
        told: &[LeaseInfo],
    ) -> Vec<LeaseInfo> {
        let unacknowledged = self.tell(guid, claim_id);
        if unacknowledged.is_empty() {
            return Vec::new();
        }
        let mut leases = read.leases_of(guid);
        leases.retain(|lease| {
            unacknowledged.contains(&lease.id)
                && !lease.started
                && told.iter().all(|other| other.id != lease.id)
        });
        leases
    }
}
