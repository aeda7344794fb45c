//! What is known about every item without reading its record: a header each, in ordered indexes.
//!
//! Per unfinished item this costs at most 250 bytes together with its place in the dispatcher's
//! queue: the header (about 130), its id in the map of ids (about 36), its place in the order of
//! its status (about 30), its neighbours among the pending ones (8), its place in the queue (about 45).
//! One that is not to be offered before a time takes more: its place among those (about 45), and its header once more in the
//! dispatcher.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use loom_protocol::rest::WorkTotals;
use loom_protocol::work::{LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, Timestamp, WorkId};
use slab::Slab;
use tokio::time::Instant;

use super::header::{Failure, Header, ItemChange, LeaseInfo};
use super::pending::PendingNeeds;
use crate::domain::matching::Requirements;
use crate::domain::work::{LeaseEnd, WorkRecord};
use crate::hashing::HashMap;

/// In which list an item is beside the order of its status.
enum List {
    Pending,
    WithoutLetter,
    Finished,
    None,
}

impl List {
    const fn of(header: &Header) -> Self {
        match header.status {
            WorkStatus::Pending => Self::Pending,
            WorkStatus::Failed if header.wants_letter => Self::WithoutLetter,
            WorkStatus::Completed | WorkStatus::Cancelled | WorkStatus::Failed => Self::Finished,
            _ => Self::None,
        }
    }
}

/// The index. Written by the ledger only.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) headers: Slab<Header>,
    ids: BTreeMap<WorkId, u32>,
    pub(super) orders: [BTreeMap<u64, u32>; WorkStatus::ALL.len()],
    /// Items that have ended and lack nothing, by their last write: who goes first when there are too many.
    finished: BTreeMap<u64, u32>,
    /// Failed items whose dead letter is still to be written, by their last write.
    without_letter: BTreeMap<u64, u32>,
    leases: HashMap<AgentGuid, Vec<LeaseInfo>>,
    /// Cancelled while an agent held them, and the agent has not said that it stopped.
    stopping: HashMap<WorkId, (AgentGuid, u32)>,
    needs: HashMap<Arc<Requirements>, usize>,
    pub(super) pending: PendingNeeds,
    last_activity: Option<Timestamp>,
}

pub(super) fn place(status: WorkStatus) -> usize {
    WorkStatus::ALL
        .iter()
        .position(|known| *known == status)
        .unwrap_or(WorkStatus::ALL.len() - 1)
}

/// Where an item stood before a write.
#[derive(Debug, Clone, Copy)]
struct Standing {
    status: WorkStatus,
    attempt: u32,
    holder: Option<AgentGuid>,
}

impl Standing {
    fn of(header: &Header) -> Self {
        Self {
            status: header.status,
            attempt: header.attempt,
            holder: header.holder,
        }
    }

    /// The agent whose lease has ended with this write.
    fn freed_by(self, header: &Header) -> Option<AgentGuid> {
        let has_ended = !header.status.is_leased() || self.attempt != header.attempt;
        self.holder.filter(|_| self.status.is_leased() && has_ended)
    }
}

