//! The read model of a project's agents.
//!
//! Belongs to the project's tree and survives a restart of the actor. Only the AgentRegistry
//! writes entries; last signs of life and lease counts are atomics that their finders set.
//! Reads never wait for the actor, and cost what they return.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};

use dashmap::DashMap;
use loom_protocol::agent::{
    Agent, AgentStatus, Directive, DirectiveKind, HeartbeatRequest, ListAgentsRequest,
};
use loom_protocol::rest::{AgentTotals, PageInfo};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};
use parking_lot::{Mutex, RwLock};

use super::index::{Direction, Index, Place, Selection};
use crate::domain::agent::{MAX_CONCURRENT_TASKS, hear};
use crate::domain::id_prefix;
use crate::domain::matching::Candidate;

/// How many candidates an ambiguous prefix names.
const CANDIDATES_SHOWN: usize = 5;
/// How many orders an agent may have open; it holds at most as many items.
const MAX_DIRECTIVES: usize = 2 * MAX_CONCURRENT_TASKS as usize;

/// What changes too often to be part of a snapshot. One for each agent, shared by its snapshots.
#[derive(Debug, Default)]
struct Vitals {
    last_seen: AtomicI64,
    last_activity: AtomicI64,
    leases: AtomicU32,
    own_count: AtomicU32,
    directives: Mutex<Vec<Directive>>,
}

/// One agent: an immutable snapshot, and the numbers that move between snapshots.
#[derive(Debug)]
pub struct AgentEntry {
    agent: Agent,
    vitals: Arc<Vitals>,
}

impl AgentEntry {
    /// The agent as it was when it last changed; counts and times may be older than those of
    /// [`AgentEntry::snapshot`].
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// When the agent last gave a sign of life.
    pub fn last_seen(&self) -> Timestamp {
        Timestamp::from_millis(self.vitals.last_seen.load(Ordering::Relaxed))
    }

    /// When the agent last had to do with work.
    pub fn last_activity(&self) -> Timestamp {
        Timestamp::from_millis(self.vitals.last_activity.load(Ordering::Relaxed))
    }

    /// How many items it has leased.
    pub fn leases(&self) -> u32 {
        self.vitals.leases.load(Ordering::Relaxed)
    }

    /// How many more items it may lease.
    pub fn free_slots(&self) -> u32 {
        self.agent
            .max_concurrent_tasks
            .saturating_sub(self.leases())
    }

    /// The agent as clients see it, now.
    pub fn snapshot(&self) -> Agent {
        let own_count = self.vitals.own_count.load(Ordering::Relaxed);
        Agent {
            current_task_count: own_count.max(self.leases()),
            last_heartbeat: self.last_seen(),
            last_activity: self.last_activity(),
            ..self.agent.clone()
        }
    }

    /// The agent as one side of [`may_take`](crate::domain::matching::may_take). `held_off`:
    /// whether it gave the item in question back a moment ago.
    pub fn candidate(&self, held_off: bool) -> Candidate<'_> {
        Candidate {
            agent_type: &self.agent.agent_type,
            capabilities: &self.agent.capabilities,
            boundaries: &self.agent.boundaries,
            status: self.agent.status,
            leases: self.leases(),
            slots: self.agent.max_concurrent_tasks,
            held_off,
        }
    }

    /// The orders that the agent has not obeyed yet.
    pub fn directives(&self) -> Vec<Directive> {
        self.vitals.directives.lock().clone()
    }

    /// Whether it was told to end and has not yet.
    pub fn is_leaving(&self) -> bool {
        self.shutdown_order().is_some()
    }

    pub(super) fn shutdown_order(&self) -> Option<Directive> {
        let directives = self.vitals.directives.lock();
        directives
            .iter()
            .find(|directive| directive.kind == DirectiveKind::Shutdown)
            .cloned()
    }

    /// Adds an order; one about the same thing is replaced. `false` where there are too many.
    pub(super) fn add_directive(&self, directive: Directive) -> bool {
        let mut directives = self.vitals.directives.lock();
        directives.retain(|other| !same_order(other, &directive));
        let room = directives.len() < MAX_DIRECTIVES;
        if room {
            directives.push(directive);
        }
        room
    }

    /// Takes back the order about the same thing.
    pub(super) fn clear_directive(&self, directive: &Directive) {
        let mut directives = self.vitals.directives.lock();
        directives.retain(|other| !same_order(other, directive));
    }

    /// Forgets the orders that an earlier run was given. `certain`: it is known to be another
    /// run, which holds nothing; else only the order to end is void.
    pub(super) fn begin_anew(&self, certain: bool) {
        if certain {
            self.set_own_count(0);
        }
        let mut directives = self.vitals.directives.lock();
        directives.retain(|order| !certain && order.kind != DirectiveKind::Shutdown);
    }

    pub(super) fn set_own_count(&self, count: u32) {
        self.vitals.own_count.store(count, Ordering::Relaxed);
    }

    pub(super) fn touch(&self, now: Timestamp) {
        self.vitals
            .last_seen
            .fetch_max(now.as_millis(), Ordering::Relaxed);
    }
}

