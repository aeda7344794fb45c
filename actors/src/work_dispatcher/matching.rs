//! Matching claims with pending items: filled with what there is, parked where there is nothing, answered once.

mod standing;

use std::time::Duration;

use loom_protocol::agent::{AgentStatus, Directive};
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, WorkId};
use ractor::RpcReplyPort;
use tokio::time::Instant;

use super::assignment::{AssignmentOutcomes, assign, free_slots, take_items};
use super::claims::{Claim, ClaimError, ClaimFilter, ClaimOutcome, Claims, OpenClaim};
use super::env::DispatcherEnv;
use super::messages::DispatcherTimer;
use super::queue::PendingQueue;
use super::redelivery::{answer_with_leases, has_leases_under, leases_to_tell, wait_for_ledger};
use super::slots::Slots;
use super::unacknowledged::UnacknowledgedAssignments;
use crate::deadline_queue::DeadlineQueue;
use crate::work_ledger::{Applied, Header, ItemChange, LedgerError};

/// How long an item that was released is not offered to the same agent.
const COOLDOWN: Duration = Duration::from_secs(30);
/// How long ago an item may have been cancelled whose agent is still waited for after a start.
const STILL_STOPPING: Duration = Duration::from_mins(10);

/// What a claim or an agent waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Waiting {
    /// The wait of a parked claim is over.
    Claim(u64),
    /// The agent may be offered what it gave back.
    Cooldown(AgentGuid, WorkId),
    /// The slot that was kept for a stopping item is free.
    StopGrace(AgentGuid, WorkId),
    /// An agent that was to be told to go may be offered work.
    Withheld(AgentGuid),
}

/// What waits for agents, and which claims wait for it.
pub(super) struct Matching {
    queue: PendingQueue,
    claims: Claims,
    slots: Slots,
    unacknowledged: UnacknowledgedAssignments,
    waits: DeadlineQueue<Waiting>,
    draining: bool,
}

impl Matching {
    /// What is pending is offered; what was cancelled before this incarnation and may be running still has its agent
    /// told again, with a full grace.
    pub fn start(env: &mut DispatcherEnv) -> Self {
        let now = env.args.clock.now();
        let mut queue = PendingQueue::default();
        env.args.read.for_each_pending(|header| {
            queue.push(header, now);
        });
        let mut matching = Self {
            queue,
            claims: Claims::default(),
            slots: Slots::default(),
            unacknowledged: UnacknowledgedAssignments::default(),
            waits: DeadlineQueue::default(),
            draining: false,
        };
        for (guid, lease) in env.args.read.stopping(now.before(STILL_STOPPING)) {
            matching.keep_slot(env, guid, lease.id);
            env.add_directive(
                guid,
                Directive::cancel(lease, Some("it was cancelled".into())),
            );
        }
        matching
    }

    /// An agent wants work.
    pub fn claim(
        &mut self,
        env: &mut DispatcherEnv,
        order: &Claim,
        reply: RpcReplyPort<ClaimOutcome>,
    ) {
        let guid = order.guid;
        let Some(agent) = env.args.agents.get(guid) else {
            let _ = reply.send(Err(ClaimError::NotRegistered(guid)));
            return;
        };
        if let Err(error) = agent.admit(order.instance_id.as_deref()) {
            let _ = reply.send(Err(ClaimError::Run(Box::new(error))));
            return;
        }
        let has_leases = has_leases_under(&env.args.read, order) || self.unacknowledged.has(guid);
        if let Some(open) = self.claims.named(guid, &order.claim_id) {
            self.claims.replace_reply(open, order, reply);
            if has_leases && self.claims.parked_of(guid) == Some(open) {
                self.redeliver(env, open);
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
            filter: ClaimFilter::of(&agent, order),
        });
        if has_leases {
            self.redeliver(env, claim);
        } else {
            self.fill_or_park(env, claim);
        }
    }