impl Index {
    /// Takes a record over, unless a newer one is known.
    ///
    /// Every write of the ledger comes by here: what a write leaves as it was is not taken out and put back.
    pub fn apply(
        &mut self,
        record: &WorkRecord,
        revision: u64,
        now: Instant,
    ) -> Option<ItemChange> {
        let slot = self.ids.get(&record.id).copied();
        let before = slot.and_then(|slot| self.headers.get(slot as usize));
        if before.is_some_and(|before| before.revision >= revision) {
            return None;
        }
        let before = before.map(Standing::of);
        let end = record.ended_lease.as_ref().map(|ended| ended.end);
        // Read before the lease is forgotten.
        let assigned_at = (end == Some(LeaseEnd::Failed))
            .then(|| self.lease(record.id).map(|(_, lease)| lease.assigned_at))
            .flatten();
        let header = match slot {
            Some(slot) if before.is_some() => self.renew(slot, record, revision),
            _ => self.add(record, revision),
        };
        self.note_lease(before, record, now);
        if header.status == WorkStatus::Cancelled
            && let (Some(lease), Some(cancel)) = (&record.lease, &record.cancel)
            && cancel.stopped_at.is_none()
        {
            let stopping = (lease.holder.guid, record.attempt);
            self.stopping.insert(record.id, stopping);
        } else if before.is_some_and(|before| before.status == WorkStatus::Cancelled) {
            self.stopping.remove(&record.id);
        }
        self.last_activity = self.last_activity.max(Some(header.updated_at));
        let freed = before.and_then(|before| before.freed_by(&header));
        let end = end.filter(|_| freed.is_some());
        let failure = assigned_at
            .filter(|_| end == Some(LeaseEnd::Failed))
            .zip(record.errors.last())
            .map(|(assigned_at, error)| Failure {
                reason: error.reason,
                after: record.updated_at.since(assigned_at),
            });
        Some(ItemChange {
            header,
            freed,
            released: end == Some(LeaseEnd::Released),
            failure,
        })
    }

    /// An item that is not known yet.
    fn add(&mut self, record: &WorkRecord, revision: u64) -> Header {
        let header = Header::of(record, revision, self.shared_needs(record));
        let slot = u32::try_from(self.headers.insert(header.clone())).unwrap_or(u32::MAX);
        self.ids.insert(header.id, slot);
        self.orders[place(header.status)].insert(header.created, slot);
        self.put_in_lists(&header, slot);
        header
    }

    /// An item that was written again.
    fn renew(&mut self, slot: u32, record: &WorkRecord, revision: u64) -> Header {
        let before = &self.headers[slot as usize];
        let are_the_same = before.needs.are(
            &record.capability,
            &record.boundary,
            record.required_agent_type.as_deref(),
            record.preferred_agent_type.as_deref(),
        );
        let needs = if are_the_same {
            before.needs.clone()
        } else {
            let before = before.needs.clone();
            let needs = self.shared_needs(record);
            forget_one(&mut self.needs, &before);
            needs
        };
        let before = &mut self.headers[slot as usize];
        let header = if before.created == record.created_at_sequence(revision) {
            before.renewed(record, revision, needs)
        } else {
            // The former one has expired: this is another item under its id.
            Header::of(record, revision, needs)
        };
        let before = std::mem::replace(before, header.clone());
        if (before.status, before.created) != (header.status, header.created) {
            self.orders[place(before.status)].remove(&before.created);
            self.orders[place(header.status)].insert(header.created, slot);
        }
        if !stays_in_its_list(&before, &header) {
            self.take_from_lists(&before, slot);
            self.put_in_lists(&header, slot);
        }
        header
    }

    fn put_in_lists(&mut self, header: &Header, slot: u32) {
        match List::of(header) {
            List::Pending => self.pending.insert(header, slot),
            List::WithoutLetter => drop(self.without_letter.insert(header.revision, slot)),
            List::Finished => drop(self.finished.insert(header.revision, slot)),
            List::None => {}
        }
    }

    fn take_from_lists(&mut self, header: &Header, slot: u32) {
        match List::of(header) {
            List::Pending => self.pending.remove(header, slot),
            List::WithoutLetter => drop(self.without_letter.remove(&header.revision)),
            List::Finished => drop(self.finished.remove(&header.revision)),
            List::None => {}
        }
    }

    /// The lease of an item before it was written, and after.
    fn note_lease(&mut self, before: Option<Standing>, record: &WorkRecord, now: Instant) {
        let holder = record.lease.as_ref().map(|lease| lease.holder.guid);
        let holder = holder.filter(|_| record.status.is_leased());
        let held = before.filter(|before| before.status.is_leased());
        if let Some(former) = held.and_then(|before| before.holder)
            && let Some(leases) = self.leases.get_mut(&former)
        {
            leases.retain(|lease| lease.id != record.id);
            if leases.is_empty() && holder != Some(former) {
                self.leases.remove(&former);
            }
        }
        if let (Some(holder), Some(lease)) = (holder, &record.lease) {
            self.leases.entry(holder).or_default().push(LeaseInfo {
                id: record.id,
                attempt: record.attempt,
                started: record.status == WorkStatus::InProgress,
                claim_id: lease.claim_id.as_deref().map(Into::into),
                assigned_at: lease.assigned_at,
                timeout_ms: record.timeout_ms,
                last_seen_at: now,
            });
        }
    }

