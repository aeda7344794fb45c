//! Which items a claim gets, and having them assigned to it.

use std::sync::Arc;

use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, ProjectId, WorkId};
use tokio::time::Instant;

use super::args::WorkDispatcherArgs;
use super::claims::{Claim, OpenClaim};
use super::env::DispatcherEnv;
use super::messages::DispatcherMsg;
use super::queue::PendingQueue;
use super::slots::Slots;
use crate::agent_registry::AgentEntry;
use crate::domain::matching::{self, AgentProfile};
use crate::domain::room::Room;
use crate::domain::work::{Command, Holder};
use crate::work_ledger::{Applied, Header, LedgerError, Operation, ReadError, TRANSITION_DEADLINE};

/// How many more items an agent that claims may be given now: what is being written for it counts, and that it was
/// silent does not.
pub(super) fn free_slots(args: &WorkDispatcherArgs, slots: &Slots, agent: &AgentEntry) -> usize {
    let guid = agent.agent().guid;
    if slots.is_withheld(guid, Instant::now()) {
        return 0;
    }
    let taken = args.read.lease_count(guid) + slots.taken(guid);
    let claimant = AgentProfile {
        leases: u32::try_from(taken).unwrap_or(u32::MAX),
        ..agent.candidate(false).heard_now()
    };
    matching::free_slots(&claimant).map_or(0, |free| free as usize)
}

/// Takes `most` items out of the queue for a claim at the most: what it is to have again, then the best.
pub(super) fn take_items(
    args: &WorkDispatcherArgs,
    queue: &mut PendingQueue,
    slots: &Slots,
    (open, agent): (&OpenClaim, &AgentEntry),
    most: usize,
) -> Vec<Operation> {
    let (guid, now) = (open.order.guid, Instant::now());
    let (mut taken, mut bytes) = (Vec::new(), 0_u32);
    // An answer, with what was completed before, has to fit into a message. One item does always.
    let mut is_too_much = |header: Option<&Header>, taken: &[Operation]| {
        bytes = bytes.saturating_add(header.map_or(0, |header| header.answer_bytes));
        !taken.is_empty() && bytes as usize > Room::of(args.nats.max_payload()).together()
    };
    for lease in &open.order.resume {
        let header = args.read.header(lease.id);
        let Some(header) = header.filter(|header| may_resume(agent, header, *lease)) else {
            continue;
        };
        if taken.len() == most || is_too_much(Some(&header), &taken) {
            break;
        }
        // What is not in the queue is being given to somebody, or ends.
        if queue.remove(&header) {
            let command = open.order.resume(agent, *lease);
            taken.push(Operation::Apply(lease.id, Arc::new(command)));
        }
    }
    let (command, filter) = (Arc::new(open.order.assign(agent)), open.filter.as_ref());
    while taken.len() < most {
        let skip = |id| slots.is_cooling_down(guid, id, now);
        let Some(pick) = queue.best(&filter, skip) else {
            break;
        };
        if is_too_much(args.read.header(pick.id).as_ref(), &taken) {
            break;
        }
        queue.take(&pick);
        taken.push(Operation::Apply(pick.id, command.clone()));
    }
    taken
}

/// Has items assigned to the agent of a claim; the actor is told how that ended.
pub(super) fn assign(
    env: &mut DispatcherEnv,
    (claim, guid): (u64, AgentGuid),
    operations: Vec<Operation>,
) {
    let ids: Vec<WorkId> = operations.iter().map(Operation::id).collect();
    env.under_assignment.begin(&ids);
    let answer = env.args.ledger.begin(operations);
    let (ledger, myself) = (env.args.ledger.clone(), env.myself());
    env.spawn(async move {
        let mut outcomes = match answer {
            Ok(answer) => answer.await.ok(),
            Err(_) => None,
        };
        if outcomes.is_none()
            && let Err(away) = ledger.actor().wait_until_up(TRANSITION_DEADLINE).await
        {
            outcomes = Some(vec![Err(away.into()); ids.len()]);
        }
        let _ = myself.cast(DispatcherMsg::Assigned {
            claim,
            guid,
            ids,
            outcomes,
        });
    });
}

/// What came of the assignments for one claim.
#[derive(Default)]
pub(super) struct AssignmentOutcomes {
    /// What the agent has now.
    pub given: Vec<Applied>,
    /// Somebody was faster with these, or they were not this agent's to have again.
    pub refused: Vec<WorkId>,
    /// There are no such items any more, or nobody can read them: the claim goes on with the next ones.
    pub unusable: Vec<WorkId>,
    /// Why others could not be written.
    pub failure: Option<LedgerError>,
}

impl AssignmentOutcomes {
    /// Of these items, in the same order; `None` where the ledger took the outcomes with it.
    pub fn of(
        project: &ProjectId,
        ids: &[WorkId],
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    ) -> Self {
        let mut all = Self::default();
        for (id, outcome) in ids.iter().zip(outcomes.into_iter().flatten()) {
            match outcome {
                Ok(applied) => all.given.push(applied),
                Err(LedgerError::Refused(_) | LedgerError::TooLarge(..)) => all.refused.push(*id),
                Err(LedgerError::Read(
                    error @ (ReadError::NotFound(_) | ReadError::Damaged { .. }),
                )) => {
                    tracing::error!(%project, "an item of the queue cannot be given to anybody: {error}");
                    all.unusable.push(*id);
                }
                Err(error) => all.failure = Some(error),
            }
        }
        all
    }
}

impl Claim {
    fn assign(&self, agent: &AgentEntry) -> Command {
        Command::Assign {
            holder: holder(agent),
            claim_id: Some(self.claim_id.clone()),
            start: self.start,
        }
    }

    fn resume(&self, agent: &AgentEntry, lease: LeaseRef) -> Command {
        Command::Resume {
            holder: holder(agent),
            attempt: lease.attempt,
            claim_id: Some(self.claim_id.clone()),
            start: self.start,
        }
    }
}

/// Whether an agent may have an item again, as far as that is known without the record: it may have
/// registered with less than it could do before.
fn may_resume(agent: &AgentEntry, header: &Header, lease: LeaseRef) -> bool {
    let waits_at = (header.status == WorkStatus::Pending).then_some(header.attempt);
    let agent = agent.candidate(false);
    matching::may_resume(&agent.filter(), &header.needs, waits_at, lease.attempt)
}

fn holder(agent: &AgentEntry) -> Holder {
    let agent = agent.agent();
    Holder {
        guid: agent.guid,
        handle: agent.handle.clone(),
        agent_type: agent.agent_type.clone(),
        hostname: agent.hostname.clone(),
    }
}