    /// An item was written: it is offered if it waits, and the agent that had it may have room for another one.
    pub fn item_changed(&mut self, env: &mut DispatcherEnv, change: &ItemChange) {
        let header = &change.header;
        if let Some(guid) = change.freed {
            self.unacknowledged.forget(guid, header.id);
            if change.released {
                let until = Instant::now() + COOLDOWN;
                self.slots.cool_down(guid, header.id, until);
                self.waits.set(Waiting::Cooldown(guid, header.id), until);
            }
            if header.status == WorkStatus::Cancelled {
                self.keep_slot(env, guid, header.id);
            }
        }
        if header.status == WorkStatus::Pending {
            self.make_ready(env, header);
        } else if self.queue.remove(header) {
            self.reconcile_lease(env, header);
        }
        if let Some(guid) = change.freed {
            self.ask_again(env, guid);
        }
    }

    /// An agent came, went or changed: its parked claim is for what it is now.
    pub fn agent_changed(&mut self, env: &mut DispatcherEnv, guid: AgentGuid) {
        let Some(claim) = self.claims.parked_of(guid) else {
            return;
        };
        if let Some(refusal) = self.refusal_of(env, claim) {
            return self.answer(claim, Err(refusal));
        }
        match (env.args.agents.get(guid), self.claims.get(claim)) {
            (Some(agent), Some(open)) if agent.agent().status != AgentStatus::Offline => {
                let filter = ClaimFilter::of(&agent, &open.order);
                self.claims.set_filter(claim, filter);
                self.ask_again(env, guid);
            }
            _ => self.answer(claim, Ok(Vec::new())),
        }
    }

    /// An agent has stopped a cancelled item: its slot is free.
    pub fn stopped(&mut self, env: &mut DispatcherEnv, guid: AgentGuid, id: WorkId) {
        self.slots.stopped(guid, id);
        self.ask_again(env, guid);
    }

    /// Assignments have their outcomes: the claim is answered, or goes on.
    pub fn assigned(
        &mut self,
        env: &mut DispatcherEnv,
        (claim, guid): (u64, AgentGuid),
        ids: &[WorkId],
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    ) {
        self.slots.assigned(guid, ids.len());
        let outcomes = AssignmentOutcomes::of(env.args.read.project(), ids, outcomes);
        for id in outcomes.refused.iter().chain(&outcomes.unusable) {
            self.claims.do_not_resume(claim, *id);
        }
        for id in ids.iter().filter(|id| !outcomes.unusable.contains(id)) {
            if outcomes.given.iter().all(|given| given.record.id != *id) {
                self.requeue(env, *id);
            }
        }
        self.answer_assigned(env, claim, outcomes);
        self.ask_again(env, guid);
    }

    fn answer_assigned(
        &mut self,
        env: &mut DispatcherEnv,
        claim: u64,
        AssignmentOutcomes { given, failure, .. }: AssignmentOutcomes,
    ) {
        let open = self.claims.get(claim);
        let held = open.map_or_else(Vec::new, |open| {
            leases_to_tell(&env.args.read, &mut self.unacknowledged, &open.order)
        });
        if let Some(refusal) = self.refusal_of(env, claim) {
            // The run that is registered now has the leases: it is told of them, or gives them back.
            self.answer(claim, Err(refusal));
            for applied in &given {
                if let Some(header) = env.args.read.header(applied.record.id) {
                    self.reconcile_lease(env, &header);
                }
            }
        } else if held.len() > given.len() {
            // Of an assignment whose outcome an incarnation of the ledger or of this actor took
            // with it: the claim was served all the same.
            if let Some(closed) = self.close(claim) {
                answer_with_leases(env, held, closed.reply);
            }
        } else if !given.is_empty() {
            self.answer(claim, Ok(given));
        } else if let Some(error) = failure {
            self.answer(claim, Err(error.into()));
        } else if self.draining {
            self.answer(claim, Ok(Vec::new()));
        } else {
            self.fill_or_park(env, claim);
        }
    }

