//! Serving claims: filled with what there is, parked where there is nothing, answered once.

use std::cmp::Reverse;
use std::sync::Arc;

use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, WorkId};
use ractor::RpcReplyPort;
use tokio::time::Instant;

use super::actor::{DispatcherMsg, State};
use super::claims::{Claim, ClaimError, ClaimFilter, ClaimOutcome, OpenClaim};
use super::timers::Due;
use crate::agent_registry::AgentEntry;
use crate::domain::room::Room;
use crate::domain::work::{Command, Holder};
use crate::work_ledger::{
    Applied, Header, LeaseInfo, LedgerError, Operation, ReadError, TRANSITION_DEADLINE,
};

impl State {
    pub(super) fn claim(&mut self, order: &Claim, reply: RpcReplyPort<ClaimOutcome>) {
        let guid = order.guid;
        let Some(agent) = self.args.agents.get(guid) else {
            let _ = reply.send(Err(ClaimError::NotRegistered(guid)));
            return;
        };
        if let Err(error) = agent.admit(order.instance_id.as_deref()) {
            let _ = reply.send(Err(ClaimError::Run(Box::new(error))));
            return;
        }
        let has_leases = !self.leases_under(order).is_empty() || self.unacknowledged.has(guid);
        if let Some(open) = self.claims.named(guid, &order.claim_id) {
            self.claims.replace_reply(open, order, reply);
            if has_leases && self.claims.parked_of(guid) == Some(open) {
                self.redeliver(open);
            }
            return;
        }
        if self.draining && !has_leases {
            let _ = reply.send(Ok(Vec::new()));
            return;
        }
        let claim = self.claims.open(OpenClaim {
            order: order.clone(),
            reply,
            wants: wants(&agent, order),
        });
        if has_leases {
            self.redeliver(claim);
        } else {
            self.fill_or_park(claim);
        }
    }

    /// Why an open claim is not for its sender any more: another run of its agent has registered.
    pub(super) fn refusal_of(&self, claim: u64) -> Option<ClaimError> {
        let order = &self.claims.get(claim)?.order;
        let agent = self.args.agents.get(order.guid)?;
        let refused = agent.admit(order.instance_id.as_deref()).err()?;
        Some(ClaimError::Run(Box::new(refused)))
    }

    /// What the agent holds by this claim.
    fn leases_under(&self, order: &Claim) -> Vec<LeaseInfo> {
        let mut leases = self.args.read.leases_of(order.guid);
        leases.retain(|lease| lease.claim_id.as_deref() == Some(&order.claim_id));
        leases
    }

    /// What the answer to a claim has to name: what its agent holds by it, and what it may not have been told of.
    fn leases_to_tell(&mut self, claim: u64) -> Vec<LeaseInfo> {
        let Some(order) = self.claims.get(claim).map(|open| &open.order) else {
            return Vec::new();
        };
        let guid = order.guid;
        let unacknowledged = self.unacknowledged.tell(guid, &order.claim_id);
        let mut leases = self.args.read.leases_of(guid);
        leases.retain(|lease| {
            lease.claim_id.as_deref() == Some(&order.claim_id)
                || unacknowledged
                    .get(&lease.id)
                    .is_some_and(|by_its_claim| *by_its_claim || !lease.started)
        });
        leases
    }

    /// An item is leased, and not by this incarnation: its agent may not have been told. Where its
    /// claim is being filled, the answer to that will say so; a claim that waits says so now.
    pub(super) fn reconcile_lease(&mut self, header: &Header) {
        let Some((guid, lease)) = self.args.read.lease(header.id) else {
            return;
        };
        let parked = self.claims.parked_of(guid);
        let claim_id = lease.claim_id.as_deref().unwrap_or_default();
        let its_claim = self.claims.named(guid, claim_id);
        if its_claim.is_none() {
            self.unacknowledged.note(guid, header.id, lease.started);
        }
        if let Some(parked) = parked.filter(|parked| its_claim.is_none_or(|own| own == *parked)) {
            self.redeliver(parked);
        }
    }