    /// Forgets an item.
    pub fn remove(&mut self, id: WorkId) -> Option<Header> {
        let slot = self.ids.remove(&id)?;
        let header = self.headers.try_remove(slot as usize)?;
        self.orders[place(header.status)].remove(&header.created);
        self.take_from_lists(&header, slot);
        self.stopping.remove(&id);
        forget_one(&mut self.needs, &header.needs);
        if header.status.is_leased()
            && let Some(guid) = header.holder
            && let Some(leases) = self.leases.get_mut(&guid)
        {
            leases.retain(|lease| lease.id != id);
            if leases.is_empty() {
                self.leases.remove(&guid);
            }
        }
        Some(header)
    }

    fn shared_needs(&mut self, record: &WorkRecord) -> Arc<Requirements> {
        let needs = Requirements {
            capability: record.capability.as_str().into(),
            boundary: record.boundary.as_str().into(),
            required_agent_type: record.required_agent_type.as_deref().map(Into::into),
            preferred_agent_type: record.preferred_agent_type.as_deref().map(Into::into),
        };
        let shared = match self.needs.get_key_value(&needs) {
            Some((shared, _)) => shared.clone(),
            None => Arc::new(needs),
        };
        *self.needs.entry(shared.clone()).or_default() += 1;
        shared
    }

    pub fn get(&self, id: WorkId) -> Option<&Header> {
        self.headers.get(*self.ids.get(&id)? as usize)
    }

    pub fn leases_of(&self, guid: AgentGuid) -> &[LeaseInfo] {
        self.leases.get(&guid).map_or(&[], Vec::as_slice)
    }

    pub fn lease_counts(&self) -> impl Iterator<Item = (AgentGuid, usize)> {
        self.leases
            .iter()
            .map(|(guid, leases)| (*guid, leases.len()))
    }

    pub fn lease(&self, id: WorkId) -> Option<(AgentGuid, &LeaseInfo)> {
        let header = self.get(id).filter(|header| header.status.is_leased())?;
        let guid = header.holder?;
        let lease = self.leases_of(guid).iter().find(|lease| lease.id == id)?;
        Some((guid, lease))
    }