    /// An item is past its deadline: nobody is to be given it.
    pub fn withdraw(&mut self, header: &Header) {
        self.queue.remove(header);
    }

    /// The timer of what claims and agents wait for has fired.
    pub fn wait_over(&mut self, env: &mut DispatcherEnv, epoch: u64) {
        if self.waits.fired(epoch).is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(over) = self.waits.pop_due(now) {
            match over {
                Waiting::Claim(claim) => {
                    let open = self.claims.get(claim);
                    let parked = open.and_then(|open| self.claims.parked_of(open.order.guid));
                    if parked == Some(claim) {
                        self.answer(claim, Ok(Vec::new()));
                    }
                }
                Waiting::Cooldown(guid, id) | Waiting::StopGrace(guid, id) => {
                    self.slots.over(guid, id, now);
                    self.ask_again(env, guid);
                }
                Waiting::Withheld(guid) => self.offer_again(env, guid),
            }
        }
    }

    /// The timer of delayed items has fired.
    pub fn delay_over(&mut self, env: &mut DispatcherEnv, epoch: u64) {
        for header in self.queue.release_due(epoch, env.args.clock.now()) {
            self.offer(env, &header);
        }
    }

    /// Every waiting claim is answered, and none waits from now on.
    pub fn drain(&mut self) {
        self.draining = true;
        for claim in self.claims.close_parked() {
            let _ = claim.reply.send(Ok(Vec::new()));
        }
    }

    /// Whether every claim has been answered.
    pub fn is_at_rest(&self) -> bool {
        self.claims.is_empty()
    }

    pub fn arm(&mut self, env: &DispatcherEnv) {
        env.arm(DispatcherTimer::Waits, self.waits.next_to_arm());
        env.arm_by_date(DispatcherTimer::DelayedItems, self.queue.next_to_arm());
    }

    /// A cancelled item keeps its agent's slot until the agent says that it stopped, or its grace
    /// is over.
    fn keep_slot(&mut self, env: &DispatcherEnv, guid: AgentGuid, id: WorkId) {
        let until = Instant::now() + env.args.settings.stop_grace;
        self.slots.stopping(guid, id, until);
        self.waits.set(Waiting::StopGrace(guid, id), until);
    }

    /// An item can be served: whoever waits for one like it gets it.
    fn make_ready(&mut self, env: &mut DispatcherEnv, header: &Header) {
        if env.is_overdue(header) {
            self.queue.remove(header);
        } else if self.queue.push(header, env.args.clock.now()) {
            self.offer(env, header);
        }
    }

    fn offer(&mut self, env: &mut DispatcherEnv, header: &Header) {
        let now = Instant::now();
        while self.queue.is_ready(header) {
            let first = self.claims.first_for(&header.needs, |open| {
                !self.slots.is_cooling_down(open.order.guid, header.id, now)
            });
            let Some(claim) = first else { return };
            if !self.fill(env, claim) {
                // Its agent has no slot just now; `ask_again` lets it listen again.
                self.claims.stop_listening(claim);
            }
        }
    }

    /// The agent's parked claim may be served now: it has a slot, or may take what it might not.
    fn ask_again(&mut self, env: &mut DispatcherEnv, guid: AgentGuid) {
        if let Some(claim) = self.claims.parked_of(guid)
            && self.has_free_slot(env, guid)
            && !self.fill(env, claim)
        {
            self.claims.listen(claim);
        }
    }

    fn has_free_slot(&self, env: &DispatcherEnv, guid: AgentGuid) -> bool {
        let agent = env.args.agents.get(guid);
        agent.is_some_and(|agent| free_slots(&env.args, &self.slots, &agent) > 0)
    }

