//! Whether the store behind a stream is the one that this process works with. Asked before every write.
//!
//! A server may come back with an empty store, or an older copy, under the same URL. What it holds then is
//! not what this process knows, and nothing may be decided on it, written into it or made in it before a
//! person has said so. So whoever writes asks the guard of its project first, and whoever has written asks
//! again before it believes the answer.
//!
//! # States
//! | state | means | left by |
//! |---|---|---|
//! | not opened | nothing is known, so nothing can differ | the ledger is opened: trusted |
//! | trusted | it was looked at over the present connection, and is the one | a reconnect, a suspicion: in doubt · forgotten: not opened |
//! | in doubt | to be looked at; nobody writes meanwhile | a look: trusted · a difference that lasts (0.75 s, in a cluster 12 s): foreign |
//! | foreign | it is another one, or lacks what was acknowledged; nobody writes, the project is put to sleep | the right one is back: trusted · accepted by a person: not opened |
//!
//! A reconnect is known by the number of connections that the client counts before it sends anything over the
//! new one: there is no moment in which the former answer holds for the new server.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | the server restarts with its store | in doubt for one look (milliseconds) |
//! | no leader, no answer, an error | in doubt for as long as that lasts, never foreign |
//! | records expire, or are removed by us | the last sequence stays: trusted |
//! | records of unfinished items are purged or deleted by somebody | the ledger finds that they are gone: foreign |
//! | a write finds no stream, or gets no answer, or a sequence that was given out before | a suspicion |
//! | the stream is removed and nobody writes | the server tells of it, the list of all streams does not have it, or the look that every guard has now and then finds it |

mod guarded;
mod notes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::stream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::error::StoreDenied;
use super::inspection::look_at;
use super::listing::{FollowedStream, StreamIdentity, StreamListing};
use super::stamp::{found_in, stamp_of};
use crate::verdicts::ledger_stamp::{Found, Known, difference};

pub use self::guarded::Guarded;

/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// How long a difference must last on a single server, where a look is answered from the store itself.
const SURE_AFTER_ALONE: Duration = Duration::from_millis(750);
/// The same in a cluster: a new leader may answer before it has caught up.
const SURE_AFTER_IN_CLUSTER: Duration = Duration::from_secs(12);
/// The pause between two looks at what is in doubt.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Of one project's ledger, or of the store as a whole. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreGuard(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    guarded: Guarded,
    listing: StreamListing,
    /// There while the stream is open.
    followed: Mutex<Option<FollowedStream>>,
    /// What the stream was when it was opened: for whoever follows it from then on.
    opened_as: Mutex<Option<StreamIdentity>>,
    stamp: Mutex<Option<String>>,
    last: AtomicU64,
    state: RwLock<State>,
    /// Told of every change of the state.
    turned: Notify,
    doubts: AtomicU64,
    was_trusted: AtomicBool,
    is_pinned: AtomicBool,
    differs_since: Mutex<Option<Instant>>,
    /// Wakes whoever looks.
    to_be_looked_at: Arc<Notify>,
    /// Streams of the project that cannot be made or used, with the reason.
    problems: Mutex<BTreeMap<String, String>>,
    /// What is to be known about streams of the project that can be used.
    warnings: Mutex<BTreeMap<String, Vec<String>>>,
    lacks: Mutex<Lack>,
}

/// Items that were acknowledged and are not in the store though it has the right stamp.
#[derive(Debug, Default)]
struct Lack {
    items: usize,
    /// How often the client had connected when that was found: another server may hold them.
    connects: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Trusted { connects: u64 },
    InDoubt,
    Foreign(Arc<str>),
}

impl StoreGuard {
    /// Of somebody whose store nobody replaces: it always agrees.
    pub const fn unwatched() -> Self {
        Self(None)
    }

    /// Whether it is the same one.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Of this; `to_be_looked_at` is told of whatever is to be looked at.
    pub fn of(guarded: Guarded, listing: &StreamListing, to_be_looked_at: Arc<Notify>) -> Self {
        Self(Some(Arc::new(Inner {
            guarded,
            listing: listing.clone(),
            followed: Mutex::default(),
            opened_as: Mutex::default(),
            stamp: Mutex::default(),
            last: AtomicU64::new(0),
            state: RwLock::new(State::InDoubt),
            turned: Notify::new(),
            doubts: AtomicU64::new(0),
            was_trusted: AtomicBool::new(false),
            is_pinned: AtomicBool::new(false),
            differs_since: Mutex::default(),
            to_be_looked_at,
            problems: Mutex::default(),
            warnings: Mutex::default(),
            lacks: Mutex::default(),
        })))
    }

