//! The actor: which of its jobs each message concerns.
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

use loom_protocol::WorkId;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;

use super::args::WorkDispatcherArgs;
use super::env::DispatcherEnv;
use super::intake::{Intake, RunningIntake};
use super::item_deadlines::ItemDeadlines;
use super::lease_clocks::LeaseClocks;
use super::matching::Matching;
use super::messages::{DispatcherMsg, DispatcherTimer};
use crate::work_ledger::ItemChange;

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
    type Arguments = Arc<WorkDispatcherArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<DispatcherMsg>,
        args: Arc<WorkDispatcherArgs>,
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
            DispatcherMsg::Withhold { guid, reply } => {
                let _ = reply.send(matching.withhold(env, guid));
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
