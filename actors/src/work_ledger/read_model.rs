//! What everybody may read at any time: the index, recent records, the bodies in the bucket.
//!
//! It belongs to the project tree and survives a crash of the ledger. Only the ledger writes it;
//! reads never queue behind writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use loom_protocol::rest::WorkTotals;
use loom_protocol::work::{LeaseRef, WorkItem};
use loom_protocol::{AgentGuid, ProjectId, Timestamp, WorkId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::cache::RecordCache;
use super::header::{Header, ItemChange, LeaseInfo};
use super::index::Index;
use super::live_progress::LiveProgresses;
use super::read_error::ReadError;
use crate::domain::id_prefix;
use crate::domain::lease::LeaseClock;
use crate::domain::work::{
    Bodies, RecordError, WorkRecord, decode, total_usage, view, within_attempt,
};
use crate::hashing::{HashMap, HashSet};
use crate::nats::ledger_store::{Entry, LedgerStore};
use crate::nats::store_guard::StoreGuard;
use crate::notifier::Notifier;

/// No item has been claimed yet.
const NO_WAIT_KNOWN: u64 = u64::MAX;

/// How many changes are kept for each who listens.
const CHANGES_KEPT: usize = 1024;

/// The read side of a project's ledger.
pub struct ReadModel {
    project: ProjectId,
    store: LedgerStore,
    pub(super) index: RwLock<Index>,
    cache: RecordCache,
    live: LiveProgresses,
    changes: Notifier<Arc<ItemChange>>,
    lease_changes: Notifier<(AgentGuid, usize)>,
    pub(super) quarantined: AtomicUsize,
    /// Records that somebody has made unreadable: the revision, and why.
    pub(super) damaged: Mutex<HashMap<WorkId, (u64, Arc<RecordError>)>>,
    /// Items that are to be there and are not in the bucket.
    pub(super) lost: Mutex<HashSet<WorkId>>,
    /// Something was not there that should be: the whole bucket is to be looked at.
    pub(super) suspicious: AtomicBool,
    /// Told of that.
    pub(super) suspicion: Notify,
    /// How many unfinished items somebody has deleted.
    pub(super) deleted: AtomicUsize,
    /// One search through all headers at a time.
    pub(super) searches: Semaphore,
    replayed_to: AtomicU64,
    /// The bucket was read to its end once.
    pub(super) loaded: watch::Sender<bool>,
    /// See [`ReadModel::usual_wait`]; in milliseconds, [`NO_WAIT_KNOWN`] before the first claim.
    usual_wait: AtomicU64,
    /// Over all incarnations of the ledger: what one of them left under way is none of the next one's.
    writes: AtomicU64,
}

impl ReadModel {
    /// An empty one over a bucket; the ledger fills it when it starts.
    pub fn new(project: ProjectId, store: LedgerStore) -> Self {
        Self {
            project,
            store,
            index: RwLock::default(),
            cache: RecordCache::default(),
            live: LiveProgresses::default(),
            changes: Notifier::new(CHANGES_KEPT),
            lease_changes: Notifier::new(CHANGES_KEPT),
            quarantined: AtomicUsize::new(0),
            damaged: Mutex::default(),
            lost: Mutex::default(),
            suspicious: AtomicBool::new(false),
            suspicion: Notify::new(),
            deleted: AtomicUsize::new(0),
            searches: Semaphore::new(1),
            replayed_to: AtomicU64::new(0),
            loaded: watch::Sender::new(false),
            usual_wait: AtomicU64::new(NO_WAIT_KNOWN),
            writes: AtomicU64::new(0),
        }
    }

    /// Calls `each` for every item, in the order of creation within each status.
    pub fn for_each(&self, each: impl FnMut(&Header)) {
        self.index.read().all().for_each(each);
    }

    /// Whose ledger it is.
    pub const fn project(&self) -> &ProjectId {
        &self.project
    }

    /// How long items have lately waited for their first claim: an average in which the last eight or so count most.
    pub fn usual_wait(&self) -> Option<Duration> {
        let known = self.usual_wait.load(Ordering::Relaxed);
        (known != NO_WAIT_KNOWN).then(|| Duration::from_millis(known))
    }

    /// An item was claimed for the first time, after this wait.
    pub(super) fn note_wait(&self, waited: Duration) {
        let waited = u64::try_from(waited.as_millis()).unwrap_or(NO_WAIT_KNOWN - 1);
        // Two at the same moment: one of them does not count, which an estimate bears.
        let next = match self.usual_wait.load(Ordering::Relaxed) {
            NO_WAIT_KNOWN => waited,
            known => known - known / 8 + waited / 8,
        };
        self.usual_wait.store(next, Ordering::Relaxed);
    }

    /// The item's header, if there is such an item.
    pub fn header(&self, id: WorkId) -> Option<Header> {
        self.index.read().get(id).cloned()
    }

    /// Whether there is such an item.
    pub fn is_known(&self, id: WorkId) -> bool {
        self.index.read().get(id).is_some()
    }

    /// The leases that an agent holds.
    pub fn leases_of(&self, guid: AgentGuid) -> Vec<LeaseInfo> {
        self.index.read().leases_of(guid).to_vec()
    }

    /// How many leases an agent holds.
    pub fn lease_count(&self, guid: AgentGuid) -> usize {
        self.index.read().leases_of(guid).len()
    }

    /// Every agent that holds leases, and how many.
    pub fn lease_counts(&self) -> Vec<(AgentGuid, usize)> {
        self.index.read().lease_counts().collect()
    }

    /// Who holds an item, and how.
    pub fn lease(&self, id: WorkId) -> Option<(AgentGuid, LeaseInfo)> {
        self.index
            .read()
            .lease(id)
            .map(|(guid, lease)| (guid, lease.clone()))
    }

    /// Who holds an item with which attempt, and what the clocks of that lease go by.
    pub fn lease_clock(&self, id: WorkId) -> Option<(AgentGuid, u32, LeaseClock<Instant>)> {
        let (guid, lease) = self.lease(id)?;
        let reported_at = self.live.last_reported_at(id, lease.attempt);
        let clock = LeaseClock {
            started: lease.started,
            heard: reported_at.map_or(lease.last_seen_at, |at| at.max(lease.last_seen_at)),
            timeout: lease.timeout_ms.map(Duration::from_millis),
        };
        Some((guid, lease.attempt, clock))
    }

    /// Every item that somebody holds.
    pub fn leased(&self) -> Vec<WorkId> {
        let index = self.index.read();
        index.leases().map(|lease| lease.id).collect()
    }

    /// Items that were cancelled since then and that their agents may be working on still.
    pub fn stopping(&self, since: Timestamp) -> Vec<(AgentGuid, LeaseRef)> {
        self.index.write().stopping(since)
    }

    /// Unfinished items that have a deadline, with it.
    pub fn deadlines(&self) -> Vec<(WorkId, Timestamp)> {
        self.index.read().deadlines().collect()
    }

    /// Items by status.
    pub fn totals(&self) -> WorkTotals {
        self.index.read().totals()
    }

    /// When an item was last written.
    pub fn last_activity(&self) -> Option<Timestamp> {
        self.index.read().last_activity()
    }

    /// When the finished item that ended first did so; it is the first to expire.
    pub fn oldest_finished(&self) -> Option<Timestamp> {
        self.index.read().oldest_finished()
    }

    /// Calls `each` for every pending item, in the order of creation.
    pub fn for_each_pending(&self, each: impl FnMut(&Header)) {
        self.index.read().pending().for_each(each);
    }

    /// When the pending item that was created first was submitted.
    pub fn oldest_pending(&self) -> Option<Timestamp> {
        self.index.read().pending().next().map(|h| h.offered_at)
    }

    /// Failed items whose dead letter is still to be written: at most `limit`, whose last write is
    /// later than `after`, in that order.
    pub fn without_letter(&self, after: u64, limit: usize) -> Vec<Header> {
        let index = self.index.read();
        index.without_letter(after).take(limit).cloned().collect()
    }

    /// Records that could not be read; they stay where they are.
    pub fn quarantined(&self) -> usize {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// The ids that begin with a text, at most `limit`; none where no id begins like that.
    pub fn ids_like(&self, text: &str, limit: usize) -> Vec<WorkId> {
        id_prefix::bounds(text).map_or_else(Vec::new, |(first, last)| {
            let mut ids = self.index.read().ids_between(first, last, limit);
            ids.extend(self.damaged_between(first, last));
            ids.truncate(limit);
            ids
        })
    }

    /// The record of an item at its present revision, if it was read or written lately.
    pub(super) fn recent(&self, id: WorkId) -> Option<(Arc<WorkRecord>, u64)> {
        let revision = self.index.read().get(id)?.revision;
        Some((self.cache.get(id, revision)?, revision))
    }

    /// The record of an item at its present revision, from the cache or the bucket.
    pub async fn record(&self, id: WorkId) -> Result<(Arc<WorkRecord>, u64), ReadError> {
        if let Some(recent) = self.recent(id) {
            return Ok(recent);
        }
        let Some(header) = self.header(id) else {
            let absent = self.absent(id);
            return Err(self.damage(id).unwrap_or(absent));
        };
        let stored = Box::pin(self.stored(id, header.revision)).await;
        if matches!(stored, Err(ReadError::NotFound(_))) && header.is_kept() {
            self.suspicious.store(true, Ordering::Release);
            self.suspicion.notify_one();
        }
        let entry = stored?;
        let record = match decode(&entry.bytes) {
            Ok(record) => Arc::new(record),
            Err(RecordError::Empty) => {
                self.note_deletion(id, entry.sequence);
                return Err(ReadError::NotFound(id));
            }
            Err(why) => return Err(self.note_damage(id, entry.sequence, why)),
        };
        self.cache.put(record.clone(), entry.sequence);
        Ok((record, entry.sequence))
    }

    /// What the bucket holds, at this revision or a later one.
    async fn stored(&self, id: WorkId, revision: u64) -> Result<Entry, ReadError> {
        match self.store.get(id).await? {
            Some(entry) if entry.sequence >= revision => Ok(entry),
            // A replica may lag behind what was acknowledged.
            _ => {
                let entry = self.store.get_from_leader(id).await?;
                if entry.as_ref().is_none_or(|entry| entry.sequence < revision) {
                    self.store.confirm().await?;
                }
                entry.ok_or(ReadError::NotFound(id))
            }
        }
    }

    /// An item as clients see it, with what its agent reported last.
    pub async fn item(&self, id: WorkId, bodies: Bodies) -> Result<WorkItem, ReadError> {
        let (record, revision) = self.record(id).await?;
        Ok(self.view(&record, revision, bodies))
    }

    /// A record as clients see it, with what its agent reported last.
    pub fn view(&self, record: &WorkRecord, revision: u64, bodies: Bodies) -> WorkItem {
        let mut item = view(record, &self.project, revision, bodies);
        if item.status.is_leased()
            && let Some(live) = self.live.get(item.id, item.attempt)
        {
            item.progress = live.progress.or(item.progress);
            item.progress_message = live.message.or(item.progress_message);
            if live.usage.is_some() {
                let mut with_it = record.clone();
                with_it.usage = within_attempt(with_it.usage.take(), live.usage);
                item.usage = total_usage(&with_it);
            }
            item.session = live.session.or(item.session);
            item.updated_at = item.updated_at.max(live.at);
        }
        item
    }

    /// Every change of an item is told here, while the index is locked: a hook asks this model nothing.
    pub const fn changes(&self) -> &Notifier<Arc<ItemChange>> {
        &self.changes
    }

    /// How many leases an agent holds, told here whenever that may have changed, before the change of the item and
    /// like it.
    pub const fn lease_changes(&self) -> &Notifier<(AgentGuid, usize)> {
        &self.lease_changes
    }

    /// Gives `set` how many leases an agent holds, while that cannot change. It asks this model nothing.
    pub fn with_lease_count(&self, guid: AgentGuid, set: impl FnOnce(usize)) {
        let index = self.index.read();
        set(index.leases_of(guid).len());
    }

    /// Whether the store behind it is the one that is worked with.
    pub const fn guard(&self) -> &StoreGuard {
        self.store.guard()
    }

    fn leases_changed(&self, index: &Index, guids: impl IntoIterator<Item = AgentGuid>) {
        for guid in guids {
            let count = index.leases_of(guid).len();
            self.lease_changes.notify((guid, count));
        }
    }

    pub(super) const fn store(&self) -> &LedgerStore {
        &self.store
    }

    /// Takes a written record over and tells the listeners. False: a newer one was known.
    pub(super) fn apply(&self, record: &Arc<WorkRecord>, revision: u64) -> bool {
        self.take_over(record, revision, || {
            self.cache.put(record.clone(), revision);
        })
    }

    /// Tells while the index is locked: a replay and the ledger's own writes are told in the order
    /// of their revisions, or a scheduler would believe the older one.
    pub(super) fn take_over(
        &self,
        record: &WorkRecord,
        revision: u64,
        keep: impl FnOnce(),
    ) -> bool {
        let mut index = self.index.write();
        let Some(change) = index.apply(record, revision, Instant::now()) else {
            return false;
        };
        if change.freed.is_some() || change.header.status.is_terminal() {
            self.live.forget(record.id);
        }
        keep();
        self.damaged.lock().remove(&record.id);
        let header = &change.header;
        let holder = header.holder.filter(|_| header.status.is_leased());
        self.leases_changed(&index, holder.into_iter().chain(change.freed));
        self.changes.notify(Arc::new(change));
        true
    }

    pub(super) fn forget(&self, header: &Header) {
        let mut index = self.index.write();
        if index.get(header.id).map(|now| now.revision) == Some(header.revision) {
            index.remove(header.id);
            drop(index);
            self.cache.remove(header.id);
        }
    }

    pub(super) fn to_forget(&self, keep: usize, before: Timestamp, limit: usize) -> Vec<Header> {
        self.index.read().to_forget(keep, before, limit)
    }

    pub(super) fn forget_id(&self, id: WorkId) {
        let mut index = self.index.write();
        let held = index.remove(id).filter(|header| header.status.is_leased());
        self.leases_changed(&index, held.and_then(|header| header.holder));
        drop(index);
        self.cache.remove(id);
        self.live.forget(id);
    }

    /// What agents have reported of items that run.
    pub(super) const fn live(&self) -> &LiveProgresses {
        &self.live
    }

    /// The number of the next write of this ownership.
    pub(super) fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether an incarnation of the ledger has begun to write anything.
    pub(super) fn has_writes_begun(&self) -> bool {
        self.writes.load(Ordering::Relaxed) > 0
    }

    /// Up to which sequence everything is known.
    pub(super) fn replayed_to(&self) -> u64 {
        self.replayed_to.load(Ordering::Acquire)
    }

    pub(super) fn set_replayed_to(&self, sequence: u64) {
        self.replayed_to.fetch_max(sequence, Ordering::AcqRel);
    }
}
