//! Records that somebody has made unreadable, has deleted, or that are not there any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom_protocol::{Timestamp, WorkId};

use super::header::Header;
use super::read_error::ReadError;
use super::read_model::ReadModel;
use crate::domain::work::{RecordError, decode};
use crate::hashing::HashMap;
use crate::nats::ledger_store::Entry;

/// How many records a bucket should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    /// Those that stay until they are written again.
    pub kept: usize,
    /// All, but for those that may have gone already.
    pub least: usize,
}

impl ReadModel {
    /// The items from one id to another whose records cannot be read.
    pub(super) fn damaged_between(&self, first: WorkId, last: WorkId) -> Vec<WorkId> {
        let damaged = self.damaged.lock();
        let ids = damaged.keys().copied();
        ids.filter(|id| (first..=last).contains(id)).collect()
    }

    /// Why the record of an item cannot be read, where that is so.
    pub(super) fn damage(&self, id: WorkId) -> Option<ReadError> {
        let damaged = self.damaged.lock();
        let (revision, source) = damaged.get(&id)?;
        Some(ReadError::Damaged {
            id,
            bucket: self.store().bucket().into(),
            revision: *revision,
            source: source.clone(),
        })
    }

    /// Somebody has written over a record what cannot be read: the item is none that can be claimed.
    pub(super) fn note_damage(&self, id: WorkId, revision: u64, why: RecordError) -> ReadError {
        if self
            .header(id)
            .is_none_or(|known| known.revision < revision)
        {
            let new = (revision, Arc::new(why));
            let before = self.damaged.lock().insert(id, new);
            if before.is_none_or(|(known, _)| known < revision) {
                self.quarantined.fetch_add(1, Ordering::Relaxed);
                if let Some(damage) = self.damage(id) {
                    tracing::error!(project = %self.project(), "{damage}");
                }
            }
            self.forget_id(id);
        }
        self.damage(id).unwrap_or(ReadError::NotFound(id))
    }

    /// Somebody has deleted a record by its key.
    pub(super) fn note_deletion(&self, id: WorkId, revision: u64) {
        self.damaged.lock().remove(&id);
        let Some(known) = self.header(id).filter(|known| known.revision < revision) else {
            return;
        };
        self.forget_id(id);
        if !known.is_kept() {
            return;
        }
        let deleted = self.deleted.fetch_add(1, Ordering::Relaxed) + 1;
        let text = format!(
            "{deleted} items that had not ended were deleted in it by somebody, the last one is {id}"
        );
        tracing::error!(project = %self.project(), "{text}");
        let about = format!("{} (deletions)", self.store().stream_name());
        self.guard().note_warnings(&about, vec![text]);
    }

    /// Of these items, as they were known, the bucket has no record: where nothing has changed since, they are lost. To be
    /// called by the owner, who has asked the leader.
    pub(super) fn lose(&self, known: &[Header]) {
        let mut lost = self.lost.lock();
        for known in known.iter().filter(|known| known.is_kept()) {
            let now = self.header(known.id);
            if now.is_some_and(|now| now.revision == known.revision) && lost.insert(known.id) {
                tracing::error!(
                    project = %self.project(), id = %known.id, status = %known.status, revision = known.revision,
                    "the record of an item is not in the ledger any more"
                );
            }
        }
        self.guard().lacks(lost.len());
    }

    /// Whether something was not there that should be, since the last call.
    pub(super) fn take_suspicion(&self) -> bool {
        self.suspicious.swap(false, Ordering::AcqRel)
    }

    /// How many records the bucket should hold, those that are to stay and all, and how many of these may be gone.
    pub(super) fn expected(&self, keep: usize, expired: Timestamp) -> Expected {
        let index = self.index.read();
        let (total, kept) = index.counts();
        Expected {
            kept,
            least: (total + self.damaged.lock().len()).saturating_sub(index.going(keep, expired)),
        }
    }

    /// Every item whose record is to stay, by its revision.
    pub(super) fn kept(&self) -> HashMap<u64, WorkId> {
        self.index.read().kept()
    }

    /// Takes over what the bucket holds; what cannot be read is counted and left alone.
    pub(super) fn apply_entry(&self, entry: &Entry) {
        match (entry.id, decode(&entry.bytes)) {
            (Some(id), Ok(record)) if record.id == id => {
                self.take_over(&record, entry.sequence, || {});
            }
            (Some(id), Err(RecordError::Empty)) => self.note_deletion(id, entry.sequence),
            (Some(id), Err(why)) => {
                self.note_damage(id, entry.sequence, why);
            }
            (None, Err(RecordError::Empty)) => {}
            (id, outcome) => {
                self.quarantined.fetch_add(1, Ordering::Relaxed);
                let why = outcome.err().map_or_else(
                    || "its key is not the id inside".into(),
                    |error| error.to_string(),
                );
                tracing::warn!(
                    project = %self.project(), sequence = entry.sequence, ?id,
                    "a record of the ledger cannot be read and is left alone: {why}"
                );
            }
        }
    }
}