    /// Every lease.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseInfo> {
        self.leases.values().flatten()
    }

    /// Items cancelled since then that their agents may be working on still. Forgets older ones.
    pub fn stopping(&mut self, since: Timestamp) -> Vec<(AgentGuid, LeaseRef)> {
        let mut stopping = std::mem::take(&mut self.stopping);
        stopping.retain(|id, _| self.get(*id).is_some_and(|h| h.updated_at >= since));
        self.stopping = stopping;
        self.stopping
            .iter()
            .map(|(id, (guid, attempt))| {
                let (id, attempt) = (*id, *attempt);
                (*guid, LeaseRef { id, attempt })
            })
            .collect()
    }

    /// Unfinished items that have a deadline, with it.
    pub fn deadlines(&self) -> impl Iterator<Item = (WorkId, Timestamp)> {
        let unfinished = WorkStatus::ALL
            .iter()
            .filter(|status| !status.is_terminal());
        unfinished
            .flat_map(|status| self.orders[place(*status)].values())
            .filter_map(|slot| self.headers.get(*slot as usize))
            .filter_map(|header| Some((header.id, header.deadline()?)))
    }

    /// Every item, by status and then in the order of creation.
    pub fn all(&self) -> impl Iterator<Item = &Header> {
        self.orders
            .iter()
            .flat_map(BTreeMap::values)
            .filter_map(|slot| self.headers.get(*slot as usize))
    }

    pub fn pending(&self) -> impl Iterator<Item = &Header> {
        self.orders[place(WorkStatus::Pending)]
            .values()
            .filter_map(|slot| self.headers.get(*slot as usize))
    }

    /// Failed items without a dead letter, whose last write is later than `after`, in that order.
    pub fn without_letter(&self, after: u64) -> impl Iterator<Item = &Header> {
        self.without_letter
            .range((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|(_, slot)| self.headers.get(*slot as usize))
    }

    pub fn last_activity(&self) -> Option<Timestamp> {
        self.last_activity
    }

    /// When the finished item that ended first was last written.
    pub fn oldest_finished(&self) -> Option<Timestamp> {
        let slot = self.finished.values().next()?;
        Some(self.headers.get(*slot as usize)?.updated_at)
    }

    pub fn totals(&self) -> WorkTotals {
        let count = |status| self.orders[place(status)].len();
        WorkTotals {
            pending: count(WorkStatus::Pending),
            active: count(WorkStatus::Assigned) + count(WorkStatus::InProgress),
            completed: count(WorkStatus::Completed),
            failed: count(WorkStatus::Failed),
            cancelled: count(WorkStatus::Cancelled),
        }
    }

    /// How many items there are, and how many of them are kept for as long as nobody writes them again.
    pub fn counts(&self) -> (usize, usize) {
        let total = self.headers.len();
        (total, total - self.finished.len())
    }

    /// Every item that is kept, by its last write.
    pub fn kept(&self) -> HashMap<u64, WorkId> {
        let kept = self.headers.iter().map(|(_, header)| header);
        kept.filter(|header| header.is_kept())
            .map(|header| (header.revision, header.id))
            .collect()
    }

    /// How many finished items may be gone at any moment: those that are over the count or past their time.
    pub fn going(&self, keep: usize, written_before: Timestamp) -> usize {
        let surplus = self.finished.len().saturating_sub(keep);
        let headers = self.finished.values();
        headers
            .filter_map(|slot| self.headers.get(*slot as usize))
            .enumerate()
            .take_while(|(at, header)| *at < surplus || header.updated_at < written_before)
            .count()
    }

    /// The first `limit` ids from `first` to `last`.
    pub fn ids_between(&self, first: WorkId, last: WorkId, limit: usize) -> Vec<WorkId> {
        let ids = self.ids.range(first..=last);
        ids.map(|(id, _)| *id).take(limit).collect()
    }

    /// The ids whose taskId may be the one of this digest, among the headers at the places from
    /// `from` on, at most `budget` of them; and where to go on, if there are more.
    pub fn ids_of_task(
        &self,
        digest: u32,
        from: usize,
        budget: usize,
    ) -> (Vec<WorkId>, Option<usize>) {
        let end = self.headers.capacity().min(from.saturating_add(budget));
        let ids = (from..end)
            .filter_map(|slot| self.headers.get(slot))
            .filter(|header| header.task_digest == digest)
            .map(|header| header.id)
            .collect();
        (ids, (end < self.headers.capacity()).then_some(end))
    }

    /// Finished items that are over the count or past their time, oldest first, at most `limit`.
    pub fn to_forget(&self, keep: usize, written_before: Timestamp, limit: usize) -> Vec<Header> {
        let surplus = self.finished.len().saturating_sub(keep);
        self.finished
            .values()
            .filter_map(|slot| self.headers.get(*slot as usize))
            .enumerate()
            .take_while(|(at, header)| *at < surplus || header.updated_at < written_before)
            .take(limit)
            .map(|(_, header)| header.clone())
            .collect()
    }
}

/// Whether an item that was written again waits where it waited.
fn stays_in_its_list(before: &Header, header: &Header) -> bool {
    let place = |header: &Header| (header.status, header.created, header.not_before());
    header.status == WorkStatus::Pending
        && place(before) == place(header)
        && Arc::ptr_eq(&before.needs, &header.needs)
}

fn forget_one(counts: &mut HashMap<Arc<Requirements>, usize>, needs: &Arc<Requirements>) {
    if let Some(count) = counts.get_mut(needs) {
        *count -= 1;
        if *count == 0 {
            counts.remove(needs);
        }
    }
}

#[cfg(test)]
mod tests;
