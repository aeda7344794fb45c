//! What every job of the dispatcher gets as an argument: whom to ask, and how to act beside the actor.

use std::sync::Arc;

use loom_protocol::agent::Directive;
use loom_protocol::work::LeaseRef;
use loom_protocol::{AgentGuid, Timestamp};
use ractor::ActorRef;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::args::WorkDispatcherArgs;
use super::messages::{DispatcherMsg, DispatcherTimer};
use super::under_assignment::UnderAssignment;
use crate::work_ledger::Header;

/// What one incarnation of the dispatcher works with, whatever it does.
pub(super) struct DispatcherEnv {
    pub args: Arc<WorkDispatcherArgs>,
    pub under_assignment: UnderAssignment,
    myself: ActorRef<DispatcherMsg>,
    tasks: JoinSet<()>,
}

impl DispatcherEnv {
    /// The read model tells `myself` of every change from now on.
    pub fn listening(args: Arc<WorkDispatcherArgs>, myself: ActorRef<DispatcherMsg>) -> Self {
        let under_assignment = UnderAssignment::default();
        let (listener, own) = (myself.clone(), under_assignment.clone());
        args.read.changes().hook("work-dispatcher", move |change| {
            if !own.explains(&change.header) {
                let _ = listener.cast(DispatcherMsg::ItemChanged(change.clone()));
            }
        });
        Self {
            args,
            under_assignment,
            myself,
            tasks: JoinSet::new(),
        }
    }

    /// The actor, to be told how a task has ended.
    pub fn myself(&self) -> ActorRef<DispatcherMsg> {
        self.myself.clone()
    }

    /// Runs something beside the actor, for no longer than it lives.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    /// Arms a timer if its queue asks for that.
    pub fn arm(&self, timer: DispatcherTimer, next: Option<(u64, Instant)>) {
        if let Some((epoch, due_at)) = next {
            let wait = due_at.saturating_duration_since(Instant::now());
            self.myself
                .send_after(wait, move || DispatcherMsg::TimerDue {
                    timer,
                    epoch,
                    due_at,
                });
        }
    }

    /// The same for a queue that goes by the time of day.
    pub fn arm_by_date(&self, timer: DispatcherTimer, next: Option<(u64, Timestamp)>) {
        let at = |date: Timestamp| Instant::now() + date.since(self.args.clock.now());
        self.arm(timer, next.map(|(epoch, date)| (epoch, at(date))));
    }

    /// Whether an item's deadline has passed.
    pub fn is_overdue(&self, header: &Header) -> bool {
        let deadline = header.deadline();
        deadline.is_some_and(|deadline| deadline <= self.args.clock.now())
    }

    /// Tells an agent, and goes on telling it in the answers to its heartbeats.
    pub fn add_directive(&mut self, guid: AgentGuid, directive: Directive) {
        let registry = self.args.registry.clone();
        self.spawn(async move {
            if let Err(error) = registry.add_directive(guid, directive).await {
                tracing::debug!(%guid, "the agent could not be told to stop: {error}");
            }
        });
    }

    /// An agent is no longer told to stop an attempt.
    pub fn clear_cancel_directive(&mut self, guid: AgentGuid, lease: LeaseRef) {
        let registry = self.args.registry.clone();
        self.spawn(async move {
            let directive = Directive::cancel(lease, None);
            if let Err(error) = registry.clear_directive(guid, directive).await {
                let id = lease.id;
                tracing::debug!(%id, "an order to stop could not be taken back: {error}");
            }
        });
    }
}