/// Whether two orders are about the same thing.
fn same_order(one: &Directive, other: &Directive) -> bool {
    let about = |order: &Directive| (order.kind, order.work_item_id, order.attempt);
    about(one) == about(other)
}

/// Which agents a listing is about; each field that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Only of this type.
    pub agent_type: Option<String>,
    /// Only of this status.
    pub status: Option<AgentStatus>,
    /// Only with this capability.
    pub capability: Option<String>,
    /// Only in this boundary.
    pub boundary: Option<String>,
}

impl AgentFilter {
    /// The filter of a request. A status that does not exist is refused.
    pub fn of(request: &ListAgentsRequest) -> Result<Self, WireError> {
        let status = request.status.as_deref().map(|text| {
            AgentStatus::parse(text).ok_or_else(|| {
                let known = AgentStatus::ALL.map(AgentStatus::as_str).join(", ");
                let shown: String = text.chars().take(64).collect();
                WireError::invalid(format!("status {shown:?} is none of {known}"))
            })
        });
        Ok(Self {
            agent_type: request.agent_type.clone(),
            status: status.transpose()?,
            capability: request.capability.clone(),
            boundary: request.boundary.clone(),
        })
    }
}

/// One page of agents.
#[derive(Debug, Clone)]
pub struct AgentsFound {
    /// The agents, by registration and then by guid.
    pub agents: Vec<Agent>,
    /// Where the page stands. `total` is exact for at most one filter and for a listing that fits
    /// on one page; else it says how many there are at the most.
    pub info: PageInfo,
    /// How many entries of the indexes were looked at.
    pub examined: usize,
}

/// The read model. Shared as `Arc<AgentDirectory>`.
#[derive(Debug, Default)]
pub struct AgentDirectory {
    agents: DashMap<AgentGuid, Arc<AgentEntry>>,
    index: RwLock<Index>,
    /// Lease counts that were set before (or after) the agent itself was known.
    early_leases: DashMap<AgentGuid, u32>,
    loaded: AtomicBool,
    quarantined: AtomicUsize,
}

impl AgentDirectory {
    /// An empty directory.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// An agent, in constant time.
    pub fn get(&self, guid: AgentGuid) -> Option<Arc<AgentEntry>> {
        self.agents.get(&guid).map(|entry| Arc::clone(&entry))
    }

    /// An agent as clients see it, now.
    pub fn snapshot(&self, guid: AgentGuid) -> Option<Agent> {
        self.get(guid).map(|entry| entry.snapshot())
    }

    /// Notes a sign of life. Answers the status that the agent had, `None` for an unknown one:
    /// an offline agent has to be told to the registry
    /// ([`sign_of_life`](super::AgentRegistryHandle::sign_of_life) does both).
    pub fn touch(&self, guid: AgentGuid, now: Timestamp) -> Option<AgentStatus> {
        let entry = self.get(guid)?;
        entry.touch(now);
        Some(entry.agent.status)
    }

