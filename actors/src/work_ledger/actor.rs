//! The actor: reads the bucket, has operations carried out in the background, applies what was acknowledged.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use loom_protocol::WorkId;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinSet;

use loom_supervision::{Defect, Loading};

use super::acknowledged::Acknowledged;
use super::batches::{Batches, Job};
use super::carrying_out::CarryingOut;
use super::events;
use super::inspection::Inspector;
use super::ledger_error::{LedgerError, Outcome};
use super::looking::{LookEnd, Looking, follow, listen, look};
use super::meters::Meters;
use super::operation::Operation;
use super::read_model::ReadModel;
use super::replay::replay;
use super::retention::{self, SWEEP_EVERY, SWEEP_RARELY, SweepTimer};
use super::write_context::WriteContext;
use crate::clock::Clock;
use crate::domain::work::WriteId;
use crate::events::EventHub;
use crate::keyed_writer::{Bounds, KeyedWriter, Panicked, Rejection, carry_out};
use crate::liveness::StallGuard;
use crate::nats::connection::Nats;
use crate::nats::error::StoreDenied;
use crate::nats::listing::{FollowedStream, StreamChange};
use crate::nats::owner::Ownership;
use crate::settings::WorkSettings;

/// How many operations may be under way or queued, in all and for one item; more are refused with `overloaded`.
const BOUNDS: Bounds = Bounds {
    tasks: 16 * 1024,
    requests_of_a_key: 64,
    requests: 16 * 1024,
};

/// What the ledger needs to run.
#[derive(Clone)]
pub struct WorkLedgerArgs {
    /// The read side, which survives the actor.
    pub read: Arc<ReadModel>,
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: Clock,
    /// Retention and the like.
    pub settings: WorkSettings,
    /// Where events go.
    pub events: EventHub,
    /// Which ownership writes: part of every write id.
    pub epoch: u64,
    /// Whether it lasts.
    pub ownership: Ownership,
    /// Begins anew when a write is not answered.
    pub grace: StallGuard,
}

/// What the ledger is told.
#[derive(Debug)]
pub enum LedgerMsg {
    /// The bucket has been read for the first time; everything up to this sequence is known.
    Loaded(Result<u64, Defect>),
    /// Carry these out and answer when all have an outcome.
    CarryOut {
        /// What.
        operations: Arc<[Operation]>,
        /// To whom.
        reply: RpcReplyPort<Vec<Outcome>>,
    },
    /// An operation has its outcome.
    Done {
        /// Of which item.
        id: WorkId,
        /// Which.
        outcome: Box<Outcome>,
    },
    /// Timer: look over finished records. Ignored where it is not the last one that was set.
    SweepDue(u64),
    /// A record was not there that should be.
    Suspected,
    /// The sweep begun at `SweepDue` has ended.
    SweepDone,
    /// Something may have been stored that is not known here: read what is new in the bucket.
    ReplayDue,
    /// The stream was changed by somebody, or something is missing: look at the bucket at once.
    LookDue(StreamChange),
    /// A look at the bucket has ended; `None`: the server did not answer.
    LookDone(Option<Box<LookEnd>>),
    /// The replay has ended; everything up to here is known.
    ReplayDone(Option<u64>),
    /// Take nothing new; answer when nothing is under way.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct WorkLedger;

/// What one incarnation holds.
pub struct State {
    args: Arc<WorkLedgerArgs>,
    context: Arc<WriteContext>,
    myself: ActorRef<LedgerMsg>,
    tasks: JoinSet<()>,
    writer: KeyedWriter<WorkId, Job, LedgerMsg>,
    batches: Batches,
    /// Until the bucket has been read: nothing is written before.
    loading: Option<Loading>,
    acknowledged: Acknowledged,
    /// When finished records are looked over.
    sweep_timer: SweepTimer,
    replaying: bool,
    looking: Looking,
    /// The bucket in the list of all streams.
    lookout: Arc<FollowedStream>,
}

impl Actor for WorkLedger {
    type Msg = LedgerMsg;
    type State = State;
    type Arguments = Arc<WorkLedgerArgs>;

