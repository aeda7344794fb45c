//! The actor: reads the bucket, has changes carried out in the background, applies what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError};
use loom_supervision::Loading;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::task::AbortOnDropHandle;

use super::birth_command::BirthCommand;
use super::bucket::TargetBucket;
use super::change::{Change, ChangeContext, Changed, Request};
use super::command::Command;
use super::key::TargetKey;
use super::messages::{DoneMsg, Reply, TargetManagerArgs, TargetMsg};
use super::planning::Planner;
use super::under_way::Births;
use super::{ASK_AGAIN, MOST_TARGETS};
use crate::keyed_writer::{Bounds, KeyedWriter, Panicked, carry_out};

/// How many changes may be under way or queued, in all and for one name; more are refused with `overloaded`.
const BOUNDS: Bounds = Bounds {
    tasks: 64,
    requests_of_a_key: 64,
    requests: 1024,
};
/// The pause before a reading that has failed is tried again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// The actor.
pub struct TargetManager;

/// A request, and who waits for its outcome.
pub(super) struct Job {
    pub request: Arc<Request>,
    /// `None`: the actor's own.
    pub reply: Option<Reply>,
}

/// What one incarnation holds.
pub struct State {
    pub(super) args: TargetManagerArgs,
    pub(super) myself: ActorRef<TargetMsg>,
    context: ChangeContext,
    pub(super) writer: KeyedWriter<TargetKey, Job, TargetMsg>,
    pub(super) births: Births,
    pub(super) planner: Planner,
    /// Until the bucket has been read: nothing is written before.
    pub(super) loading: Option<Loading>,
    was_loaded: bool,
    reloading: Option<AbortOnDropHandle<()>>,
    /// Hears of reconnects; only where there is a bucket.
    watching: Option<AbortOnDropHandle<()>>,
}

impl Actor for TargetManager {
    type Msg = TargetMsg;
    type State = State;
    type Arguments = TargetManagerArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<TargetMsg>,
        args: TargetManagerArgs,
    ) -> Result<State, ActorProcessingErr> {
        let bucket = TargetBucket::of(
            &args.nats,
            &args.project,
            args.replicas,
            &args.ownership,
            &args.guard,
            args.births.settings.keep_operations,
        );
        let (from, into) = (bucket.clone(), args.directory.clone());
        let load = move || {
            let (from, into) = (from.clone(), into.clone());
            async move { from.read_into(&into).await }
        };
        Ok(State {
            was_loaded: args.directory.is_loaded(),
            loading: Some(Loading::begin(&myself, load, TargetMsg::Loaded)),
            context: ChangeContext {
                directory: args.directory.clone(),
                bucket,
                nats: args.nats.clone(),
                clock: args.clock.clone(),
                epoch: args.epoch,
                on_step: args.births.on_step.clone(),
            },
            args,
            births: Births::default(),
            planner: Planner::default(),
            writer: KeyedWriter::new(myself.clone(), BOUNDS),
            myself,
            reloading: None,
            watching: None,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<TargetMsg>,
        message: TargetMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TargetMsg::Loaded(loaded) => {
                loaded?;
                state.loaded();
            }
            TargetMsg::CarryOut { request, reply } => state.take(request, reply),
            TargetMsg::Trigger { trigger, reply } => state.trigger(&trigger, reply),
            TargetMsg::EndAgent { order, reply } => {
                let _ = reply.send(state.end_agent(order));
            }
            TargetMsg::Order { request } => state.order(request),
            TargetMsg::Launch { id, news } => state.heard_of(id, news),
            TargetMsg::EndedWhatWasStarted { id, end } => state.ended(id, end),
            TargetMsg::Crossed { id, could_hear } => state.crossed(id, could_hear),
            TargetMsg::BirthsDue { epoch } => state.time_is_over(epoch),
            TargetMsg::AgentLeft { guid, change } => state.agent_left(guid, change),
            TargetMsg::Departed { guid } => state.unlink(guid),
            TargetMsg::LookWanted => state.want_look(),
            TargetMsg::LookDue { epoch } => state.look_due(epoch),
            TargetMsg::Done(DoneMsg { key, outcome }) => state.settle(key, *outcome),
            TargetMsg::ReloadDue => state.reload(),
            TargetMsg::Reloaded(is_read) => state.reloaded(is_read),
            TargetMsg::Drain(reply) => state.writer.drain(reply),
        }
        state.work_off();
        state.arm_births();
        Ok(())
    }
}

impl State {
    /// Loading → ready.
    fn loaded(&mut self) {
        let Some(loading) = self.loading.take() else {
            return;
        };
        if self.was_loaded {
            // What the last incarnation wrote and did not live to tell.
            self.args.events.gap(Some(&self.args.project));
        }
        loading.finish();
        self.watch_reconnects();
        self.listen();
        self.recover();
    }

