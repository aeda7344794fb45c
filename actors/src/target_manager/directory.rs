//! The targets of a project as they are known: the read side, which survives the actor.

mod begun;
mod birth_index;
mod births;
mod choosing;
mod ends;
mod looked;
mod said;
mod tidied;
mod unreadable;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::rest::TargetTotals;
use loom_protocol::target::{ListTargetsRequest, Target, TargetStatus};
use loom_protocol::{ProjectId, SpinUpId, TargetId, Timestamp, WireError, names};
use parking_lot::RwLock;
use tokio::sync::watch;

pub(crate) use self::births::TicketOf;
pub use self::births::{LinkedTo, TargetView};
pub use self::choosing::StartAt;
pub(in crate::target_manager) use self::tidied::Tidied;
pub(in crate::target_manager) use self::unreadable::Unreadable;
use super::key::TargetKey;
use super::operations::Operations;
use super::page::{TargetsFound, page_of};
use super::{Ended, Record};
use crate::domain::id_prefix::bounds;
use crate::domain::targets::{NotARecord, Roster, decode, decode_end};
use crate::nats::kv;

/// A reader may ask again so soon.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A record and its revision.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub record: Arc<Record>,
    pub revision: u64,
}

/// The targets of a project. Everything that only asks goes here.
///
/// ```no_run
/// use loom_actors::project::Project;
/// use loom_actors::target_manager::TargetDirectory;
///
/// fn how_many(project: &Project) -> usize {
///     let targets: &TargetDirectory = &project.targets;
///     targets.totals().total
/// }
/// ```
#[derive(Debug)]
pub struct TargetDirectory {
    project: ProjectId,
    index: RwLock<Index>,
    loaded: watch::Sender<bool>,
    tidied: Tidied,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<TargetId, Known>,
    by_name: BTreeMap<TargetKey, TargetId>,
    /// Records that cannot be read, by their keys in the bucket.
    unreadable: BTreeMap<String, Unreadable>,
    /// How many ends of starts could not be read.
    unreadable_ends: usize,
    /// When each was looked at, where that is known.
    looked: BTreeMap<TargetId, Timestamp>,
    /// Something is gone from the bucket that nobody here has removed.
    is_suspicious: bool,
    /// Somebody else has written a record, and what is in it is not gone on with yet.
    has_another_writer: bool,
    births: birth_index::BirthIndex,
    roster: Roster<TargetKey>,
    ended: Operations,
    /// The ends of late births that are known here and may not be in the bucket yet.
    unwritten_ends: BTreeSet<SpinUpId>,
    /// How often something was applied.
    changes: u64,
}

/// What the bucket holds, read from one end to the other.
#[derive(Debug, Default)]
pub(super) struct Content {
    known: Vec<Known>,
    unreadable: BTreeMap<String, Unreadable>,
    unreadable_ends: usize,
    ended: Operations,
}

impl Content {
    /// Takes in a record as it lies in the bucket.
    pub fn add(&mut self, record: &kv::Record) {
        if let Some(id) = names::spin_up_of_key(&record.key) {
            return self.add_end(id, record);
        }
        if !names::is_target_key(&record.key) {
            return;
        }
        let Some(value) = &record.value else {
            return;
        };
        match read(&record.key, value) {
            Ok(read) => self.known.push(Known {
                record: Arc::new(read),
                revision: record.revision,
            }),
            Err(why) => {
                let revision = record.revision;
                let unreadable = Unreadable { why, revision };
                self.unreadable.insert(record.key.clone(), unreadable);
            }
        }
    }
}

impl Content {
    /// The end of an operation. One that cannot be read is counted, and goes by itself.
    fn add_end(&mut self, id: SpinUpId, record: &kv::Record) {
        let Some(value) = &record.value else {
            return;
        };
        match decode_end(value) {
            Ok(end) if end.operation.operation_id == id => self.ended.insert(end.into()),
            Ok(_) => self.unreadable_ends += 1,
            Err(why) => {
                self.unreadable_ends += 1;
                tracing::debug!(key = record.key, "the end of a start cannot be read: {why}");
            }
        }
    }
}

