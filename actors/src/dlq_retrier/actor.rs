//! The actor: what is to be done next, and the tasks that do it.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use loom_protocol::work::WorkStatus;
use loom_protocol::{WireError, WorkId};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::index::LetterIndex;
use super::letters::DeadLetters;
use super::orders::{Retried, RetryBatch};
use super::publish_batch::{BATCH, BatchReport, Context};
use crate::clock::Clock;
use crate::nats::connection::Nats;
use crate::nats::error::StoreError;
use crate::work_ledger::{ReadModel, WorkLedgerHandle};

/// How long a request waits for the first reading of the stream.
const READY_WITHIN: Duration = Duration::from_millis(2_500);
/// How often letters are looked at that are due, expired or outdated.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// The same while there are none, and how often it is looked whether the stream is there, where no list of all streams says
/// so.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What the DlqRetrier needs to run.
#[derive(Clone)]
pub struct DlqRetrierArgs {
    /// The read side of the dead letters, which survives the actor.
    pub letters: Arc<DeadLetters>,
    /// The read side of the ledger.
    pub read: Arc<ReadModel>,
    /// The ledger, which changes items.
    pub ledger: WorkLedgerHandle,
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: Clock,
}

/// What the DlqRetrier is told.
#[derive(Debug)]
pub enum DlqMsg {
    /// There are failed items whose letters are to be written.
    PendingDeadLetters,
    /// An item lives although its letter is at this place.
    Orphaned(u64),
    /// The stream was read, and held these letters of items that are not failed; `None`: it could not be read.
    Read(Option<BTreeSet<u64>>),
    /// A batch of letters has ended; `None`: by a defect.
    BatchPublished(Option<BatchReport>),
    /// Put letters back; answered for each.
    Retry {
        /// Which, and how.
        order: Arc<RetryBatch>,
        /// To whom.
        reply: RpcReplyPort<Result<Retried, WireError>>,
    },
    /// Delete a letter for good.
    Discard {
        /// Which.
        id: WorkId,
        /// To whom.
        reply: RpcReplyPort<Result<(), WireError>>,
    },
    /// A request was answered.
    Answered,
    /// The schedule has had its turn.
    ScheduleDone(Option<Retried>),
    /// Orphaned letters were deleted; those that could not be.
    Swept(Option<BTreeSet<u64>>),
    /// Timer. Ignored when `epoch` is stale.
    TickDue {
        /// Of the timer that was armed last.
        epoch: u64,
    },
    /// The stream is not as it was, as a list of all streams has told.
    LookDue,
    /// It was looked whether the stream is there, or that was not told.
    Looked,
    /// The connection was lost and is back.
    Reconnected,
    /// Take nothing new; answer when nothing is under way.
    Drain(RpcReplyPort<()>),
}

/// The actor.
pub struct DlqRetrier;

/// What one incarnation holds.
pub struct State {
    pub(super) args: Arc<DlqRetrierArgs>,
    pub(super) context: Context,
    pub(super) me: ActorRef<DlqMsg>,
    tasks: JoinSet<()>,
    /// Reading the stream keeps everything else out.
    pub(super) gate: Arc<RwLock<()>>,
    /// The first record that wants a letter since `PendingDeadLetters` was last heard; `MAX`: none.
    wanted_from: Arc<AtomicU64>,
    pub(super) is_read: bool,
    reading: bool,
    pub(super) writing: bool,
    pub(super) scheduled: bool,
    pub(super) sweeping: bool,
    requests: usize,
    /// Letters are written of records whose last write is later.
    pub(super) after: u64,
    /// Letters could not be written of this record and perhaps later ones.
    pub(super) again_from: Option<u64>,
    in_doubt: bool,
    /// Of the timer that was armed last, and whether that is the slow one.
    pub(super) tick: u64,
    pub(super) ticks_slowly: bool,
    pub(super) next_look: Instant,
    pub(super) orphaned: BTreeSet<u64>,
    waiting_for_drain: Vec<RpcReplyPort<()>>,
}

impl Actor for DlqRetrier {
    type Msg = DlqMsg;
    type State = State;
    type Arguments = Arc<DlqRetrierArgs>;