    fn take(&mut self, request: Arc<Request>, reply: Reply) {
        let key = request.key;
        if let Err(refusal) = self.admit(&request) {
            let _ = reply.send(Err(refusal));
            return;
        }
        let reply = Some(reply);
        if let Err(rejected) = self.writer.push(key, Job { request, reply }) {
            let Job { request, reply } = rejected.request;
            let text = format!("target {} is not changed: {}", request.name, rejected.why);
            if let Some(reply) = reply {
                let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
            }
        }
    }

    /// Whether anything can be written of a target just now.
    pub(super) fn may_write(&self, name: &str) -> Result<(), WireError> {
        let not_now = |why: String| {
            let text = format!("target {name} is not changed: {why}");
            Err(WireError::unavailable(text, ASK_AGAIN))
        };
        if self.loading.is_some() {
            return not_now("the targets are still being read".into());
        }
        if !self.args.nats.is_up() {
            return not_now(format!("NATS at {} is away", self.args.nats.shown_url));
        }
        Ok(())
    }

    fn admit(&self, request: &Request) -> Result<(), WireError> {
        let name = &request.name;
        self.may_write(name)?;
        if let Command::Birth {
            command: BirthCommand::Redeem { digest, .. },
            ..
        } = &request.command
            && self.is_ending(digest)
        {
            let text = "the start of this agent is being given up: no agent registered in time, and what was started is ended; try again in a moment";
            return Err(WireError::unavailable(text, ASK_AGAIN));
        }
        let is_new = matches!(
            request.command,
            Command::Register(_) | Command::Define { .. }
        ) && self.args.directory.known(request.key).is_none();
        // Those that are under way may be new ones, all of them.
        if is_new && self.args.directory.len() + self.writer.requests() >= MOST_TARGETS {
            let text = format!(
                "project {} has {MOST_TARGETS} targets, which is the most; remove one before you register {name}",
                self.args.project
            );
            return Err(WireError::new(ErrorCode::TooLarge, text));
        }
        Ok(())
    }

    /// Begins what can be begun.
    fn work_off(&mut self) {
        while let Some(key) = self.writer.next_turn() {
            let Some(job) = self.writer.first(&key) else {
                continue;
            };
            let change = Change::new(self.context.clone(), job.request.clone());
            let name = job.request.name.clone();
            let done = move |outcome: Result<Result<Changed, WireError>, Panicked>| {
                let lost = |panicked: Panicked| {
                    let text = format!("what became of target {name} is not known: {panicked}");
                    Err(WireError::new(ErrorCode::Internal, text))
                };
                let outcome = Box::new(outcome.unwrap_or_else(lost));
                TargetMsg::Done(DoneMsg { key, outcome })
            };
            self.writer.begin(key, (), carry_out(change), done);
        }
    }

    fn settle(&mut self, key: TargetKey, outcome: Result<Changed, WireError>) {
        let Some(Job { request, reply }) = self.writer.finish(&key) else {
            return;
        };
        if let Ok(changed) = &outcome {
            self.apply(key, changed, &request.command);
        }
        if let Command::Birth { command, .. } = &request.command {
            self.birth_settled(&request, command, &outcome, reply.is_none());
        }
        if outcome
            .as_ref()
            .is_ok_and(|changed| changed.outcome.changed)
        {
            self.targets_changed();
        }
        if let Some(reply) = reply {
            let _ = reply.send(outcome.map(|changed| changed.outcome));
        }
        self.watch_reconnects();
    }

    fn apply(&self, key: TargetKey, changed: &Changed, command: &Command) {
        if !changed.outcome.changed {
            return;
        }
        let directory = &self.args.directory;
        // The end first: who looks for the operation finds it at every moment.
        if let Some(end) = &changed.end {
            directory.apply_end(end.clone());
        }
        match &changed.now {
            Some((record, revision)) => directory.apply(key, record, *revision),
            None => directory.forget(key),
        }
        self.tell_of_target(changed, command);
    }

    fn watch_reconnects(&mut self) {
        if self.watching.is_some() || !self.context.bucket.is_there() {
            return;
        }
        let mut reconnects = self.args.nats.reconnects.clone();
        reconnects.mark_unchanged();
        let myself = self.myself.clone();
        self.watching = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            while reconnects.changed().await.is_ok() && myself.cast(TargetMsg::ReloadDue).is_ok() {}
        })));
    }

    fn reload(&mut self) {
        if self.reloading.is_some() || self.loading.is_some() {
            return;
        }
        let (bucket, directory) = (self.context.bucket.clone(), self.args.directory.clone());
        let myself = self.myself.clone();
        self.reloading = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let read = bucket.read_into(&directory).await;
            if let Err(error) = &read {
                tracing::debug!("the targets could not be read again yet: {error}");
            }
            let _ = myself.cast(TargetMsg::Reloaded(read.is_ok()));
        })));
    }

    fn reloaded(&mut self, is_read: bool) {
        self.reloading = None;
        if is_read {
            self.args.events.gap(Some(&self.args.project));
            self.recover();
        } else {
            self.myself.send_after(READ_AGAIN, || TargetMsg::ReloadDue);
        }
    }
}