    /// The claim is answered with the leases that its agent has by it or may not know of: with all of them, so only
    /// when the ledger knows what it has written. One that is reading its bucket again finds them one by one.
    fn redeliver(&mut self, claim: u64) {
        self.claims.fill(claim);
        let (ledger, myself) = (self.args.ledger.clone(), self.myself.clone());
        self.spawn(async move {
            let is_up = ledger.actor().wait_until_up(TRANSITION_DEADLINE).await;
            let outcome = is_up.map_err(LedgerError::from);
            let _ = myself.cast(DispatcherMsg::LedgerIsUp { claim, outcome });
        });
    }

    pub(super) fn ledger_is_up(&mut self, claim: u64, outcome: Result<(), LedgerError>) {
        let Some(guid) = self.claims.get(claim).map(|open| open.order.guid) else {
            return;
        };
        match outcome {
            Ok(()) => self.assigned((claim, guid), &[], None),
            Err(error) => self.answer(claim, Err(error.into())),
        }
    }

    /// The same items once more, as they are now.
    fn answer_with_leases(&mut self, leases: Vec<LeaseInfo>, reply: RpcReplyPort<ClaimOutcome>) {
        let read = self.args.read.clone();
        self.spawn(async move {
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

    /// Gives the claim what there is; where there is nothing, lets it wait, or answers it.
    pub(super) fn fill_or_park(&mut self, claim: u64) {
        if self.fill(claim) {
            return;
        }
        let Some(open) = self.claims.get(claim) else {
            return;
        };
        let now = Instant::now();
        match open.order.wait_until.filter(|until| *until > now) {
            None => self.answer(claim, Ok(Vec::new())),
            Some(_) if self.claims.is_full() => self.answer(claim, Err(ClaimError::Overloaded)),
            Some(until) => {
                let has_slots = self.free_slots(open.order.guid) > 0;
                if let Some(before) = self.claims.park(claim) {
                    self.answer(before, Ok(Vec::new()));
                }
                if has_slots {
                    self.claims.listen(claim);
                }
                self.timers.add(until, Due::ClaimOver(claim));
            }
        }
    }

    /// Takes items out of the queue for a claim and has them assigned. False: there was nothing.
    pub(super) fn fill(&mut self, claim: u64) -> bool {
        let Some(open) = self.claims.get(claim) else {
            return true;
        };
        let guid = open.order.guid;
        let Some(agent) = self.args.agents.get(guid) else {
            return false;
        };
        let most = open.order.max.min(self.free_slots(guid));
        let now = Instant::now();
        let (mut taken, mut bytes) = (Vec::new(), 0_u32);
        // An answer, with what was completed before, has to fit into a message. One item does always.
        let nats = self.args.nats.clone();
        let mut is_too_much = |header: Option<&Header>, taken: &[Operation]| {
            bytes = bytes.saturating_add(header.map_or(0, |header| header.answer_bytes));
            !taken.is_empty() && bytes as usize > Room::of(nats.max_payload()).together()
        };
        for lease in &open.order.resume {
            let header = self.args.read.header(lease.id);
            let Some(header) = header.filter(|header| may_resume(&agent, header, *lease)) else {
                continue;
            };
            if taken.len() == most || is_too_much(Some(&header), &taken) {
                break;
            }
            // What is not in the queue is being given to somebody, or ends.
            if self.queue.remove(&header) {
                let command = open.order.resume(&agent, *lease);
                taken.push(Operation::Apply(lease.id, Arc::new(command)));
            }
        }
        let command = Arc::new(open.order.assign(&agent));
        while taken.len() < most {
            let skip = |id| self.slots.is_cooling_down(guid, id, now);
            let Some(pick) = self.queue.best(open.wants.as_wants(), skip) else {
                break;
            };
            if is_too_much(self.args.read.header(pick.id).as_ref(), &taken) {
                break;
            }
            self.queue.take(&pick);
            taken.push(Operation::Apply(pick.id, command.clone()));
        }
        if taken.is_empty() {
            return false;
        }
        self.slots.assigning(guid, taken.len());
        self.claims.fill(claim);
        self.assign((claim, guid), taken);
        true
    }

    fn assign(&mut self, (claim, guid): (u64, AgentGuid), operations: Vec<Operation>) {
        let ids: Vec<WorkId> = operations.iter().map(Operation::id).collect();
        let answer = self.args.ledger.begin(operations);
        let (ledger, myself) = (self.args.ledger.clone(), self.myself.clone());
        self.spawn(async move {
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

    pub(super) fn assigned(
        &mut self,
        (claim, guid): (u64, AgentGuid),
        ids: &[WorkId],
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    ) {
        self.slots.assigned(guid, ids.len());
        let mut given = Vec::new();
        let (mut unusable, mut failure) = (Vec::new(), None);
        for (id, outcome) in ids.iter().zip(outcomes.into_iter().flatten()) {
            match outcome {
                Ok(applied) => given.push(applied),
                // Somebody was faster, or it was not this agent's to have again.
                Err(LedgerError::Refused(_) | LedgerError::TooLarge(..)) => {
                    self.claims.do_not_resume(claim, *id);
                }
                // There is no such item any more, or nobody can read it: the claim goes on with the next one.
                Err(LedgerError::Read(
                    error @ (ReadError::NotFound(_) | ReadError::Damaged { .. }),
                )) => {
                    tracing::error!(project = %self.args.read.project(), "an item of the queue cannot be given to anybody: {error}");
                    self.claims.do_not_resume(claim, *id);
                    unusable.push(*id);
                }
                Err(error) => failure = Some(error),
            }
        }
        for id in ids.iter().filter(|id| !unusable.contains(id)) {
            if given.iter().all(|applied| applied.record.id != *id) {
                self.requeue(*id);
            }
        }
        let held = self.leases_to_tell(claim);
        let refusal = self.refusal_of(claim);
        match failure {
            // The run that is registered now has the leases: it is told of them, or gives them back.
            _ if refusal.is_some() => {
                let refusal = refusal.map_or_else(|| Ok(Vec::new()), Err);
                self.answer(claim, refusal);
                for applied in &given {
                    if let Some(header) = self.args.read.header(applied.record.id) {
                        self.reconcile_lease(&header);
                    }
                }
            }
            // Of an assignment whose outcome an incarnation of the ledger or of this actor took
            // with it: the claim was served all the same.
            _ if held.len() > given.len() => {
                if let Some(closed) = self.claims.close(claim) {
                    self.answer_with_leases(held, closed.reply);
                }
            }
            _ if !given.is_empty() => self.answer(claim, Ok(given)),
            Some(error) => self.answer(claim, Err(error.into())),
            None if self.draining => self.answer(claim, Ok(Vec::new())),
            None => self.fill_or_park(claim),
        }
        self.ask_again(guid);
        self.answer_drain();
    }

    /// An assignment came to nothing: what the read model says now counts.
    pub(super) fn requeue(&mut self, id: WorkId) {
        let Some(header) = self.args.read.header(id) else {
            return;
        };
        if header.status == WorkStatus::Pending {
            self.ready(&header);
        } else {
            self.reconcile_lease(&header);
        }
    }
}

pub(super) fn wants(agent: &AgentEntry, order: &Claim) -> ClaimFilter {
    let agent = agent.agent();
    let asked_for = |capability: &&String| {
        order
            .capabilities
            .as_ref()
            .is_none_or(|asked| asked.contains(capability))
    };
    ClaimFilter {
        agent_type: agent.agent_type.clone(),
        capabilities: agent
            .capabilities
            .iter()
            .filter(asked_for)
            .cloned()
            .collect(),
        boundaries: agent.boundaries.clone(),
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
    let (agent, needs) = (agent.agent(), &header.needs);
    let has = |all: &[String], one: &str| all.iter().any(|other| other == one);
    let required = needs.required_agent_type.as_deref();
    header.status == WorkStatus::Pending
        && header.attempt == lease.attempt
        && has(&agent.capabilities, &needs.capability)
        && has(&agent.boundaries, &needs.boundary)
        && required.is_none_or(|required| required == agent.agent_type)
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
