//! The actor: claims come in, items become ready, the two are brought together.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::AgentStatus;
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, WorkId};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::claims::{Claim, ClaimOutcome, Claims};
use super::handle::QueuePosition;
use super::intake::Intake;
use super::item_deadlines::{Deadlines, cancel_directive};
use super::lease_clocks::LeaseClocks;
use super::matching::wants;
use super::queue::PendingQueue;
use super::slots::Slots;
use super::stream::ensure_stream;
use super::timers::{Due, Timers};
use super::unacknowledged::UnacknowledgedAssignments;
use crate::agent_registry::{AgentDirectory, AgentRegistryHandle};
use crate::clock::Clock;
use crate::liveness::{BarrierOutcome, DeliveryBarrier};
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::settings::WorkSettings;
use crate::supervision::Jitter;
use crate::work_ledger::{Applied, Header, ItemChange, LedgerError, ReadModel, WorkLedgerHandle};

/// How long a start waits until it is known whether the store is the right one.
const STORE_KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How long an item that was released is not offered to the same agent.
const HOLD_OFF: Duration = Duration::from_secs(30);
/// How long ago an item may have been cancelled whose agent is still waited for after a start.
const STILL_STOPPING: Duration = Duration::from_mins(10);
/// How far the items before another one are counted.
const MOST_AHEAD: usize = 10_000;

/// What the dispatcher needs to run.
#[derive(Clone)]
pub struct WorkDispatcherArgs {
    /// The read side of the ledger.
    pub read: Arc<ReadModel>,
    /// The ledger, which writes.
    pub ledger: WorkLedgerHandle,
    /// Who is there.
    pub agents: Arc<AgentDirectory>,
    /// Through which agents are told to stop.
    pub registry: AgentRegistryHandle,
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: Clock,
    /// Defaults of items.
    pub settings: WorkSettings,
    /// How many copies of the stream NATS keeps.
    pub replicas: usize,
    /// Whether the ownership lasts: asked before a report is dropped for good.
    pub ownership: Ownership,
    /// Which ownership this is: part of the consumers' names.
    pub epoch: u64,
    /// To be passed before a lease is taken back.
    pub barrier: DeliveryBarrier,
    /// Spreads the pauses before a next attempt.
    pub jitter: Jitter,
}

