//! What waits, by what it needs: what is asked of the read model by whoever starts agents, and whoever ends them.

use std::sync::Arc;

use loom_protocol::{Timestamp, WorkId};
use parking_lot::RwLockWriteGuard;

use super::read_model::ReadModel;
use crate::domain::matching::Requirements;
use crate::domain::targets::{Need, Places};

impl ReadModel {
    /// Pending items by what they need.
    pub fn pending_by_needs(&self) -> Vec<(Requirements, usize)> {
        let index = self.index.read();
        let all = index.pending.all();
        all.map(|(needs, count)| (Requirements::clone(needs), count))
            .collect()
    }

    /// Pending items that may be offered now, by what they need: those at these places, and those whose time (`notBefore`)
    /// has come since this was asked last; and when the next one's time comes. Costs what it names.
    ///
    /// The index is locked for that like for a read, and written only where the time of an item has come.
    pub fn ready_in(
        &self,
        mut places: Places,
        now: Timestamp,
    ) -> (Vec<(Arc<Requirements>, usize)>, Option<Timestamp>) {
        let mut index = self.index.read();
        if index.pending.next().is_some_and(|next| next <= now) {
            drop(index);
            let mut written = self.index.write();
            for needs in written.pending.release(now) {
                places.add(&needs.capability, Some(&needs.boundary));
            }
            index = RwLockWriteGuard::downgrade(written);
        }
        (index.pending.ready_in(&places), index.pending.next())
    }

    /// Of the items of one need that may be offered the one that may be so for the longest, since it came or came back
    /// last; after a reading of the bucket, since its last write. Where they prefer several types, of those of each type
    /// the one that was created first. Costs O(log n) of the different needs.
    pub fn oldest_ready(&self, need: &Need) -> Option<WorkId> {
        let index = self.index.read();
        let slots = index.pending.oldest_of(need);
        let headers = slots.filter_map(|slot| index.headers.get(slot as usize));
        Some(headers.min_by_key(|header| header.created)?.id)
    }

    /// Whether anything is pending whose needs `suits` says yes to.
    pub fn has_pending(&self, mut suits: impl FnMut(&Requirements) -> bool) -> bool {
        let index = self.index.read();
        index.pending.all().any(|(needs, _)| suits(needs))
    }
}
