//! What is known about every item without reading its record: a header each, in ordered indexes.
//!
//! Per unfinished item this costs at most 250 bytes together with its place in the dispatcher's
//! queue: the header (about 120), its id in the map of ids (about 36), its place in the order of
//! its status (about 30), its place in the queue (about 45).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use loom_protocol::rest::WorkTotals;
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, Timestamp, WorkId};
use slab::Slab;

use crate::domain::work::{LeaseEnd, WorkRecord};

/// What an item needs of an agent. Items with the same needs share one value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Needs {
    /// The capability.
    pub capability: Arc<str>,
    /// The boundary.
    pub boundary: Arc<str>,
    /// The only agent type that may take it.
    pub required_agent_type: Option<Arc<str>>,
    /// The agent type that is served first.
    pub preferred_agent_type: Option<Arc<str>>,
}

/// An item without its texts.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "documented in loom_protocol::work::WorkItem")]
pub struct Header {
    pub id: WorkId,
    /// The sequence of the write that created it: its age, and its place in every order.
    pub created: u64,
    pub revision: u64,
    pub needs: Arc<Needs>,
    pub status: WorkStatus,
    pub priority: u8,
    pub attempt: u32,
    pub offered_at: Timestamp,
    pub updated_at: Timestamp,
    /// Zero: none.
    not_before: Timestamp,
    pub holder: Option<AgentGuid>,
    labels: Option<Box<[(Box<str>, Box<str>)]>>,
}

impl Header {
    /// Not to be offered before.
    pub fn not_before(&self) -> Option<Timestamp> {
        (self.not_before != Timestamp::default()).then_some(self.not_before)
    }

    fn has_label(&self, wanted: &str) -> bool {
        self.labels.iter().flatten().any(|(name, value)| {
            &**name == wanted
                || wanted
                    .strip_prefix(&**name)
                    .and_then(|rest| rest.strip_prefix('='))
                    == Some(&**value)
        })
    }
}

/// A lease, as far as it is known without the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Which item.
    pub id: WorkId,
    /// Its fence.
    pub attempt: u32,
    /// Whether the agent has started.
    pub started: bool,
    /// The agent's name for the claim.
    pub claim_id: Option<Box<str>>,
    /// When it was given.
    pub assigned_at: Timestamp,
    /// The item's own progress clock.
    pub timeout_ms: Option<u64>,
}

/// Which items a listing wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these statuses; empty: all.
    pub statuses: Vec<WorkStatus>,
    /// Of this capability.
    pub capability: Option<String>,
    /// Of this boundary.
    pub boundary: Option<String>,
    /// Held, or last held, by this agent.
    pub holder: Option<AgentGuid>,
    /// With this label: `name` or `name=value`.
    pub label: Option<String>,
}

impl Filter {
    fn matches(&self, header: &Header) -> bool {
        let same = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w == has);
        same(&self.capability, &header.needs.capability)
            && same(&self.boundary, &header.needs.boundary)
            && self.holder.is_none_or(|guid| header.holder == Some(guid))
            && self
                .label
                .as_deref()
                .is_none_or(|label| header.has_label(label))
    }

    fn is_by_status_only(&self) -> bool {
        self.capability.is_none()
            && self.boundary.is_none()
            && self.holder.is_none()
            && self.label.is_none()
    }
}

/// One page of headers.
#[derive(Debug, Clone, Default)]
pub struct HeaderPage {
    /// In the order of their creation.
    pub headers: Vec<Header>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
    /// Where the page before begins, if there is one.
    pub previous: Option<u64>,
    /// How many items have one of the wanted statuses.
    pub total: usize,
}

/// How many headers one page may look at: a rare label makes short pages, not long waits.
const SCAN_BUDGET: usize = 20_000;

/// What became of an item, for whoever schedules.
#[derive(Debug, Clone)]
pub struct ItemChange {
    /// The item now.
    pub header: Header,
    /// The agent whose lease on it has just ended.
    pub freed: Option<AgentGuid>,
    /// Whether that agent gave it back itself.
    pub released: bool,
}