    async fn pre_start(
        &self,
        me: ActorRef<DlqMsg>,
        args: Arc<DlqRetrierArgs>,
    ) -> Result<State, ActorProcessingErr> {
        let wanted_from = Arc::new(AtomicU64::new(u64::MAX));
        listen(&args, &me, wanted_from.clone());
        let told = me.clone();
        args.letters.store.follow(move || {
            let _ = told.cast(DlqMsg::LookDue);
        });
        let mut state = State {
            context: Context {
                letters: args.letters.clone(),
                read: args.read.clone(),
                ledger: args.ledger.clone(),
                clock: args.clock.clone(),
            },
            tasks: JoinSet::new(),
            gate: Arc::default(),
            wanted_from,
            is_read: false,
            reading: false,
            writing: false,
            scheduled: false,
            sweeping: false,
            requests: 0,
            after: 0,
            again_from: None,
            in_doubt: false,
            tick: 0,
            ticks_slowly: false,
            next_look: Instant::now() + LOOK_EVERY,
            orphaned: BTreeSet::new(),
            waiting_for_drain: Vec::new(),
            args,
            me,
        };
        let (nats, told) = (state.args.nats.clone(), state.me.clone());
        state.tasks.spawn(watch_reconnects(nats, told));
        state.read();
        state.arm_tick(TICK);
        Ok(state)
    }

    async fn handle(
        &self,
        _me: ActorRef<DlqMsg>,
        message: DlqMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DlqMsg::PendingDeadLetters => state.pending_dead_letters(),
            DlqMsg::Orphaned(sequence) => drop(state.orphaned.insert(sequence)),
            DlqMsg::Read(orphaned) => state.was_read(orphaned),
            DlqMsg::BatchPublished(report) => state.handed_over(report),
            DlqMsg::Retry { order, reply } => state.retry(order, reply),
            DlqMsg::Discard { id, reply } => state.discard(id, reply),
            DlqMsg::Answered => state.requests -= 1,
            DlqMsg::ScheduleDone(retried) => state.schedule_done(retried),
            DlqMsg::Swept(left) => state.swept(left),
            DlqMsg::TickDue { epoch } => state.tick(epoch),
            DlqMsg::LookDue => state.look(),
            DlqMsg::Looked => {}
            DlqMsg::Reconnected => state.is_read = false,
            DlqMsg::Drain(reply) => state.waiting_for_drain.push(reply),
        }
        state.go_on();
        Ok(())
    }
}

/// Called by the read model while its index is locked: looks up, and sends at most one message.
/// Writes are not told in the order of their revisions, so it keeps the first.
fn listen(args: &DlqRetrierArgs, me: &ActorRef<DlqMsg>, wanted_from: Arc<AtomicU64>) {
    let (letters, me) = (args.letters.clone(), me.clone());
    args.read.changes().hook("dlq-retrier", move |change| {
        let header = &change.header;
        if header.wants_letter {
            let before = wanted_from.fetch_min(header.revision, Ordering::AcqRel);
            if before == u64::MAX {
                let _ = me.cast(DlqMsg::PendingDeadLetters);
            }
        } else if header.status != WorkStatus::Failed
            && let Some(sequence) = letters.place_of(header.id)
        {
            let _ = me.cast(DlqMsg::Orphaned(sequence));
        }
    });
}

async fn watch_reconnects(nats: Nats, me: ActorRef<DlqMsg>) {
    let mut reconnects = nats.reconnects.clone();
    while reconnects.changed().await.is_ok() {
        let _ = me.cast(DlqMsg::Reconnected);
    }
}