/// What the dispatcher is told.
#[derive(Debug)]
pub enum DispatcherMsg {
    /// An agent wants work. Answered when there is some, or when its wait is over.
    Claim {
        /// What it wants.
        order: Arc<Claim>,
        /// To whom.
        reply: RpcReplyPort<ClaimOutcome>,
    },
    /// The read model has taken a write over.
    ItemChanged(Arc<ItemChange>),
    /// An agent came, went or changed.
    AgentChanged(AgentGuid),
    /// An agent has stopped a cancelled item: its slot is free.
    Stopped {
        /// The agent.
        guid: AgentGuid,
        /// The item.
        id: WorkId,
    },
    /// Assignments have their outcomes; `None` where the ledger died and is up again.
    Assigned {
        /// For which claim.
        claim: u64,
        /// Of which agent.
        guid: AgentGuid,
        /// Which items.
        ids: Vec<WorkId>,
        /// What came of them, in the same order.
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    },
    /// A claim is to be answered with leases that are there already: the ledger knows them all now, or is away.
    LedgerIsUp {
        /// Which claim.
        claim: u64,
        /// Whether it is up.
        outcome: Result<(), LedgerError>,
    },
    /// What stands between this pending item and an agent?
    QueuePosition {
        /// The item.
        header: Box<Header>,
        /// To whom.
        reply: RpcReplyPort<QueuePosition>,
    },
    /// The barrier for leases that were found out of time has been passed, or not.
    BarrierEnded(BarrierOutcome),
    /// Timer. Ignored when `epoch` is stale.
    TimerDue {
        /// Which timer.
        epoch: u64,
    },
    /// Answer every waiting claim, take no more, and answer when those being filled are answered.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct WorkDispatcher;

/// What one incarnation holds.
pub struct State {
    pub(super) args: WorkDispatcherArgs,
    pub(super) myself: ActorRef<DispatcherMsg>,
    pub(super) tasks: JoinSet<()>,
    pub(super) queue: PendingQueue,
    pub(super) claims: Claims,
    pub(super) slots: Slots,
    pub(super) unacknowledged: UnacknowledgedAssignments,
    pub(super) timers: Timers,
    pub(super) leases: LeaseClocks,
    pub(super) deadlines: Deadlines,
    pub(super) draining: bool,
    intake: JoinSet<()>,
    waiting_for_drain: Vec<RpcReplyPort<()>>,
}

impl Actor for WorkDispatcher {
    type Msg = DispatcherMsg;
    type State = State;
    type Arguments = WorkDispatcherArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<DispatcherMsg>,
        args: WorkDispatcherArgs,
    ) -> Result<State, ActorProcessingErr> {
        args.read.guard().settled_within(STORE_KNOWN_WITHIN).await?;
        ensure_stream(&args.nats.jetstream, args.read.project(), args.replicas).await?;
        let listener = myself.clone();
        args.read.listen("work-dispatcher", move |change| {
            let _ = listener.cast(DispatcherMsg::ItemChanged(change.clone()));
        });
        let now = args.clock.now();
        let mut queue = PendingQueue::default();
        args.read.for_each_pending(|header| {
            queue.push(header, now);
        });
        let mut intake = JoinSet::new();
        Intake::new(&args).spawn_into(&mut intake);
        let mut state = State {
            args,
            myself,
            tasks: JoinSet::new(),
            queue,
            claims: Claims::default(),
            slots: Slots::default(),
            unacknowledged: UnacknowledgedAssignments::default(),
            timers: Timers::default(),
            leases: LeaseClocks::default(),
            deadlines: Deadlines::default(),
            draining: false,
            intake,
            waiting_for_drain: Vec::new(),
        };
        state.arm_held();
        state.start_lease_clocks();
        state.start_deadlines();
        state.go_on_stopping();
        state.arm();
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<DispatcherMsg>,
        message: DispatcherMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DispatcherMsg::Claim { order, reply } => state.claim(&order, reply),
            DispatcherMsg::ItemChanged(change) => state.item_changed(&change),
            DispatcherMsg::AgentChanged(guid) => state.agent_changed(guid),
            DispatcherMsg::Stopped { guid, id } => {
                state.slots.stopped(guid, id);
                state.ask_again(guid);
            }
            DispatcherMsg::Assigned {
                claim,
                guid,
                ids,
                outcomes,
            } => state.assigned((claim, guid), &ids, outcomes),
            DispatcherMsg::LedgerIsUp { claim, outcome } => state.ledger_is_up(claim, outcome),
            DispatcherMsg::QueuePosition { header, reply } => {
                let _ = reply.send(state.queue_position(&header));
            }
            DispatcherMsg::BarrierEnded(crossing) => state.crossed(crossing),
            DispatcherMsg::TimerDue { epoch } => state.timer_due(epoch),
            DispatcherMsg::Drain(reply) => state.drain(reply),
        }
        state.arm();
        Ok(())
    }
}

impl State {
    fn item_changed(&mut self, change: &ItemChange) {
        let header = &change.header;
        if header.status == WorkStatus::Pending {
            self.ready(header);
        } else if self.queue.remove(header) {
            self.reconcile_lease(header);
        }
        self.run_lease_clock(header);
        self.run_deadline(header);
        if let Some(guid) = change.freed {
            self.unacknowledged.forget(guid, header.id);
            if change.released {
                let until = Instant::now() + HOLD_OFF;
                self.slots.cool_down(guid, header.id, until);
                self.timers
                    .add(until, Due::AgentMayTakeMore(guid, header.id));
            }
            if header.status == WorkStatus::Cancelled {
                self.keep_slot(guid, header.id);
            }
            self.ask_again(guid);
        }
    }

    /// A cancelled item keeps its agent's slot until the agent says that it stopped, or its grace
    /// is over.
    fn keep_slot(&mut self, guid: AgentGuid, id: WorkId) {
        let until = Instant::now() + self.args.settings.stop_grace;
        self.slots.stopping(guid, id, until);
        self.timers.add(until, Due::AgentMayTakeMore(guid, id));
    }

    /// What was cancelled before this incarnation and may be running still: its agent is told
    /// again, and has a full grace.
    fn go_on_stopping(&mut self) {
        let since = self.args.clock.now().before(STILL_STOPPING);
        for (guid, lease) in self.args.read.stopping(since) {
            self.keep_slot(guid, lease.id);
            self.give_order(guid, cancel_directive(lease, "it was cancelled"));
        }
    }

    /// An item can be served: whoever waits for one like it gets it.
    pub(super) fn ready(&mut self, header: &Header) {
        if self.is_overdue(header) {
            self.queue.remove(header);
            return;
        }
        if !self.queue.push(header, self.args.clock.now()) {
            self.arm_held();
            return;
        }
        self.offer(header);
    }