/// The index. Written by the ledger only.
#[derive(Debug, Default)]
pub(super) struct Index {
    headers: Slab<Header>,
    ids: BTreeMap<WorkId, u32>,
    orders: [BTreeMap<u64, u32>; WorkStatus::ALL.len()],
    /// Completed and cancelled items by their last write: who goes first when there are too many.
    finished: BTreeMap<u64, u32>,
    leases: HashMap<AgentGuid, Vec<LeaseInfo>>,
    needs: HashMap<Arc<Needs>, usize>,
    pending_by_needs: HashMap<Arc<Needs>, usize>,
    last_activity: Option<Timestamp>,
}

fn place(status: WorkStatus) -> usize {
    WorkStatus::ALL
        .iter()
        .position(|known| *known == status)
        .unwrap_or(WorkStatus::ALL.len() - 1)
}

impl Index {
    /// Takes a record over, unless a newer one is known.
    pub fn apply(&mut self, record: &WorkRecord, revision: u64) -> Option<ItemChange> {
        let before = self.get(record.id).cloned();
        if before.as_ref().is_some_and(|b| b.revision >= revision) {
            return None;
        }
        self.remove(record.id);
        let header = self.header(record, revision);
        let slot = u32::try_from(self.headers.insert(header.clone())).unwrap_or(u32::MAX);
        self.ids.insert(header.id, slot);
        self.orders[place(header.status)].insert(header.created, slot);
        match header.status {
            WorkStatus::Pending => {
                *self
                    .pending_by_needs
                    .entry(header.needs.clone())
                    .or_default() += 1;
            }
            WorkStatus::Completed | WorkStatus::Cancelled => {
                self.finished.insert(revision, slot);
            }
            _ => {}
        }
        if header.status.is_leased()
            && let Some(lease) = &record.lease
        {
            self.leases
                .entry(lease.holder.guid)
                .or_default()
                .push(LeaseInfo {
                    id: record.id,
                    attempt: record.attempt,
                    started: record.status == WorkStatus::InProgress,
                    claim_id: lease.claim_id.as_deref().map(Into::into),
                    assigned_at: lease.assigned_at,
                    timeout_ms: record.timeout_ms,
                });
        }
        self.last_activity = self.last_activity.max(Some(header.updated_at));
        let freed = before
            .filter(|before| before.status.is_leased())
            .filter(|before| !header.status.is_leased() || before.attempt != header.attempt)
            .and_then(|before| before.holder);
        let released = freed.is_some()
            && record
                .ended_lease
                .as_ref()
                .is_some_and(|ended| ended.end == LeaseEnd::Released);
        Some(ItemChange {
            header,
            freed,
            released,
        })
    }