impl State {
    /// Runs a task whose end is told by a message, however it ends.
    pub(super) fn run<T: Send + 'static>(
        &mut self,
        task: impl Future<Output = T> + Send + 'static,
        ended: impl FnOnce(Option<T>) -> DlqMsg + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        let me = self.me.clone();
        self.tasks.spawn(async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await.ok();
            let _ = me.cast(ended(outcome));
        });
    }

    pub(super) fn draining(&self) -> bool {
        !self.waiting_for_drain.is_empty()
    }

    /// Begins what can begin now.
    fn go_on(&mut self) {
        if self.draining() {
            let idle = !self.writing && !self.scheduled && !self.sweeping && self.requests == 0;
            if idle {
                for reply in self.waiting_for_drain.drain(..) {
                    let _ = reply.send(());
                }
            }
            return;
        }
        if self.is_read {
            self.write_letters();
        }
        if self.ticks_slowly && !self.is_at_rest() {
            self.arm_tick(TICK);
        }
    }

    /// Reads the heads of all letters, once nothing else is under way.
    pub(super) fn read(&mut self) {
        if std::mem::replace(&mut self.reading, true) {
            return;
        }
        let (context, gate) = (self.context.clone(), self.gate.clone());
        let read = async move {
            let _alone = gate.write().await;
            read_stream(&context).await
        };
        self.run(read, |read| match read {
            Some(Ok(orphaned)) => DlqMsg::Read(Some(orphaned)),
            Some(Err(error)) => {
                tracing::warn!("the dead letters cannot be read yet: {error}");
                DlqMsg::Read(None)
            }
            None => DlqMsg::Read(None),
        });
    }

    /// The index is what the stream holds: every failed item is looked at again.
    fn was_read(&mut self, orphaned: Option<BTreeSet<u64>>) {
        self.reading = false;
        let Some(orphaned) = orphaned else {
            return;
        };
        self.orphaned = orphaned;
        self.is_read = true;
        self.in_doubt = false;
        self.after = 0;
        self.again_from = None;
    }

    fn pending_dead_letters(&mut self) {
        let from = self.wanted_from.swap(u64::MAX, Ordering::AcqRel);
        self.after = self.after.min(from.saturating_sub(1));
    }

    /// Writes the next batch of letters, if none is under way.
    fn write_letters(&mut self) {
        if self.writing || self.again_from.is_some() || !self.args.nats.is_up() {
            return;
        }
        let headers = self.args.read.without_letter(self.after, BATCH);
        let Some(last) = headers.last() else {
            return;
        };
        self.after = last.revision;
        self.writing = true;
        let (context, gate) = (self.context.clone(), self.gate.clone());
        let batch = async move {
            let _while_nobody_reads = gate.read().await;
            context.publish_batch(headers).await
        };
        self.run(batch, DlqMsg::BatchPublished);
    }

    fn handed_over(&mut self, report: Option<BatchReport>) {
        self.writing = false;
        let report = report.unwrap_or_else(|| {
            tracing::error!("a batch of dead letters was lost by a defect; please report this");
            BatchReport::all_again()
        });
        self.in_doubt |= report.in_doubt;
        self.again_from = report.again_from;
        self.orphaned.extend(report.orphaned);
        // What is read decides whether there is a stream, before anything is tried again.
        if self.in_doubt {
            self.is_read = false;
        }
    }

    fn retry(&mut self, order: Arc<RetryBatch>, reply: RpcReplyPort<Result<Retried, WireError>>) {
        let context = self.context.clone();
        self.answer(reply, async move { Ok(context.retry_all(&order).await) });
    }

    fn discard(&mut self, id: WorkId, reply: RpcReplyPort<Result<(), WireError>>) {
        let context = self.context.clone();
        self.answer(reply, async move { context.discard(id).await });
    }

    fn answer<T: Send + 'static>(
        &mut self,
        reply: RpcReplyPort<Result<T, WireError>>,
        work: impl Future<Output = Result<T, WireError>> + Send + 'static,
    ) {
        self.requests += 1;
        let (letters, gate) = (self.args.letters.clone(), self.gate.clone());
        let task = async move {
            let outcome = match letters.ready(READY_WITHIN).await {
                Ok(()) => {
                    let _while_nobody_reads = gate.read().await;
                    work.await
                }
                Err(error) => Err(error.into()),
            };
            let _ = reply.send(outcome);
        };
        self.run(task, |_| DlqMsg::Answered);
    }
}

/// Makes the index what the stream holds. Gives the letters of items that are not failed.
async fn read_stream(context: &Context) -> Result<BTreeSet<u64>, StoreError> {
    let letters = &context.letters;
    let mut index = LetterIndex::new(&letters.settings);
    let mut unreadable = 0;
    let was_removed = letters
        .store
        .heads(|stored| match DeadLetters::info_of(&stored) {
            Some(letter) => index.insert(letter),
            None => unreadable += 1,
        })
        .await?;
    if unreadable > 0 {
        tracing::warn!(project = %context.read.project(), unreadable, "messages among the dead letters are no letters and are left alone");
    }
    let is_outdated = |id| {
        let header = context.read.header(id);
        header.is_some_and(|header| header.status != WorkStatus::Failed)
    };
    let orphaned = index
        .all()
        .filter(|letter| is_outdated(letter.id))
        .map(|letter| letter.sequence)
        .collect();
    *letters.index.write() = index;
    letters.unreadable.store(unreadable, Ordering::Relaxed);
    letters.known.send_replace(true);
    if was_removed {
        letters.store.make_again().await?;
    }
    Ok(orphaned)
}
