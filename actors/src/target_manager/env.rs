//! What every job of the actor gets as an argument: whom to ask, and how to act beside the actor.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::Target;
use loom_protocol::{Timestamp, WireError};
use ractor::ActorRef;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ASK_AGAIN;
use super::args::TargetManagerArgs;
use super::bucket::TargetBucket;
use super::messages::TargetMsg;

/// What one incarnation works with, whatever it does.
pub(super) struct Env {
    pub args: Arc<TargetManagerArgs>,
    pub bucket: TargetBucket,
    /// Whether this incarnation has read the bucket: nothing is written before.
    pub is_loaded: bool,
    myself: ActorRef<TargetMsg>,
    tasks: JoinSet<()>,
}

impl Env {
    /// Before the bucket has been read.
    pub fn new(args: Arc<TargetManagerArgs>, myself: ActorRef<TargetMsg>) -> Self {
        let bucket = TargetBucket::of(
            &args.nats,
            &args.project,
            args.replicas,
            &args.ownership,
            &args.guard,
            args.births.settings.keep_operations,
        );
        Self {
            args,
            bucket,
            is_loaded: false,
            myself,
            tasks: JoinSet::new(),
        }
    }

    /// The actor, to be told how a task has ended.
    pub fn myself(&self) -> ActorRef<TargetMsg> {
        self.myself.clone()
    }

    /// Runs something beside the actor, for no longer than it lives.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    /// The same, for what keeps the project awake: something is to be ended, or removed.
    pub fn spawn_tidying(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let under_way = self.args.directory.begin_tidying();
        self.spawn(async move {
            task.await;
            drop(under_way);
        });
    }

    /// Has the actor told something after a while.
    pub fn tell_after(&self, wait: Duration, message: impl FnOnce() -> TargetMsg + Send + 'static) {
        self.myself.send_after(wait, message);
    }

    /// Arms a timer if its queue asks for that.
    pub fn arm(&self, next: Option<(u64, Instant)>, message: fn(u64) -> TargetMsg) {
        if let Some((epoch, at)) = next {
            let wait = at.saturating_duration_since(Instant::now());
            self.tell_after(wait, move || message(epoch));
        }
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.args.clock.now()
    }

    /// Whether anything can be written of a target just now.
    pub fn may_write(&self, name: &str) -> Result<(), WireError> {
        let not_now = |why: String| {
            let text = format!("target {name} is not changed: {why}");
            Err(WireError::unavailable(text, ASK_AGAIN))
        };
        if !self.is_loaded {
            return not_now("the targets are still being read".into());
        }
        if !self.args.nats.is_up() {
            return not_now(format!("NATS at {} is away", self.args.nats.shown_url));
        }
        Ok(())
    }

    /// Until when the group of a target is paused, if it is.
    pub fn group_paused_until(&self, target: &Target, now: Timestamp) -> Option<Timestamp> {
        let group = target.limit_group.as_deref()?;
        self.args.agents.group_paused_until(group, now)
    }
}