    /// Whether a write may be sent at this moment.
    ///
    /// # Errors
    /// The store is another one, or that is not known yet.
    pub fn may_write(&self) -> Result<(), StoreDenied> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        match &*inner.state.read() {
            State::Trusted { connects } if *connects == inner.connects() => return Ok(()),
            State::Foreign(sentence) => return Err(StoreDenied::Foreign(sentence.clone())),
            State::Trusted { .. } | State::InDoubt => {}
        }
        if inner.stamp.lock().is_none() {
            return Ok(());
        }
        inner.to_be_looked_at.notify_one();
        Err(StoreDenied::InDoubt(inner.guarded.whose()))
    }

    /// Waits until it is known whether the store is the right one; for ever where no look succeeds.
    ///
    /// # Errors
    /// It is another one.
    pub async fn settled(&self) -> Result<(), StoreDenied> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        loop {
            // Hears of what changes from here on.
            let turned = inner.turned.notified();
            match self.may_write() {
                Err(StoreDenied::InDoubt(_)) => {}
                known => return known,
            }
            let _ = timeout(LOOK_AGAIN, turned).await;
        }
    }

    /// As [`settled`](Self::settled), but not for longer than this.
    ///
    /// # Errors
    /// It is another one, or that is not known in time.
    pub async fn settled_within(&self, within: Duration) -> Result<(), StoreDenied> {
        match timeout(within, self.settled()).await {
            Ok(known) => known,
            Err(_elapsed) => self.may_write(),
        }
    }

    /// Something speaks against the store: it is to be looked at before the next write.
    pub fn suspect(&self) {
        if let Some(inner) = &self.0 {
            inner.doubts.fetch_add(1, Ordering::AcqRel);
            inner.doubt_if_trusted();
            inner.to_be_looked_at.notify_one();
        }
    }

    /// To be kept from before a write is sent until its answer is there.
    pub fn before_a_write(&self) -> WriteMark {
        let inner = self.0.as_ref();
        WriteMark {
            connects: inner.map_or(0, |inner| inner.connects()),
            last: inner.map_or(0, |inner| inner.last.load(Ordering::Acquire)),
        }
    }

    /// A write was acknowledged at this sequence. False: it was sent to another server than the one that is
    /// trusted, or has a sequence that was given out before; then the store is to be looked at first.
    pub fn is_believable(&self, mark: WriteMark, sequence: u64) -> bool {
        let Some(inner) = &self.0 else {
            return true;
        };
        let believable = mark.connects == inner.connects() && sequence > mark.last;
        if !believable {
            self.suspect();
        }
        believable
    }

    /// Everything up to this sequence is stored, as the server has said.
    pub fn acknowledged(&self, sequence: u64) {
        if let Some(inner) = &self.0 {
            inner.last.fetch_max(sequence, Ordering::AcqRel);
        }
    }

    /// What is known of it; `None`: it was not opened.
    pub fn known(&self) -> Option<Known> {
        let inner = self.0.as_ref()?;
        let stamp = inner.stamp.lock().clone()?;
        let last = inner.last.load(Ordering::Acquire);
        Some(Known { stamp, last })
    }

    /// Why it is not the right one, if it is not.
    pub fn foreign(&self) -> Option<Arc<str>> {
        match &*self.0.as_ref()?.state.read() {
            State::Foreign(sentence) => Some(sentence.clone()),
            State::Trusted { .. } | State::InDoubt => None,
        }
    }

    /// The store is the one to be known from now on, as the server said over the connection of this number.
    pub fn adopt(&self, connects: u64, info: &stream::Info) {
        if let Some(inner) = &self.0 {
            *inner.stamp.lock() = Some(stamp_of(info));
            inner
                .last
                .fetch_max(info.state.last_sequence, Ordering::AcqRel);
            *inner.differs_since.lock() = None;
            inner.trust(connects);
        }
    }

    /// Whether the right store was there at any time.
    pub fn was_trusted(&self) -> bool {
        let inner = self.0.as_ref();
        inner.is_none_or(|inner| inner.was_trusted.load(Ordering::Acquire))
    }

    /// It must have this stamp, whatever its end is.
    pub fn pin(&self, stamp: &str) {
        if let Some(inner) = &self.0 {
            *inner.stamp.lock() = Some(stamp.to_owned());
            inner.is_pinned.store(true, Ordering::Release);
            inner.turn(State::InDoubt);
            inner.to_be_looked_at.notify_one();
        }
    }

    /// Nothing is known any more: whatever is opened next is the right one.
    pub fn forget(&self) {
        if let Some(inner) = &self.0 {
            *inner.stamp.lock() = None;
            inner.last.store(0, Ordering::Release);
            *inner.differs_since.lock() = None;
            inner.problems.lock().clear();
            *inner.lacks.lock() = Lack::default();
            inner.turn(State::InDoubt);
        }
    }

    /// How often the client had connected, to be read before a question whose answer is adopted.
    pub fn connects(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.connects())
    }

    /// Whether it has to be looked at.
    pub fn is_in_doubt(&self) -> bool {
        let Some(inner) = &self.0 else {
            return false;
        };
        let trusted = match &*inner.state.read() {
            State::Trusted { connects } => *connects == inner.connects(),
            State::Foreign(_) => return false,
            State::InDoubt => false,
        };
        !trusted && inner.stamp.lock().is_some()
    }

    /// Looks at the store once. True where it turned foreign, or back.
    pub async fn look(&self) -> bool {
        let Some(inner) = &self.0 else {
            return false;
        };
        let (connects, doubts) = (inner.connects(), inner.doubts.load(Ordering::Acquire));
        let Some(known) = self.known() else {
            return false;
        };
        let stream = inner.guarded.stream();
        let asked = look_at(inner.listing.link().1, &stream);
        let Ok(Ok(looked)) = timeout(LOOK_WITHIN, asked).await else {
            return false;
        };
        let found = looked.as_ref().map(|looked| found_in(&looked.info));
        let found = found.unwrap_or(Found::Nothing);
        let known = Known {
            last: if inner.guarded.counts_sequences() {
                known.last
            } else {
                0
            },
            ..known
        };
        let differs = difference(&known, &found);
        if inner.stamp.lock().as_ref() != Some(&known.stamp) {
            return false;
        }
        let was_foreign = self.foreign().is_some();
        let lacks = inner.lacks.lock().items;
        if differs.is_none() && lacks > 0 {
            if !was_foreign {
                inner.turn_foreign(&format!(
                    "{lacks} items that were acknowledged and had not ended are not in it: it was purged, or messages of it \
                     were deleted"
                ));
            }
            return !was_foreign;
        }
        let Some(differs) = differs else {
            *inner.differs_since.lock() = None;
            if let (Some(followed), Some(looked)) = (&*inner.followed.lock(), &looked) {
                followed.note(Some(looked.identity));
            }
            if doubts == inner.doubts.load(Ordering::Acquire) {
                inner.trust(connects);
            }
            if was_foreign {
                tracing::warn!(
                    "the store of {} is the right one again",
                    inner.guarded.whose()
                );
            }
            return was_foreign;
        };
        let since = *inner.differs_since.lock().get_or_insert_with(Instant::now);
        if was_foreign || since.elapsed() < inner.sure_after() {
            if !was_foreign {
                inner.turn(State::InDoubt);
            }
            return false;
        }
        inner.turn_foreign(&differs.to_string());
        true
    }
}