    /// Applies a heartbeat that changes nothing but numbers; answers the orders that are open.
    /// `None` where the registry has to decide: the agent is unknown, or its status changes.
    pub(super) fn beat(
        &self,
        heartbeat: &HeartbeatRequest,
        now: Timestamp,
    ) -> Option<Vec<Directive>> {
        let entry = self.get(heartbeat.guid)?;
        let directives = entry.directives();
        let leaving = directives
            .iter()
            .any(|directive| directive.kind == DirectiveKind::Shutdown);
        let status = entry.agent.status;
        if hear(status, heartbeat.status, leaving) != status {
            return None;
        }
        entry.touch(now);
        if let Some(count) = heartbeat.current_task_count {
            entry.set_own_count(count);
        }
        Some(directives)
    }

    /// Sets how many items an agent has leased; it had to do with work `now`. The agent need not
    /// be known (yet).
    pub fn set_lease_count(&self, guid: AgentGuid, leases: u32, now: Timestamp) {
        if let Some(entry) = self.get(guid) {
            entry.vitals.leases.store(leases, Ordering::Relaxed);
            entry
                .vitals
                .last_activity
                .fetch_max(now.as_millis(), Ordering::Relaxed);
        } else if leases == 0 {
            self.early_leases.remove(&guid);
        } else {
            self.early_leases.insert(guid, leases);
        }
    }

