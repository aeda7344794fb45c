//! Items that were given already, once more: the answer to a claim may get lost, or die with the actor.

use std::cmp::Reverse;

use ractor::RpcReplyPort;

use super::claims::{Claim, ClaimError, ClaimOutcome};
use super::env::DispatcherEnv;
use super::messages::DispatcherMsg;
use super::unacknowledged::UnacknowledgedAssignments;
use crate::work_ledger::{Applied, LeaseInfo, LedgerError, ReadModel, TRANSITION_DEADLINE};

/// Whether the agent holds something by this claim.
pub(super) fn has_leases_under(read: &ReadModel, order: &Claim) -> bool {
    let leases = read.leases_of(order.guid);
    leases.iter().any(|lease| is_under(lease, order))
}

/// What the answer to a claim has to name: what its agent holds by it, and what it may not have been told of.
pub(super) fn leases_to_tell(
    read: &ReadModel,
    unacknowledged: &mut UnacknowledgedAssignments,
    order: &Claim,
) -> Vec<LeaseInfo> {
    let unacknowledged = unacknowledged.tell(order.guid, &order.claim_id);
    let mut leases = read.leases_of(order.guid);
    leases.retain(|lease| {
        is_under(lease, order)
            || unacknowledged
                .get(&lease.id)
                .is_some_and(|by_its_claim| *by_its_claim || !lease.started)
    });
    leases
}

fn is_under(lease: &LeaseInfo, order: &Claim) -> bool {
    lease.claim_id.as_deref() == Some(&order.claim_id)
}

/// The actor is told when the ledger knows what it has written.
pub(super) fn wait_for_ledger(env: &mut DispatcherEnv, claim: u64) {
    let (ledger, myself) = (env.args.ledger.clone(), env.myself());
    env.spawn(async move {
        let is_up = ledger.actor().wait_until_up(TRANSITION_DEADLINE).await;
        let outcome = is_up.map_err(LedgerError::from);
        let _ = myself.cast(DispatcherMsg::LedgerIsUp { claim, outcome });
    });
}

/// The same items once more, as they are now.
pub(super) fn answer_with_leases(
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