    async fn pre_start(
        &self,
        myself: ActorRef<LedgerMsg>,
        args: Arc<WorkLedgerArgs>,
    ) -> Result<State, ActorProcessingErr> {
        let told = myself.clone();
        let lookout = follow(&args.nats, &args.read, move |change| {
            let _ = told.cast(LedgerMsg::LookDue(change));
        });
        let read = args.read.clone();
        let bucket = read.clone();
        let load = move || {
            let bucket = bucket.clone();
            async move { replay(&bucket, bucket.replayed_to() + 1).await }
        };
        Ok(State {
            loading: Some(Loading::begin(&myself, load, LedgerMsg::Loaded)),
            acknowledged: Acknowledged::up_from(read.replayed_to()),
            context: Arc::new(WriteContext {
                read,
                nats: args.nats.clone(),
                clock: args.clock.clone(),
                retention: args.settings.retention,
                ownership: args.ownership.clone(),
                grace: args.grace.clone(),
                meters: Meters::of(args.read.project()),
            }),
            args,
            writer: KeyedWriter::new(myself.clone(), BOUNDS),
            myself,
            tasks: JoinSet::new(),
            batches: Batches::default(),
            sweep_timer: SweepTimer::default(),
            replaying: false,
            looking: Looking::new(),
            lookout: Arc::new(lookout),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<LedgerMsg>,
        message: LedgerMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LedgerMsg::Loaded(last) => state.loaded(last?),
            LedgerMsg::CarryOut { operations, reply } => state.take(&operations, reply),
            LedgerMsg::Done { id, outcome } => state.settle(id, *outcome),
            LedgerMsg::SweepDue(number) if state.sweep_timer.is_over(number) => state.sweep(),
            LedgerMsg::SweepDue(_) => {}
            LedgerMsg::Suspected => state.look(),
            LedgerMsg::SweepDone => state.arm_sweep(),
            LedgerMsg::ReplayDue => state.replay(),
            LedgerMsg::ReplayDone(last) => state.replayed(last),
            LedgerMsg::LookDue(change) => {
                state.looking.told(change);
                state.look();
            }
            LedgerMsg::LookDone(ended) => {
                if state.looking.end(ended) {
                    state.replay();
                }
                if state.looking.is_due() {
                    state.sweep_soon();
                }
            }
            LedgerMsg::Drain(reply) => {
                state.writer.drain(reply);
                state.work_off();
            }
        }
        Ok(())
    }
}

impl State {
    /// Loading → ready.
    fn loaded(&mut self, last: u64) {
        let Some(loading) = self.loading.take() else {
            return;
        };
        self.replayed(Some(last));
        if self.args.read.has_writes_begun() {
            // What its last incarnation wrote and did not live to tell.
            self.args.events.gap(Some(self.args.read.project()));
        }
        let (read, myself) = (self.args.read.clone(), self.myself.clone());
        let reconnects = self.args.nats.reconnects.clone();
        let told = move |message: fn() -> LedgerMsg| {
            let ledger = myself.clone();
            move || ledger.cast(message()).is_ok()
        };
        self.tasks.spawn(listen(
            reconnects,
            read.clone(),
            told(|| LedgerMsg::ReplayDue),
            told(|| LedgerMsg::Suspected),
        ));
        self.arm_sweep();
        read.set_loaded();
        loading.finish();
    }

    fn take(&mut self, operations: &[Operation], reply: RpcReplyPort<Vec<Outcome>>) {
        self.sweep_soon();
        for job in self.batches.begin(operations, reply) {
            let id = job.operation.id();
            if let Err(refusal) = self.admit(id) {
                self.batches.settle(&job, Err(refusal));
            } else if let Err(rejected) = self.writer.push(id, job) {
                let job = rejected.request;
                self.batches.settle(&job, Err(LedgerError::Overloaded));
            }
        }
        self.work_off();
    }

    fn admit(&self, id: WorkId) -> Result<(), LedgerError> {
        if self.writer.is_draining() {
            let why = Rejection::Draining.to_string();
            return Err(LedgerError::Unavailable(id, why));
        }
        if self.loading.is_some() {
            let why = "its bucket is still being read";
            return Err(LedgerError::Unavailable(id, why.into()));
        }
        if !self.args.nats.is_up() {
            return Err(LedgerError::Unavailable(
                id,
                format!("NATS at {} is away", self.args.nats.shown_url),
            ));
        }
        if let Err(denied @ StoreDenied::Foreign(_)) = self.args.read.store().guard().may_write() {
            return Err(LedgerError::Unavailable(id, denied.to_string()));
        }
        Ok(())
    }

    /// Begins what can be begun.
    fn work_off(&mut self) {
        self.context.meters.operations(self.writer.requests());
        while let Some(id) = self.writer.next_turn() {
            self.begin(id);
        }
    }

    /// The first step sends the write, so that items are created in the order in which they came.
    fn begin(&mut self, id: WorkId) {
        let Some(job) = self.writer.first(&id) else {
            return;
        };
        let write_id = WriteId {
            epoch: self.args.epoch,
            counter: self.args.read.next_write(),
        };
        let operation = job.operation.clone();
        let work = carry_out(CarryingOut::new(self.context.clone(), operation, write_id));
        let message = move |outcome: Result<Outcome, Panicked>| {
            let outcome = outcome.unwrap_or(Err(LedgerError::Lost(id)));
            let outcome = Box::new(outcome);
            LedgerMsg::Done { id, outcome }
        };
        self.writer.begin(id, (), work, message);
    }