    /// Forgets an item.
    pub fn remove(&mut self, id: WorkId) -> Option<Header> {
        let slot = self.ids.remove(&id)?;
        let header = self.headers.try_remove(slot as usize)?;
        self.orders[place(header.status)].remove(&header.created);
        self.finished.remove(&header.revision);
        if header.status == WorkStatus::Pending {
            forget_one(&mut self.pending_by_needs, &header.needs);
        }
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

    fn header(&mut self, record: &WorkRecord, revision: u64) -> Header {
        let labels: Box<[_]> = record
            .labels
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect();
        Header {
            id: record.id,
            created: record.created_at_sequence(revision),
            revision,
            needs: self.shared_needs(record),
            status: record.status,
            priority: record.priority,
            attempt: record.attempt,
            offered_at: record.offered_at,
            updated_at: record.updated_at,
            not_before: record.not_before.unwrap_or_default(),
            holder: record.lease.as_ref().map(|lease| lease.holder.guid),
            labels: (!labels.is_empty()).then_some(labels),
        }
    }

    fn shared_needs(&mut self, record: &WorkRecord) -> Arc<Needs> {
        let needs = Needs {
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

    pub fn pending(&self) -> impl Iterator<Item = &Header> {
        self.orders[place(WorkStatus::Pending)]
            .values()
            .filter_map(|slot| self.headers.get(*slot as usize))
    }

    pub fn pending_by_needs(&self) -> impl Iterator<Item = (&Needs, usize)> {
        self.pending_by_needs
            .iter()
            .map(|(needs, count)| (&**needs, *count))
    }

    pub fn last_activity(&self) -> Option<Timestamp> {
        self.last_activity
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

    /// The first `limit` ids from `first` to `last`.
    pub fn ids_between(&self, first: WorkId, last: WorkId, limit: usize) -> Vec<WorkId> {
        let ids = self.ids.range(first..=last);
        ids.map(|(id, _)| *id).take(limit).collect()
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

    /// The page after `after` (a creation sequence; 0: the first).
    pub fn page(&self, filter: &Filter, after: u64, limit: usize) -> HeaderPage {
        let orders: Vec<&BTreeMap<u64, u32>> = if filter.statuses.is_empty() {
            self.orders.iter().collect()
        } else {
            let mut statuses = filter.statuses.clone();
            statuses.sort_unstable();
            statuses.dedup();
            statuses
                .into_iter()
                .map(|status| &self.orders[place(status)])
                .collect()
        };
        let mut page = HeaderPage {
            total: orders.iter().map(|order| order.len()).sum(),
            ..HeaderPage::default()
        };
        let mut cursors: Vec<_> = orders
            .iter()
            .map(|order| {
                order
                    .range((Bound::Excluded(after), Bound::Unbounded))
                    .peekable()
            })
            .collect();
        let mut seen = after;
        for _ in 0..SCAN_BUDGET {
            let Some(next) = cursors
                .iter_mut()
                .filter_map(|cursor| Some((*cursor.peek()?.0, cursor)))
                .min_by_key(|(created, _)| *created)
                .and_then(|(_, cursor)| cursor.next())
            else {
                return self.with_previous(page, &orders, filter, after, limit);
            };
            if page.headers.len() == limit {
                page.next = Some(seen);
                return self.with_previous(page, &orders, filter, after, limit);
            }
            seen = *next.0;
            if let Some(header) = self.headers.get(*next.1 as usize)
                && filter.matches(header)
            {
                page.headers.push(header.clone());
            }
        }
        page.next = Some(seen);
        self.with_previous(page, &orders, filter, after, limit)
    }

    /// Where the page before `after` begins: `limit` matches back.
    fn with_previous(
        &self,
        mut page: HeaderPage,
        orders: &[&BTreeMap<u64, u32>],
        filter: &Filter,
        after: u64,
        limit: usize,
    ) -> HeaderPage {
        if after == 0 {
            return page;
        }
        let mut cursors: Vec<_> = orders
            .iter()
            .map(|order| order.range(..=after).rev().peekable())
            .collect();
        let mut left = limit;
        for _ in 0..SCAN_BUDGET {
            let Some((created, slot)) = cursors
                .iter_mut()
                .filter_map(|cursor| Some((*cursor.peek()?.0, cursor)))
                .max_by_key(|(created, _)| *created)
                .and_then(|(_, cursor)| cursor.next())
            else {
                break;
            };
            let matches = filter.is_by_status_only()
                || self
                    .headers
                    .get(*slot as usize)
                    .is_some_and(|header| filter.matches(header));
            if matches {
                if left == 0 {
                    page.previous = Some(*created);
                    return page;
                }
                left -= 1;
            }
        }
        page.previous = Some(0);
        page
    }
}

fn forget_one(counts: &mut HashMap<Arc<Needs>, usize>, needs: &Arc<Needs>) {
    if let Some(count) = counts.get_mut(needs) {
        *count -= 1;
        if *count == 0 {
            counts.remove(needs);
        }
    }
}

#[cfg(test)]
impl Header {
    /// A pending item for the tests of those who schedule.
    pub(crate) fn for_test(
        id: WorkId,
        created: u64,
        priority: u8,
        needs: Needs,
        not_before: Timestamp,
    ) -> Self {
        Self {
            id,
            created,
            revision: created,
            needs: Arc::new(needs),
            status: WorkStatus::Pending,
            priority,
            attempt: 0,
            offered_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            not_before,
            holder: None,
            labels: None,
        }
    }
}