    /// Gives the claim what there is; where there is nothing, lets it wait, or answers it.
    fn fill_or_park(&mut self, env: &mut DispatcherEnv, claim: u64) {
        if self.fill(env, claim) {
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
                let has_slots = self.has_free_slot(env, open.order.guid);
                if let Some(before) = self.claims.park(claim) {
                    self.answer(before, Ok(Vec::new()));
                }
                if has_slots {
                    self.claims.listen(claim);
                }
                self.waits.set(Waiting::Claim(claim), until);
            }
        }
    }

    /// Takes items out of the queue for a claim and has them assigned. False: there was nothing.
    fn fill(&mut self, env: &mut DispatcherEnv, claim: u64) -> bool {
        let Some(open) = self.claims.get(claim) else {
            return true;
        };
        let guid = open.order.guid;
        let Some(agent) = env.args.agents.get(guid) else {
            return false;
        };
        let most = open
            .order
            .max
            .min(free_slots(&env.args, &self.slots, &agent));
        let (queue, slots) = (&mut self.queue, &self.slots);
        let taken = take_items(&env.args, queue, slots, (open, &agent), most);
        if taken.is_empty() {
            return false;
        }
        self.slots.assigning(guid, taken.len());
        self.claims.fill(claim);
        assign(env, (claim, guid), taken);
        true
    }

    /// An assignment came to nothing: what the read model says now counts.
    fn requeue(&mut self, env: &mut DispatcherEnv, id: WorkId) {
        let Some(header) = env.args.read.header(id) else {
            return;
        };
        if header.status == WorkStatus::Pending {
            self.make_ready(env, &header);
        } else {
            self.reconcile_lease(env, &header);
        }
    }

    /// An item is leased, and not by this incarnation: its agent may not have been told. Where its
    /// claim is being filled, the answer to that will say so; a claim that waits says so now.
    fn reconcile_lease(&mut self, env: &mut DispatcherEnv, header: &Header) {
        let Some((guid, lease)) = env.args.read.lease(header.id) else {
            return;
        };
        let parked = self.claims.parked_of(guid);
        let claim_id = lease.claim_id.as_deref().unwrap_or_default();
        let its_claim = self.claims.named(guid, claim_id);
        if its_claim.is_none() {
            self.unacknowledged.note(guid, header.id, lease.started);
        }
        if let Some(parked) = parked.filter(|parked| its_claim.is_none_or(|own| own == *parked)) {
            self.redeliver(env, parked);
        }
    }

    /// The claim is answered with the leases that its agent has by it or may not know of: with all of them, so only
    /// when the ledger knows what it has written. One that is reading its bucket again finds them one by one.
    fn redeliver(&mut self, env: &mut DispatcherEnv, claim: u64) {
        self.claims.fill(claim);
        wait_for_ledger(env, claim);
    }

    /// A claim that waited for the ledger goes on.
    pub fn ledger_is_up(
        &mut self,
        env: &mut DispatcherEnv,
        claim: u64,
        outcome: Result<(), LedgerError>,
    ) {
        let Some(guid) = self.claims.get(claim).map(|open| open.order.guid) else {
            return;
        };
        match outcome {
            Ok(()) => self.assigned(env, (claim, guid), &[], None),
            Err(error) => self.answer(claim, Err(error.into())),
        }
    }

    /// Why an open claim is not for its sender any more: another run of its agent has registered.
    fn refusal_of(&self, env: &DispatcherEnv, claim: u64) -> Option<ClaimError> {
        self.claims.get(claim)?.order.refusal(&env.args.agents)
    }

    fn answer(&mut self, claim: u64, outcome: ClaimOutcome) {
        if let Some(closed) = self.close(claim) {
            let _ = closed.reply.send(outcome);
        }
    }

    fn close(&mut self, claim: u64) -> Option<OpenClaim> {
        let closed = self.claims.close(claim)?;
        if closed.order.wait_until.is_some() {
            self.waits.remove(&Waiting::Claim(claim));
        }
        Some(closed)
    }
}
