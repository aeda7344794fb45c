//! The actor: reads the bucket, queues per item, writes in the background, applies what was acknowledged.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use loom_protocol::WorkId;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use slab::Slab;
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;

use loom_supervision::{Defect, Loading};

use super::acknowledged::Acknowledged;
use super::handle::{LedgerError, Outcome};
use super::inspection::Looks;
use super::looking::{LookEnd, follow};
use super::meters::Meters;
use super::operation::{Context, Operation};
use super::read_model::ReadModel;
use super::replay::replay;
use super::retention::{self, SWEEP_EVERY};
use super::told;
use crate::clock::Clock;
use crate::domain::work::WriteId;
use crate::events::EventHub;
use crate::liveness::StallGuard;
use crate::nats::connection::Nats;
use crate::nats::listing::{FollowedStream, StreamChange};
use crate::nats::owner::Ownership;
use crate::nats::store_guard::StoreDenied;
use crate::settings::WorkSettings;

/// How many operations may be under way or queued; more are refused with `overloaded`.
const MAX_OPERATIONS: usize = 16 * 1024;
/// How many operations may queue for one item.
const MAX_PER_ITEM: usize = 64;

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
    /// Timer: look over finished records.
    SweepDue,
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
    pub(super) args: WorkLedgerArgs,
    context: Arc<Context>,
    pub(super) myself: ActorRef<LedgerMsg>,
    pub(super) tasks: JoinSet<()>,
    queues: HashMap<WorkId, VecDeque<Job>>,
    batches: Slab<Batch>,
    /// Until the bucket has been read: nothing is written before.
    loading: Option<Loading>,
    pub(super) operations: usize,
    acknowledged: Acknowledged,
    replaying: bool,
    pub(super) looks: Looks,
    /// The bucket in the list of all streams.
    pub(super) lookout: Arc<FollowedStream>,
    pub(super) looking: bool,
    pub(super) draining: bool,
    waiting_for_drain: Vec<RpcReplyPort<()>>,
}

struct Job {
    operation: Operation,
    batch: usize,
    place: usize,
}

struct Batch {
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    reply: RpcReplyPort<Vec<Outcome>>,
}

impl Actor for WorkLedger {
    type Msg = LedgerMsg;
    type State = State;
    type Arguments = WorkLedgerArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<LedgerMsg>,
        args: WorkLedgerArgs,
    ) -> Result<State, ActorProcessingErr> {
        let lookout = follow(&args.nats, &args.read, myself.clone());
        let read = args.read.clone();
        let bucket = read.clone();
        let load = move || {
            let bucket = bucket.clone();
            async move { replay(&bucket, bucket.replayed_to() + 1).await }
        };
        Ok(State {
            loading: Some(Loading::begin(&myself, load, LedgerMsg::Loaded)),
            acknowledged: Acknowledged::up_from(read.replayed_to()),
            context: Arc::new(Context {
                read,
                nats: args.nats.clone(),
                clock: args.clock.clone(),
                retention: args.settings.retention,
                ownership: args.ownership.clone(),
                grace: args.grace.clone(),
                meters: Meters::of(args.read.project()),
            }),
            args,
            myself,
            tasks: JoinSet::new(),
            queues: HashMap::new(),
            batches: Slab::new(),
            operations: 0,
            replaying: false,
            looks: Looks::new(),
            lookout: Arc::new(lookout),
            looking: false,
            draining: false,
            waiting_for_drain: Vec::new(),
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
            LedgerMsg::SweepDue => state.sweep(),
            LedgerMsg::SweepDone => state.arm_sweep(),
            LedgerMsg::ReplayDue => state.replay(),
            LedgerMsg::ReplayDone(last) => state.replayed(last),
            LedgerMsg::LookDue(change) => state.look_due(change),
            LedgerMsg::LookDone(ended) => state.looked(ended),
            LedgerMsg::Drain(reply) => {
                state.draining = true;
                state.waiting_for_drain.push(reply);
                state.answer_drain();
            }
        }
        Ok(())
    }
}

