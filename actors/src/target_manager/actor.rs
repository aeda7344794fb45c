//! The actor: reads the bucket, has changes carried out in the background, applies what was acknowledged.

use std::sync::Arc;

use loom_protocol::{ErrorCode, WireError};
use loom_supervision::Loading;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use super::ASK_AGAIN;
use super::admission::{NewNames, may_be_new};
use super::birth_command::BirthCommand;
use super::bucket::TargetBucket;
use super::change::{Change, ChangeContext, Changed, Request};
use super::command::Command;
use super::following::Following;
use super::health::Health;
use super::key::TargetKey;
use super::messages::{DoneMsg, Reply, TargetManagerArgs, TargetMsg};
use super::planning::Planner;
use super::under_way::Births;
use crate::keyed_writer::{Bounds, KeyedWriter, Panicked, carry_out};

/// How many changes may be under way or queued, in all and for one name; more are refused with `overloaded`.
const BOUNDS: Bounds = Bounds {
    tasks: 64,
    requests_of_a_key: 64,
    requests: 1024,
};

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
    pub(super) args: Arc<TargetManagerArgs>,
    pub(super) myself: ActorRef<TargetMsg>,
    context: ChangeContext,
    pub(super) writer: KeyedWriter<TargetKey, Job, TargetMsg>,
    pub(super) births: Births,
    pub(super) planner: Planner,
    /// Until the bucket has been read: nothing is written before.
    pub(super) loading: Option<Loading>,
    was_loaded: bool,
    pub(super) following: Following,
    pub(super) health: Health,
    new_names: NewNames,
    pub(super) discards: JoinSet<()>,
}

impl Actor for TargetManager {
    type Msg = TargetMsg;
    type State = State;
    type Arguments = Arc<TargetManagerArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<TargetMsg>,
        args: Arc<TargetManagerArgs>,
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
            async move { from.read_into(&into).await.map(drop) }
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
            following: Following::default(),
            health: Health::default(),
            new_names: NewNames::default(),
            discards: JoinSet::new(),
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
            TargetMsg::Discard { name, reply } => state.discard(name, reply),
            TargetMsg::Health(message) => state.on_health(message),
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
            TargetMsg::Reloaded(read) => state.reloaded(read),
            TargetMsg::Drain(reply) => state.writer.drain(reply),
        }
        state.work_off();
        state.arm_births();
        state.arm_looks();
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
        self.follow_bucket();
        self.plan_all_looks();
        self.listen();
        self.recover();
    }

    fn take(&mut self, request: Arc<Request>, reply: Reply) {
        let key = request.key;
        if let Err(refusal) = self.admit(&request) {
            let _ = reply.send(Err(refusal));
            return;
        }
        if self.is_new(&request) {
            self.new_names.began(&request);
        }
        let reply = Some(reply);
        if let Err(rejected) = self.writer.push(key, Job { request, reply }) {
            let Job { request, reply } = rejected.request;
            self.new_names.ended(&request);
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
        if self.is_new(request) {
            let known = self.args.directory.len();
            let name = (&self.args.project, name.as_str());
            self.new_names.admit(name, request.key, known)?;
        }
        Ok(())
    }

    fn is_new(&self, request: &Request) -> bool {
        may_be_new(&request.command) && self.args.directory.known(request.key).is_none()
    }

    pub(super) const fn bucket(&self) -> &TargetBucket {
        &self.context.bucket
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
        self.new_names.ended(&request);
        if self.args.directory.take_suspicion() {
            self.reload();
        }
        if let Ok(changed) = &outcome {
            self.apply(key, changed, &request.command);
        }
        if let Command::Birth { command, .. } = &request.command {
            self.birth_settled(&request, command, &outcome, reply.is_none());
        }
        if let Ok(changed) = outcome.as_ref()
            && changed.outcome.changed
        {
            self.targets_changed();
            self.health_applied(key, changed);
        }
        if let Some(reply) = reply {
            let _ = reply.send(outcome.map(|changed| changed.outcome));
        }
        self.follow_bucket();
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
}