    /// How many agents there are.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Whether the bucket has been read at least once: before, an agent that is not here may
    /// exist all the same.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// How many entries of the bucket cannot be read.
    pub fn quarantined(&self) -> usize {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// One page of the agents that match, by registration and then by guid. `cursor` is
    /// `nextCursor` or `prevCursor` of another page; one that is neither is `invalid-request`.
    pub fn find(
        &self,
        filter: &AgentFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<AgentsFound, WireError> {
        let cursor = cursor.map(Cursor::read).transpose()?;
        let index = self.index.read();
        let Some(mut selection) = index.selection(filter) else {
            return Ok(AgentsFound {
                agents: Vec::new(),
                info: PageInfo::default(),
                examined: 0,
            });
        };
        let places = places_of_page(&mut selection, cursor, limit.max(1));
        let neighbour = |selection: &mut Selection<'_>, direction, edge: Option<&Place>| {
            edge.and_then(|edge| selection.seek(direction, Bound::Excluded(*edge)))
        };
        let after = neighbour(&mut selection, Direction::Forward, places.last());
        let before = neighbour(&mut selection, Direction::Backward, places.first());
        let whole = after.is_none() && before.is_none();
        let info = PageInfo {
            count: places.len(),
            total: if whole {
                places.len()
            } else {
                selection.at_most()
            },
            has_more: after.is_some(),
            next_cursor: after
                .and(places.last())
                .map(|last| Cursor::After(*last).write()),
            prev_cursor: before
                .and(places.first())
                .map(|first| Cursor::Before(*first).write()),
        };
        let agents = places.iter().filter_map(|place| self.snapshot(place.guid));
        Ok(AgentsFound {
            agents: agents.collect(),
            info,
            examined: selection.examined,
        })
    }

    /// The one agent whose guid begins with `prefix`. Errors: `invalid-request` for what no guid
    /// begins with, `not-found`, and `invalid-request` with `details.candidates` where several do.
    pub fn resolve_prefix(&self, prefix: &str) -> Result<AgentGuid, WireError> {
        let shown: String = prefix.chars().take(64).collect();
        let Some((first, last)) = id_prefix::bounds(prefix) else {
            return Err(WireError::invalid(format!(
                "guid {shown:?} is not the beginning of a UUID; write 8-4-4-4-12 hex digits, or the first few of them"
            )));
        };
        let found = self
            .index
            .read()
            .guids_between(first, last, CANDIDATES_SHOWN + 1);
        match found.as_slice() {
            [] => Err(WireError::new(
                ErrorCode::NotFound,
                format!("no agent's guid begins with {shown:?}; list the agents to see them"),
            )),
            [guid] => Ok(*guid),
            several => {
                let candidates: Vec<String> = several
                    .iter()
                    .take(CANDIDATES_SHOWN)
                    .map(ToString::to_string)
                    .collect();
                let more = if several.len() > CANDIDATES_SHOWN {
                    " and more"
                } else {
                    ""
                };
                let names = candidates.join(", ");
                Err(WireError::invalid(format!(
                    "guid {shown:?} is the beginning of several: {names}{more}; write more of it"
                ))
                .with_details(serde_json::json!({ "candidates": candidates })))
            }
        }
    }

    /// Agents by type and status, from counters.
    pub fn totals(&self) -> AgentTotals {
        self.index.read().totals()
    }

    /// Every agent, by registration and then by guid. Costs what exists: for `work.explain`.
    pub fn all(&self) -> Vec<Arc<AgentEntry>> {
        let index = self.index.read();
        index.guids().filter_map(|guid| self.get(guid)).collect()
    }

    /// Takes an agent in, or puts a new snapshot in the place of its old one. A new agent's times
    /// and count are those of the snapshot; a known one keeps its own.
    pub(super) fn put(&self, agent: Agent) -> Arc<AgentEntry> {
        let mut index = self.index.write();
        let vitals = match self.get(agent.guid) {
            Some(old) => {
                index.remove(&old.agent);
                Arc::clone(&old.vitals)
            }
            None => Arc::new(Vitals {
                last_seen: agent.last_heartbeat.as_millis().into(),
                last_activity: agent.last_activity.as_millis().into(),
                leases: self
                    .early_leases
                    .remove(&agent.guid)
                    .map_or(0, |(_, n)| n)
                    .into(),
                own_count: agent.current_task_count.into(),
                directives: Mutex::default(),
            }),
        };
        index.insert(&agent);
        let entry = Arc::new(AgentEntry { agent, vitals });
        self.agents.insert(entry.agent.guid, Arc::clone(&entry));
        entry
    }

    /// Forgets an agent.
    pub(super) fn remove(&self, guid: AgentGuid) -> Option<Arc<AgentEntry>> {
        let mut index = self.index.write();
        let (_, entry) = self.agents.remove(&guid)?;
        index.remove(&entry.agent);
        let leases = entry.leases();
        if leases > 0 {
            self.early_leases.insert(guid, leases);
        }
        Some(entry)
    }

    pub(super) fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    pub(super) fn set_quarantined(&self, entries: usize) {
        self.quarantined.store(entries, Ordering::Relaxed);
    }
}

fn places_of_page(
    selection: &mut Selection<'_>,
    cursor: Option<Cursor>,
    limit: usize,
) -> Vec<Place> {
    match cursor {
        Some(Cursor::After(place)) => {
            selection.take(Direction::Forward, Bound::Excluded(place), limit)
        }
        Some(Cursor::Before(place)) => {
            let mut places = selection.take(Direction::Backward, Bound::Excluded(place), limit);
            places.reverse();
            places
        }
        None => selection.take(Direction::Forward, Bound::Unbounded, limit),
    }
}

/// Where a page begins or ends. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    After(Place),
    Before(Place),
}

impl Cursor {
    fn write(self) -> String {
        let (letter, place) = match self {
            Self::After(place) => ('a', place),
            Self::Before(place) => ('b', place),
        };
        format!("{letter}{}.{}", place.registered_at.as_millis(), place.guid)
    }

    fn read(text: &str) -> Result<Self, WireError> {
        Self::parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            WireError::invalid(format!(
                "cursor {shown:?} is none of ours; take nextCursor or prevCursor of a page, or leave it out"
            ))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (millis, guid) = text.get(1..)?.split_once('.')?;
        let place = Place {
            registered_at: Timestamp::from_millis(millis.parse().ok()?),
            guid: guid.parse().ok()?,
        };
        match text.as_bytes().first()? {
            b'a' => Some(Self::After(place)),
            b'b' => Some(Self::Before(place)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