async fn watch_reconnects(nats: Nats, ledger: ActorRef<LedgerMsg>) {
    let mut reconnects = nats.reconnects.clone();
    reconnects.mark_unchanged();
    while reconnects.changed().await.is_ok() && ledger.cast(LedgerMsg::ReplayDue).is_ok() {}
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
        let nats = self.args.nats.clone();
        self.tasks.spawn(watch_reconnects(nats, myself));
        self.arm_sweep();
        read.set_loaded();
        loading.finish();
    }

    fn take(&mut self, operations: &[Operation], reply: RpcReplyPort<Vec<Outcome>>) {
        if operations.is_empty() {
            let _ = reply.send(Vec::new());
            return;
        }
        let batch = self.batches.insert(Batch {
            outcomes: vec![None; operations.len()],
            left: operations.len(),
            reply,
        });
        for (place, operation) in operations.iter().enumerate() {
            let job = Job {
                operation: operation.clone(),
                batch,
                place,
            };
            if let Err(refusal) = self.admit(operation.id()) {
                self.answer(&job, Err(refusal));
            } else {
                self.enqueue(job);
            }
        }
    }

    fn admit(&self, id: WorkId) -> Result<(), LedgerError> {
        if self.draining {
            return Err(LedgerError::Unavailable(id, "it is shutting down".into()));
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
        let queued = self.queues.get(&id).map_or(0, VecDeque::len);
        if self.operations >= MAX_OPERATIONS || queued >= MAX_PER_ITEM {
            return Err(LedgerError::Overloaded);
        }
        Ok(())
    }

    fn enqueue(&mut self, job: Job) {
        let id = job.operation.id();
        self.operations += 1;
        self.context.meters.operations(self.operations);
        let queue = self.queues.entry(id).or_default();
        queue.push_back(job);
        if queue.len() == 1 {
            self.begin(id);
        }
    }

    fn begin(&mut self, id: WorkId) {
        let Some(job) = self.queues.get(&id).and_then(VecDeque::front) else {
            return;
        };
        let write_id = WriteId {
            epoch: self.args.epoch,
            counter: self.args.read.next_write(),
        };
        let (context, ledger) = (self.context.clone(), self.myself.clone());
        let operation = job.operation.clone();
        let mut work = Box::pin(async move {
            let outcome = AssertUnwindSafe(context.carry_out(&operation, write_id))
                .catch_unwind()
                .await
                .unwrap_or(Err(LedgerError::Lost(id)));
            let outcome = Box::new(outcome);
            let _ = ledger.cast(LedgerMsg::Done { id, outcome });
        });
        // The first step sends the write. It is taken here, so that items are created in the order in which they came.
        if unconstrained(work.as_mut()).now_or_never().is_none() {
            self.tasks.spawn(work);
        }
    }

    fn settle(&mut self, id: WorkId, outcome: Outcome) {
        while self.tasks.try_join_next().is_some() {}
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let job = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&id);
        }
        if let Some(job) = job {
            self.operations -= 1;
            self.context.meters.operations(self.operations);
            if let Ok(applied) = &outcome {
                self.apply(applied, &job.operation);
            }
            let outcome = outcome.and_then(|applied| match &applied.overruled {
                Some(why) => Err(LedgerError::TooLarge(id, why.clone())),
                None => Ok(applied),
            });
            self.answer(&job, outcome);
        }
        self.begin(id);
        self.answer_drain();
    }

    fn apply(&mut self, applied: &super::Applied, operation: &Operation) {
        let read = self.args.read.clone();
        read.apply(&applied.record, applied.revision);
        if let Some(live) = &applied.said {
            read.note_progress(applied.record.id, live.clone());
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
        for event in told::events(read.project(), applied, command) {
            self.args.events.emit(event);
        }
    }

    fn answer(&mut self, job: &Job, outcome: Outcome) {
        let Some(batch) = self.batches.get_mut(job.batch) else {
            return;
        };
        batch.outcomes[job.place] = Some(outcome);
        batch.left -= 1;
        if batch.left == 0 {
            let batch = self.batches.remove(job.batch);
            let _ = batch
                .reply
                .send(batch.outcomes.into_iter().flatten().collect());
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

    fn arm_sweep(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.myself.send_after(SWEEP_EVERY, || LedgerMsg::SweepDue);
    }

    pub(super) fn replay(&mut self) {
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

    fn answer_drain(&mut self) {
        if self.operations == 0 {
            for reply in self.waiting_for_drain.drain(..) {
                let _ = reply.send(());
            }
        }
    }
}
