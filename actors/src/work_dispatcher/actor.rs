//! The actor: its messages, and which of its jobs each one concerns.
//!
//! | job | its state |
//! |---|---|
//! | bringing claims and pending items together | [`Matching`] |
//! | the clocks of leases | [`LeaseClocks`] |
//! | the deadlines of items | [`ItemDeadlines`] |
//! | taking in what is published | [`RunningIntake`]: tasks of their own |
//!
//! A job changes its own state only. What else it needs comes as an argument, and what it means for another job goes
//! back to the actor.

use std::sync::Arc;

use loom_protocol::{AgentGuid, WorkId};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::claims::{Claim, ClaimOutcome};
use super::env::DispatcherEnv;
use super::handle::QueuePosition;
use super::intake::{Intake, RunningIntake};
use super::item_deadlines::ItemDeadlines;
use super::lease_clocks::LeaseClocks;
use super::matching::Matching;
use crate::agent_registry::{AgentDirectory, AgentRegistryHandle};
use crate::clock::Clock;
use crate::liveness::{BarrierOutcome, DeliveryBarrier};
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::settings::WorkSettings;
use crate::supervision::Jitter;
use crate::work_ledger::{Applied, Header, ItemChange, LedgerError, ReadModel, WorkLedgerHandle};

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
    /// A timer has fired. Changes nothing when `epoch` is stale.
    TimerDue {
        /// Which timer.
        timer: DispatcherTimer,
        /// Which arming of it.
        epoch: u64,
        /// When it was to fire.
        due_at: Instant,
    },
    /// Answer every waiting claim, take no more, and answer when those being filled are answered.
    Drain(RpcReplyPort<()>),
}

/// The timers of the dispatcher: each has a queue of deadlines, and is armed for the earliest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DispatcherTimer {
    /// Of what claims and agents wait for.
    Waits,
    /// Of items that are not to be offered before their time.
    DelayedItems,
    /// Of the clocks of leases.
    LeaseClocks,
    /// Of the deadlines of items.
    ItemDeadlines,
}

/// The actor.
pub struct WorkDispatcher;

/// What one incarnation holds.
pub struct DispatcherState {
    env: DispatcherEnv,
    matching: Matching,
    lease_clocks: LeaseClocks,
    item_deadlines: ItemDeadlines,
    intake: RunningIntake,
    waiting_for_drain: Vec<RpcReplyPort<()>>,
}

impl Actor for WorkDispatcher {
    type Msg = DispatcherMsg;
    type State = DispatcherState;
    type Arguments = WorkDispatcherArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<DispatcherMsg>,
        args: WorkDispatcherArgs,
    ) -> Result<DispatcherState, ActorProcessingErr> {
        let intake = Intake::new(&args).start();
        let mut env = DispatcherEnv::listening(args, myself);
        let matching = Matching::start(&mut env);
        let item_deadlines = ItemDeadlines::start(&env);
        let lease_clocks = LeaseClocks::start(&env, &item_deadlines);
        let mut state = DispatcherState {
            env,
            matching,
            lease_clocks,
            item_deadlines,
            intake,
            waiting_for_drain: Vec::new(),
        };
        state.arm();
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<DispatcherMsg>,
        message: DispatcherMsg,
        state: &mut DispatcherState,
    ) -> Result<(), ActorProcessingErr> {
        let DispatcherState { env, matching, .. } = state;
        match message {
            DispatcherMsg::Claim { order, reply } => matching.claim(env, &order, reply),
            DispatcherMsg::ItemChanged(change) => state.item_changed(&change),
            DispatcherMsg::AgentChanged(guid) => matching.agent_changed(env, guid),
            DispatcherMsg::Stopped { guid, id } => matching.stopped(env, guid, id),
            DispatcherMsg::Assigned {
                claim,
                guid,
                ids,
                outcomes,
            } => {
                env.under_assignment.end(&ids);
                matching.assigned(env, (claim, guid), &ids, outcomes);
                state.look_at_clocks(&ids);
                state.answer_drain();
            }
            DispatcherMsg::LedgerIsUp { claim, outcome } => {
                matching.ledger_is_up(env, claim, outcome);
                state.answer_drain();
            }
            DispatcherMsg::QueuePosition { header, reply } => {
                let _ = reply.send(matching.queue_position(&header));
            }
            DispatcherMsg::BarrierEnded(outcome) => {
                state
                    .lease_clocks
                    .barrier_ended(&mut state.env, &state.item_deadlines, outcome);
            }
            DispatcherMsg::TimerDue {
                timer,
                epoch,
                due_at,
            } => state.timer_due(timer, epoch, due_at),
            DispatcherMsg::Drain(reply) => state.drain(reply),
        }
        state.arm();
        Ok(())
    }
}

impl DispatcherState {
    fn item_changed(&mut self, change: &ItemChange) {
        let (env, header) = (&mut self.env, &change.header);
        self.matching.item_changed(env, change);
        self.item_deadlines.item_changed(env, header);
        self.lease_clocks
            .item_changed(env, &self.item_deadlines, header);
    }

    /// These were to be assigned: the clocks and deadlines of what they are now.
    fn look_at_clocks(&mut self, ids: &[WorkId]) {
        let Self {
            env,
            item_deadlines,
            lease_clocks,
            ..
        } = self;
        for id in ids {
            if let Some(header) = env.args.read.header(*id) {
                item_deadlines.item_changed(env, &header);
                lease_clocks.item_changed(env, item_deadlines, &header);
            }
        }
    }

    /// A timer that is late shows that we stood still: then nobody is late before a full grace.
    fn timer_due(&mut self, timer: DispatcherTimer, epoch: u64, due_at: Instant) {
        let env = &mut self.env;
        env.args.barrier.grace().timer_fired(due_at);
        match timer {
            DispatcherTimer::Waits => self.matching.wait_over(env, epoch),
            DispatcherTimer::DelayedItems => self.matching.delay_over(env, epoch),
            DispatcherTimer::LeaseClocks => {
                self.lease_clocks
                    .timer_due(env, &self.item_deadlines, epoch);
            }
            DispatcherTimer::ItemDeadlines => {
                let passed = self.item_deadlines.timer_due(env, epoch);
                for header in &passed.pending {
                    self.matching.withdraw(header);
                }
                for id in passed.leased {
                    self.lease_clocks.set(env, &self.item_deadlines, id);
                }
            }
        }
    }

    fn arm(&mut self) {
        self.matching.arm(&self.env);
        self.lease_clocks.arm(&self.env);
        self.item_deadlines.arm(&self.env);
    }

    fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.matching.drain();
        self.intake.stop();
        self.waiting_for_drain.push(reply);
        self.answer_drain();
    }

    /// What is being assigned is handed over first: its agent would not know that it holds it.
    fn answer_drain(&mut self) {
        if self.matching.is_at_rest() {
            for reply in self.waiting_for_drain.drain(..) {
                let _ = reply.send(());
            }
        }
    }
}
