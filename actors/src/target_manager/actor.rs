//! The actor: reads the bucket, has changes carried out in the background, applies what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::event::{Event, TargetEvent, TargetEventKind};
use loom_protocol::target::TargetStatus;
use loom_protocol::{ErrorCode, ProjectId, WireError};
use loom_supervision::{Defect, Loading};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio_util::task::AbortOnDropHandle;

use super::MOST_TARGETS;
use super::bucket::TargetBucket;
use super::change::{Change, ChangeContext, Changed, Request};
use super::command::{Command, Outcome};
use super::directory::TargetDirectory;
use super::key::TargetKey;
use crate::clock::Clock;
use crate::events::EventHub;
use crate::keyed_writer::{Bounds, KeyedWriter, Panicked, carry_out};
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::nats::store_guard::StoreGuard;

/// How many changes may be under way or queued, in all and for one name; more are refused with `overloaded`.
const BOUNDS: Bounds = Bounds {
    tasks: 64,
    requests_of_a_key: 64,
    requests: 1024,
};
/// After how long a client that was turned away should ask again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The pause before a reading that has failed is tried again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// What the TargetManager needs to run.
#[derive(Clone)]
pub struct TargetManagerArgs {
    /// The project.
    pub project: ProjectId,
    /// The read side, which survives the actor.
    pub directory: Arc<TargetDirectory>,
    /// The connection.
    pub nats: Nats,
    /// How many copies of the bucket NATS keeps.
    pub replicas: usize,
    /// The clock.
    pub clock: Clock,
    /// Where events go.
    pub events: EventHub,
    /// Which ownership writes: part of every write id.
    pub epoch: u64,
    /// Whether it lasts.
    pub ownership: Ownership,
    /// Whether the store is the right one.
    pub guard: StoreGuard,
}

/// The answer to a command.
pub(super) type Reply = RpcReplyPort<Result<Outcome, WireError>>;

/// What the TargetManager is told.
#[derive(Debug)]
pub enum TargetMsg {
    /// The bucket has been read for the first time, or there is none.
    Loaded(Result<(), Defect>),
    /// Carry this out and answer when it has an outcome.
    CarryOut {
        /// What.
        request: Arc<Request>,
        /// To whom.
        reply: RpcReplyPort<Result<Outcome, WireError>>,
    },
    /// The first request of this name has its outcome.
    Done(DoneMsg),
    /// NATS has connected anew: what is in the bucket may be something else.
    ReloadDue,
    /// The bucket has been read again; false: it could not be.
    Reloaded(bool),
    /// Take nothing new; answer when nothing is under way.
    Drain(RpcReplyPort<()>),
}

/// What a task tells the actor at its end.
#[derive(Debug)]
pub struct DoneMsg {
    key: TargetKey,
    outcome: Box<Result<Changed, WireError>>,
}

/// The actor.
pub struct TargetManager;

struct Job {
    request: Arc<Request>,
    reply: Reply,
}

/// What one incarnation holds.
pub struct State {
    args: TargetManagerArgs,
    myself: ActorRef<TargetMsg>,
    context: ChangeContext,
    writer: KeyedWriter<TargetKey, Job, TargetMsg>,
    /// Until the bucket has been read: nothing is written before.
    loading: Option<Loading>,
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
            },
            args,
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
            TargetMsg::CarryOut { request, reply } => state.take(Job { request, reply }),
            TargetMsg::Done(DoneMsg { key, outcome }) => state.settle(key, *outcome),
            TargetMsg::ReloadDue => state.reload(),
            TargetMsg::Reloaded(is_read) => state.reloaded(is_read),
            TargetMsg::Drain(reply) => state.writer.drain(reply),
        }
        state.work_off();
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
    }

    fn take(&mut self, job: Job) {
        if let Err(refusal) = self.admit(&job.request) {
            let _ = job.reply.send(Err(refusal));
        } else if let Err(rejected) = self.writer.push(job.request.key, job) {
            let Job { request, reply } = rejected.request;
            let text = format!("target {} is not changed: {}", request.name, rejected.why);
            let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
        }
    }

    fn admit(&self, request: &Request) -> Result<(), WireError> {
        let name = &request.name;
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
        let Some(Job { reply, .. }) = self.writer.finish(&key) else {
            return;
        };
        let outcome = outcome.map(|changed| {
            self.apply(key, &changed);
            changed.outcome
        });
        let _ = reply.send(outcome);
        self.watch_reconnects();
    }

    fn apply(&self, key: TargetKey, changed: &Changed) {
        if !changed.outcome.changed {
            return;
        }
        let directory = &self.args.directory;
        match &changed.now {
            Some((record, revision)) => directory.apply(key, record, *revision),
            None => directory.forget(key),
        }
        self.tell(&changed.outcome);
    }

    fn tell(&self, outcome: &Outcome) {
        let (target, is) = (&outcome.target, outcome.target.status);
        let kind = match outcome.before {
            _ if outcome.removed => TargetEventKind::Removed,
            None => TargetEventKind::Registered,
            Some(was) if is == TargetStatus::Disabled && was != is => TargetEventKind::Disabled,
            Some(_) => TargetEventKind::Updated,
        };
        self.args.events.emit(Event::Target(Box::new(TargetEvent {
            kind,
            timestamp: self.args.clock.now(),
            project_id: self.args.project.to_string(),
            target_id: target.id,
            target_name: target.name.clone(),
            previous_status: outcome.before,
            new_status: (!outcome.removed).then_some(is),
        })));
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
        } else {
            self.myself.send_after(READ_AGAIN, || TargetMsg::ReloadDue);
        }
    }
}