    fn settle(&mut self, id: WorkId, outcome: Outcome) {
        if let Some(job) = self.writer.finish(&id) {
            if let Ok(applied) = &outcome {
                self.apply(applied, &job.operation);
            }
            let outcome = outcome.and_then(|applied| match &applied.overruled {
                Some(why) => Err(LedgerError::TooLarge(id, why.clone())),
                None => Ok(applied),
            });
            self.batches.settle(&job, outcome);
        }
        self.work_off();
    }

    fn apply(&mut self, applied: &super::Applied, operation: &Operation) {
        let read = self.args.read.clone();
        read.apply(&applied.record, applied.revision);
        if let Some(live) = &applied.progress {
            read.live().note(applied.record.id, live.clone());
        }
        if applied.changed {
            self.context.meters.transition(applied);
            if let Some(waited) = applied.first_wait() {
                read.note_wait(waited);
            }
            self.acknowledged.note(applied.revision);
            read.set_replayed_to(self.acknowledged.up_to());
            if self.acknowledged.has_too_many_above() {
                self.replay();
            }
        }
        let command = match operation {
            Operation::Apply(_, command) => Some(&**command),
            Operation::Create(_) => None,
        };
        for event in events::of(read.project(), applied, command) {
            self.args.events.emit(event);
        }
    }

    fn sweep(&mut self) {
        if self.acknowledged.has_a_lasting_gap() {
            self.replay();
        }
        self.look();
        let ledger = self.myself.clone();
        let (keep, retention) = (
            self.args.settings.max_finished,
            self.args.settings.retention,
        );
        let now = self.args.clock.now();
        if !retention::is_due(&self.args.read, keep, retention, now) {
            return self.arm_sweep();
        }
        let sweep = retention::sweep(self.args.read.clone(), keep, retention, now);
        self.tasks.spawn(async move {
            let gone = AssertUnwindSafe(sweep).catch_unwind().await;
            tracing::trace!(?gone, "finished items were looked over");
            let _ = ledger.cast(LedgerMsg::SweepDone);
        });
    }

    /// Looks at the bucket where that is due.
    fn look(&mut self) {
        if self.args.read.take_suspicion() {
            self.looking.force();
        }
        if self.writer.is_draining() || !self.args.nats.is_up() {
            return;
        }
        let Some(looks) = self.looking.begin() else {
            return;
        };
        let inspector = Inspector {
            read: self.args.read.clone(),
            ownership: self.args.ownership.clone(),
            keep: self.args.settings.max_finished,
            expired: self.args.clock.now().before(self.args.settings.retention),
            is_idle: self.writer.requests() == 0,
            lookout: self.lookout.clone(),
        };
        let ledger = self.myself.clone();
        self.tasks.spawn(async move {
            let _ = ledger.cast(LedgerMsg::LookDone(look(inspector, looks).await));
        });
    }

    fn arm_sweep(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        let (read, settings) = (&self.args.read, &self.args.settings);
        let (keep, retention) = (settings.max_finished, settings.retention);
        let is_at_rest = self.writer.requests() == 0
            && self.args.nats.is_up()
            && self.acknowledged.has_no_gap()
            && !retention::is_due(
                read,
                keep,
                retention,
                self.args.clock.now().after(SWEEP_RARELY),
            );
        self.set_sweep_timer(if is_at_rest {
            SWEEP_RARELY
        } else {
            SWEEP_EVERY
        });
    }

    /// The ledger is not at rest any more.
    fn sweep_soon(&mut self) {
        if self.sweep_timer.is_rare() {
            self.set_sweep_timer(SWEEP_EVERY);
        }
    }

    fn set_sweep_timer(&mut self, pause: Duration) {
        let number = self.sweep_timer.set(pause);
        self.myself
            .send_after(pause, move || LedgerMsg::SweepDue(number));
    }

    fn replay(&mut self) {
        if std::mem::replace(&mut self.replaying, true) {
            return;
        }
        let (read, ledger) = (self.args.read.clone(), self.myself.clone());
        self.tasks.spawn(async move {
            let last = replay(&read, read.replayed_to() + 1).await;
            if let Err(error) = &last {
                tracing::warn!("the ledger could not be read again yet: {error}");
            }
            let _ = ledger.cast(LedgerMsg::ReplayDone(last.ok()));
        });
    }

    fn replayed(&mut self, last: Option<u64>) {
        self.replaying = false;
        match last {
            Some(last) => {
                self.acknowledged.everything_up_to(last);
                self.args.read.set_replayed_to(self.acknowledged.up_to());
            }
            None => {
                self.myself.send_after(SWEEP_EVERY, || LedgerMsg::ReplayDue);
            }
        }
    }
}