/// Reads a record that lies under this key.
pub(super) fn read(key: &str, value: &[u8]) -> Result<Record, NotARecord> {
    let record: Record = decode(value)?;
    let name = &record.target.name;
    if TargetKey::of(name).is_some() && names::target_key(name) == key {
        Ok(record)
    } else {
        Err(NotARecord::OtherName)
    }
}

impl TargetDirectory {
    /// Of a project whose bucket has not been read.
    pub(crate) fn new(project: ProjectId) -> Self {
        Self {
            project,
            index: RwLock::default(),
            loaded: watch::Sender::new(false),
            tidied: Tidied::default(),
        }
    }

    /// Waits until the bucket was read once: from then on a target that is not here does not exist.
    ///
    /// # Errors
    /// `unavailable`: it was not, within the bound.
    pub async fn ready(&self, within: Duration) -> Result<(), WireError> {
        let mut loaded = self.loaded.subscribe();
        let waited = tokio::time::timeout(within, loaded.wait_for(|loaded| *loaded)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WireError::unavailable(
                format!(
                    "the targets of project {} have not been read yet; try again in a moment",
                    self.project
                ),
                ASK_AGAIN,
            )),
        }
    }

    /// Whether the bucket was read once.
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// One target, with its secrets.
    pub fn get(&self, id: TargetId) -> Option<Target> {
        let index = self.index.read();
        let known = index.by_id.get(&id)?;
        Some(index.with_look(known.record.target.clone()))
    }

    /// The target of a name, whatever its case.
    pub fn id_of_name(&self, name: &str) -> Option<TargetId> {
        let key = TargetKey::of(name)?;
        self.index.read().by_name.get(&key).copied()
    }

    /// The targets whose ids begin like this, at most so many.
    pub fn ids_like(&self, prefix: &str, most: usize) -> Vec<TargetId> {
        let Some((first, last)) = bounds::<TargetId>(prefix) else {
            return Vec::new();
        };
        let index = self.index.read();
        let ids = index.by_id.range(first..=last);
        ids.take(most).map(|(id, _)| *id).collect()
    }

    /// One page of the targets that pass the filters of a request.
    ///
    /// # Errors
    /// Its cursor is none.
    pub fn find(
        &self,
        request: &ListTargetsRequest,
        limit: usize,
    ) -> Result<TargetsFound, WireError> {
        let index = self.index.read();
        let all = index.by_id.values().map(|known| &known.record.target);
        let mut found = page_of(all, request, limit)?;
        let targets = found.targets.into_iter();
        found.targets = targets.map(|target| index.with_look(target)).collect();
        Ok(found)
    }

    /// How many there are, by their state.
    pub fn totals(&self) -> TargetTotals {
        let index = self.index.read();
        let mut totals = TargetTotals {
            total: index.by_id.len(),
            ..TargetTotals::default()
        };
        for known in index.by_id.values() {
            match known.record.target.status {
                TargetStatus::Available => totals.available += 1,
                TargetStatus::InUse => totals.in_use += 1,
                TargetStatus::Disabled => totals.disabled += 1,
                TargetStatus::Error => totals.error += 1,
            }
        }
        totals
    }

    /// How many records cannot be read.
    pub fn quarantined(&self) -> usize {
        self.index.read().unreadable.len()
    }

    pub(super) fn len(&self) -> usize {
        let index = self.index.read();
        index.by_id.len() + index.unreadable.len()
    }

    /// What is known under a name.
    pub(super) fn known(&self, key: TargetKey) -> Option<Known> {
        let index = self.index.read();
        let id = index.by_name.get(&key)?;
        index.by_id.get(id).cloned()
    }

    /// Something was stored, or found to be.
    pub(super) fn apply(&self, key: TargetKey, record: &Arc<Record>, revision: u64) {
        let mut index = self.index.write();
        let id = record.target.id;
        let is_older = index
            .by_id
            .get(&id)
            .is_some_and(|known| known.revision >= revision);
        if is_older {
            return;
        }
        index
            .unreadable
            .remove(&names::target_key(&record.target.name));
        index.insert(
            key,
            Known {
                record: record.clone(),
                revision,
            },
        );
        index.changes += 1;
    }

    /// Forgets the decided operations that ended before.
    pub(super) fn forget_operations(&self, before: Timestamp) {
        self.index.write().ended.forget_before(before);
    }

    /// What is known under every name.
    pub(super) fn all_known(&self) -> Vec<(TargetKey, Known)> {
        let index = self.index.read();
        let of_name =
            |(key, id): (&TargetKey, &TargetId)| Some((*key, index.by_id.get(id)?.clone()));
        index.by_name.iter().filter_map(of_name).collect()
    }

    /// The decided operation of an id.
    pub(super) fn end_of(&self, id: SpinUpId) -> Option<Arc<Ended>> {
        self.index.read().ended.get(id).cloned()
    }

    /// There is nothing under a name any more.
    pub(super) fn forget(&self, key: TargetKey) {
        let mut index = self.index.write();
        index.remove(key);
        index.changes += 1;
    }

    /// What was known under a name is gone, and nobody here has removed it: the same may be so of others.
    pub(super) fn missed(&self, key: TargetKey) {
        let mut index = self.index.write();
        index.is_suspicious |= index.by_name.contains_key(&key);
        drop(index);
        self.forget(key);
    }

    /// Whether something was missed since this was asked last.
    pub(super) fn take_suspicion(&self) -> bool {
        std::mem::take(&mut self.index.write().is_suspicious)
    }

    /// A record was found that somebody else has written: a former owner, whose write came late.
    pub(super) fn found(&self, key: TargetKey, record: &Arc<Record>, revision: u64) {
        self.apply(key, record, revision);
        self.index.write().has_another_writer = true;
    }

    /// Whether something was found since this was asked last.
    pub(super) fn take_found(&self) -> bool {
        std::mem::take(&mut self.index.write().has_another_writer)
    }

    /// How often something was applied; to be taken before the bucket is read.
    pub(super) fn changes(&self) -> u64 {
        self.index.read().changes
    }

    /// The bucket was read. Whether a target or a start is otherwise than was known; `None`: something was applied since
    /// `changes`, so that it is to be read again.
    pub(super) fn replace(&self, content: Content, changes: u64) -> Option<bool> {
        let mut index = self.index.write();
        if index.changes != changes {
            return None;
        }
        let revisions = |known: &Known| (known.record.target.id, known.revision);
        let before: BTreeSet<_> = index.by_id.values().map(revisions).collect();
        let now: BTreeSet<_> = content.known.iter().map(revisions).collect();
        let is_other = before != now || index.unreadable != content.unreadable;
        for (key, unreadable) in &content.unreadable {
            if !index.unreadable.contains_key(key) {
                let sentence = unreadable.sentence(&self.project, key);
                tracing::warn!(project = %self.project, key, "{sentence}");
            }
        }
        index.by_id.clear();
        index.by_name.clear();
        let said = index.births.take_said();
        index.roster = Roster::default();
        index.roster.touch_everywhere();
        index.ended = content.ended;
        index.unreadable = content.unreadable;
        index.unreadable_ends = content.unreadable_ends;
        // What is not written of these is found again by their links.
        index.unwritten_ends.clear();
        for known in content.known {
            if let Some(key) = TargetKey::of(&known.record.target.name) {
                index.insert(key, known);
            }
        }
        for (id, said) in said {
            index.births.note_said(id, Some(said));
        }
        index.forget_looks();
        drop(index);
        self.loaded.send_replace(true);
        Some(is_other)
    }
}

impl Index {
    fn insert(&mut self, key: TargetKey, known: Known) {
        let id = known.record.target.id;
        let of_name = self.by_name.insert(key, id);
        let before = of_name.and_then(|before| self.by_id.remove(&before));
        let before = before.as_ref().map(|before| &*before.record);
        self.roster.replace(&key, before, Some(&known.record));
        self.births.replace(before, Some(&known.record));
        self.by_id.insert(id, known);
    }

    fn remove(&mut self, key: TargetKey) {
        let id = self.by_name.remove(&key);
        if let Some(before) = id.and_then(|id| self.by_id.remove(&id)) {
            self.roster.replace(&key, Some(&before.record), None);
            self.births.replace(Some(&before.record), None);
        }
    }
}