impl Inner {
    fn turn(&self, state: State) {
        *self.state.write() = state;
        self.turned.notify_waiters();
    }

    fn doubt_if_trusted(&self) {
        let mut state = self.state.write();
        if matches!(*state, State::Trusted { .. }) {
            *state = State::InDoubt;
            self.turned.notify_waiters();
        }
    }

    fn turn_foreign(&self, why: &str) {
        let sentence = format!(
            "the store of {} is not the one that this coordinator works with: {why} (stream {}); {}",
            self.guarded.whose(),
            self.guarded.stream(),
            (self.guarded.remedy)(self.guarded.project.as_ref())
        );
        tracing::error!("{sentence}");
        self.turn(State::Foreign(sentence.into()));
    }

    fn trust(&self, connects: u64) {
        self.was_trusted.store(true, Ordering::Release);
        self.turn(State::Trusted { connects });
    }

    fn client(&self) -> &Client {
        self.listing.link().0
    }

    fn connects(&self) -> u64 {
        self.client().statistics().connects.load(Ordering::Relaxed)
    }

    fn sure_after(&self) -> Duration {
        match self.client().server_info().cluster {
            Some(_) => SURE_AFTER_IN_CLUSTER,
            None => SURE_AFTER_ALONE,
        }
    }
}

/// What a write is held against when its answer comes.
#[derive(Debug, Clone, Copy)]
pub struct WriteMark {
    connects: u64,
    last: u64,
}