    fn offer(&mut self, header: &Header) {
        let now = Instant::now();
        while self.queue.is_ready(header) {
            let first = self.claims.first_for(&header.needs, |open| {
                !self.slots.is_cooling_down(open.order.guid, header.id, now)
            });
            let Some(claim) = first else { return };
            if !self.fill(claim) {
                // Its agent has no slot just now; `ask_again` lets it listen again.
                self.claims.stop_listening(claim);
            }
        }
    }

    fn queue_position(&self, header: &Header) -> QueuePosition {
        QueuePosition {
            ahead: self.queue.ahead_of(header, MOST_AHEAD),
            held_off: self.slots.held_off(header.id, Instant::now()),
            taken: self.slots.all_taken(),
        }
    }

    fn agent_changed(&mut self, guid: AgentGuid) {
        let Some(claim) = self.claims.parked_of(guid) else {
            return;
        };
        let agent = self.args.agents.get(guid);
        if let Some(refusal) = self.refusal_of(claim) {
            return self.answer(claim, Err(refusal));
        }
        match (agent, self.claims.get(claim)) {
            (Some(agent), Some(open)) if agent.agent().status != AgentStatus::Offline => {
                let wants = wants(&agent, &open.order);
                self.claims.set_wants(claim, wants);
                self.ask_again(guid);
            }
            _ => self.answer(claim, Ok(Vec::new())),
        }
    }

    /// The agent's parked claim may be served now: it has a slot, or may take what it might not.
    pub(super) fn ask_again(&mut self, guid: AgentGuid) {
        if let Some(claim) = self.claims.parked_of(guid)
            && self.free_slots(guid) > 0
            && !self.fill(claim)
        {
            self.claims.listen(claim);
        }
    }

    /// How many more items an agent may be given now.
    pub(super) fn free_slots(&self, guid: AgentGuid) -> usize {
        let Some(agent) = self.args.agents.get(guid) else {
            return 0;
        };
        let agent = agent.agent();
        let takes_nothing = matches!(
            agent.status,
            AgentStatus::Paused | AgentStatus::Draining | AgentStatus::Quarantined
        );
        if takes_nothing {
            return 0;
        }
        let taken = self.args.read.lease_count(guid) + self.slots.taken(guid);
        (agent.max_concurrent_tasks as usize).saturating_sub(taken)
    }

    pub(super) fn answer(&mut self, claim: u64, outcome: ClaimOutcome) {
        if let Some(closed) = self.claims.close(claim) {
            let _ = closed.reply.send(outcome);
        }
    }

    fn timer_due(&mut self, epoch: u64) {
        let now = Instant::now();
        let Some((armed_for, all_due)) = self.timers.fired(epoch, now) else {
            return;
        };
        self.args.barrier.grace().timer_fired(armed_for);
        for due in all_due {
            match due {
                Due::ClaimOver(claim) => {
                    let is_parked = self
                        .claims
                        .get(claim)
                        .is_some_and(|open| self.claims.parked_of(open.order.guid) == Some(claim));
                    if is_parked {
                        self.answer(claim, Ok(Vec::new()));
                    }
                }
                Due::Held => {
                    for header in self.queue.release_due(self.args.clock.now()) {
                        self.offer(&header);
                    }
                    self.arm_held();
                }
                Due::Leases => self.look_at_leases(),
                Due::Deadlines => self.look_at_deadlines(),
                Due::AgentMayTakeMore(guid, id) => {
                    self.slots.over(guid, id, now);
                    self.ask_again(guid);
                }
            }
        }
    }

    fn arm_held(&mut self) {
        if let Some(time) = self.queue.next_due() {
            let wait = time.since(self.args.clock.now());
            self.timers.add_look(Instant::now() + wait, Due::Held);
        }
    }

    fn arm(&mut self) {
        if let Some((epoch, at)) = self.timers.next_to_arm() {
            let wait = at.saturating_duration_since(Instant::now());
            self.myself
                .send_after(wait, move || DispatcherMsg::TimerDue { epoch });
        }
    }

    fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining = true;
        for claim in self.claims.close_parked() {
            let _ = claim.reply.send(Ok(Vec::new()));
        }
        self.intake.abort_all();
        self.waiting_for_drain.push(reply);
        self.answer_drain();
    }

    /// What is being assigned is handed over first: its agent would not know that it holds it.
    pub(super) fn answer_drain(&mut self) {
        if self.claims.is_empty() {
            for reply in self.waiting_for_drain.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }
}
