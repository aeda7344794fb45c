//! What waits, by what it needs: what is asked of the read model by whoever starts agents, and whoever ends them.

use std::sync::Arc;

use loom_protocol::{Timestamp, WorkId};
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::index::Index;
use super::pending::Ready;
use super::read_model::ReadModel;
use crate::domain::matching::Requirements;
use crate::domain::targets::Need;

impl ReadModel {
    /// Pending items by what they need.
    pub fn pending_by_needs(&self) -> Vec<(Requirements, usize)> {
        let index = self.index.read();
        let all = index.pending.all();
        all.map(|(needs, count)| (Requirements::clone(needs), count))
            .collect()
    }

    /// Pending items that may be offered now, by what they need; and when the next one may be that may not yet
    /// (`notBefore`). Costs the number of different needs.
    pub fn ready_by_needs(
        &self,
        now: Timestamp,
    ) -> (Vec<(Arc<Requirements>, usize)>, Option<Timestamp>) {
        let index = self.released(now);
        let ready = index.pending.ready();
        let ready = ready.map(|(needs, count)| (needs.clone(), count)).collect();
        (ready, index.pending.next())
    }

    /// What may be offered now of one need. Costs O(log n) of the different needs.
    pub fn ready_of(&self, need: &Need, now: Timestamp) -> Ready {
        self.released(now).pending.ready_of(need)
    }

    /// Of the items of one need that may be offered now the one that has waited for the longest; where they prefer several
    /// types, that of each of them which was created first. Costs O(log n) of the different needs.
    pub fn oldest_ready(&self, need: &Need, now: Timestamp) -> Option<WorkId> {
        let index = self.released(now);
        let slots = index.pending.oldest_of(need);
        let headers = slots.filter_map(|slot| index.headers.get(slot as usize));
        Some(headers.min_by_key(|header| header.created)?.id)
    }

    /// The index, in which those may be offered whose time has come. It is written for that only where one's time has.
    fn released(&self, now: Timestamp) -> RwLockReadGuard<'_, Index> {
        let index = self.index.read();
        if index.pending.next().is_none_or(|next| next > now) {
            return index;
        }
        drop(index);
        let mut index = self.index.write();
        index.pending.release(now);
        RwLockWriteGuard::downgrade(index)
    }

    /// Whether anything is pending whose needs `suits` says yes to.
    pub fn has_pending(&self, mut suits: impl FnMut(&Requirements) -> bool) -> bool {
        let index = self.index.read();
        index.pending.all().any(|(needs, _)| suits(needs))
    }
}
