//! The read model of a project's agents.
//!
//! Belongs to the project's tree and survives a restart of the actor. Only the AgentRegistry
//! writes entries; last signs of life and lease counts are atomics that their finders set.
//! Reads never wait for the actor, and cost what they return.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loom_protocol::agent::{
    Agent, AgentStatus, Directive, DirectiveKind, HeartbeatRequest, UnreadableEntry,
};
use loom_protocol::rest::{AgentTotals, PageInfo};
use loom_protocol::{AgentGuid, Timestamp, WireError};
use parking_lot::{Mutex, RwLock};

use super::AgentChange;
use super::entry::{AgentEntry, Vitals};
use super::index::{Direction, Index, Place, Selection};
use super::page::{AgentFilter, AgentsFound, Cursor, places_of_page};
use super::pauses::Limit;
use crate::domain::agent::{RunVerdict, on_heartbeat, reason_heard, run_verdict};
use crate::domain::breaker::{AttemptEnd, BreakerTerms, Streak};
use crate::domain::id_prefix;
use crate::hashing::{DashMap, HashMap, HashSet};
use crate::notifier::Notifier;

/// How many agents are looked at for the type that an item may go to.
const LOOKED_AT_FOR_A_TYPE: usize = 16;
/// Of how many agents that left it is known what they had failed.
const MAX_LEFT_STREAKS: usize = 10_000;

/// Whose a published report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOrigin {
    /// Of the run that was registered when it was published, or of one that names itself not.
    Registered,
    /// Of one that had been replaced by then: it is no sign of life and changes nothing.
    Replaced,
    /// Of one that has not registered, as far as is known. A put into a bucket of agents that makes it the
    /// registered one may be on its way.
    Unknown,
}

/// Gives how many items an agent has leased to whoever asks, while that number cannot change.
type LeaseCount = Box<dyn Fn(AgentGuid, &dyn Fn(usize)) + Send + Sync>;

/// How many changes are kept for each who listens.
const CHANGES_KEPT: usize = 1024;

/// The read model. Shared as `Arc<AgentDirectory>`.
pub struct AgentDirectory {
    pub(super) agents: DashMap<AgentGuid, Arc<AgentEntry>>,
    changes: Notifier<(AgentGuid, AgentChange)>,
    losses: Notifier<Arc<AgentEntry>>,
    departures: Notifier<Arc<AgentEntry>>,
    pub(super) index: RwLock<Index>,
    lease_count: LeaseCount,
    /// What agents had failed in a row when they left: one that fails an item, leaves and comes back does not
    /// begin anew.
    left_streaks: DashMap<AgentGuid, Streak>,
    loaded: AtomicBool,
    /// Entries of the bucket that cannot be read, by key.
    unreadable: RwLock<BTreeMap<String, UnreadableEntry>>,
    /// Agents whose number of items has changed since somebody was told.
    recounted: Mutex<HashSet<AgentGuid>>,
    recounts: Notifier<()>,
    /// Usage limits that were met, by group.
    pub(super) limits: RwLock<HashMap<String, Limit>>,
}

impl AgentDirectory {
    /// An empty directory of agents that have no items.
    pub fn new() -> Arc<Self> {
        Self::with_leases(|_, _| {})
    }

    /// An empty directory. `lease_count` gives how many items an agent has leased, while that number cannot change: it
    /// is asked when an agent comes, and whenever it changes later [`set_lease_count`](Self::set_lease_count) is told.
    pub fn with_leases(
        lease_count: impl Fn(AgentGuid, &dyn Fn(usize)) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            agents: DashMap::default(),
            changes: Notifier::new(CHANGES_KEPT),
            losses: Notifier::new(CHANGES_KEPT),
            departures: Notifier::new(CHANGES_KEPT),
            index: RwLock::default(),
            lease_count: Box::new(lease_count),
            left_streaks: DashMap::default(),
            loaded: AtomicBool::new(false),
            unreadable: RwLock::default(),
            recounted: Mutex::default(),
            recounts: Notifier::new(1),
            limits: RwLock::default(),
        })
    }

    /// Every change of an agent is told here, by the actor.
    pub const fn changes(&self) -> &Notifier<(AgentGuid, AgentChange)> {
        &self.changes
    }

    /// Every agent that is online or busy no longer, or can do something else, as it was; told before the change, while
    /// the index is locked: a hook asks this directory nothing.
    pub const fn losses(&self) -> &Notifier<Arc<AgentEntry>> {
        &self.losses
    }

    /// Every agent that is not there any more, as it was last; told by the actor, once it has gone.
    pub const fn departures(&self) -> &Notifier<Arc<AgentEntry>> {
        &self.departures
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
        Some(entry.agent().status)
    }

    /// From which run of an agent something comes that was published then. Of an agent that is not there
    /// every run counts: nobody contradicts it.
    pub fn report_origin(
        &self,
        guid: AgentGuid,
        run: Option<&str>,
        published: Timestamp,
    ) -> ReportOrigin {
        let verdict = self.get(guid).map(|entry| run_verdict(entry.agent(), run));
        match verdict {
            Some(RunVerdict::Replaced(at)) if at.is_none_or(|at| at <= published) => {
                ReportOrigin::Replaced
            }
            Some(RunVerdict::Unknown) => ReportOrigin::Unknown,
            _ => ReportOrigin::Registered,
        }
    }

    /// Applies a heartbeat that changes nothing but numbers; answers the orders that are open.
    /// `None` where the registry has to decide: the agent is unknown, its status changes, or another
    /// run of it speaks.
    pub(super) fn beat(
        &self,
        heartbeat: &HeartbeatRequest,
        now: Timestamp,
    ) -> Option<Vec<Directive>> {
        let entry = self.get(heartbeat.guid)?;
        entry.admit(heartbeat.instance_id.as_deref()).ok()?;
        let directives = entry.directives();
        let leaving = directives
            .iter()
            .any(|directive| directive.kind == DirectiveKind::Shutdown);
        let agent = entry.agent();
        let said = (heartbeat.status, heartbeat.status_reason.as_deref());
        if on_heartbeat(agent.status, said.0, leaving) != agent.status
            || reason_heard(agent.status_reason.as_deref(), said.0, said.1) != agent.status_reason
        {
            return None;
        }
        entry.touch(now);
        if let Some(count) = heartbeat.current_task_count {
            self.count(&entry, count);
        }
        Some(directives)
    }

    /// Takes note of how an attempt of an agent ended. Whether the agent is broken now.
    pub fn note_attempt(&self, guid: AgentGuid, end: AttemptEnd, terms: &BreakerTerms) -> bool {
        self.get(guid)
            .is_some_and(|entry| entry.note_attempt(end, terms))
    }

    /// Sets how many items an agent has leased; it had to do with work `now`. One that is not known is asked about
    /// when it comes.
    pub fn set_lease_count(&self, guid: AgentGuid, leases: usize, now: Timestamp) {
        if let Some(entry) = self.get(guid)
            && entry.set_leases(leases, now)
        {
            self.note_recount(guid);
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
        self.unreadable.read().len()
    }

    /// The entries of the bucket that cannot be read, by key; at most `limit`.
    pub fn unreadable(&self, limit: usize) -> Vec<UnreadableEntry> {
        let entries = self.unreadable.read();
        entries.values().take(limit).cloned().collect()
    }

    /// Whether an entry is noted with this revision.
    pub(super) fn is_noted(&self, key: &str, revision: u64) -> bool {
        let entries = self.unreadable.read();
        entries
            .get(key)
            .is_some_and(|entry| entry.revision == revision)
    }

    /// Notes an entry that cannot be read, unless there are `most` already.
    pub(super) fn note_unreadable(&self, entry: UnreadableEntry, most: usize) {
        let mut entries = self.unreadable.write();
        if entries.len() < most || entries.contains_key(&entry.key) {
            entries.insert(entry.key.clone(), entry);
        }
    }

    pub(super) fn forget_unreadable(&self, key: &str) {
        self.unreadable.write().remove(key);
    }

    pub(super) fn forget_all_unreadable(&self) {
        self.unreadable.write().clear();
    }

    /// Calls `alarm` when agents begin to have another number of items, until they are taken by
    /// [`AgentDirectory::take_recounted`]. It must not wait.
    pub(super) fn on_recount(&self, alarm: impl Fn() + Send + Sync + 'static) {
        self.recounts.hook("agent-registry", move |()| alarm());
        if !self.recounted.lock().is_empty() {
            self.recounts.notify(());
        }
    }

    /// Notes how many items an agent says that it has.
    pub(super) fn count(&self, entry: &AgentEntry, count: u32) {
        if entry.set_own_count(count) {
            self.note_recount(entry.agent().guid);
        }
    }

    fn note_recount(&self, guid: AgentGuid) {
        let is_first = {
            let mut recounted = self.recounted.lock();
            recounted.insert(guid) && recounted.len() == 1
        };
        if is_first {
            self.recounts.notify(());
        }
    }

    pub(super) fn take_recounted(&self) -> HashSet<AgentGuid> {
        std::mem::take(&mut *self.recounted.lock())
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

    /// The type of an agent that may take what asks for this, and is there: the first of the few that are looked at.
    pub fn type_for(&self, capability: &str, boundary: &str) -> Option<String> {
        let filter = AgentFilter {
            capability: Some(capability.to_owned()),
            boundary: Some(boundary.to_owned()),
            ..AgentFilter::default()
        };
        let index = self.index.read();
        let mut selection = index.selection(&filter)?;
        let mut from = Bound::Unbounded;
        for _ in 0..LOOKED_AT_FOR_A_TYPE {
            let place = selection.seek(Direction::Forward, from)?;
            from = Bound::Excluded(place);
            let present = self.get(place.guid).filter(|entry| {
                !matches!(
                    entry.agent().status,
                    AgentStatus::Offline | AgentStatus::Quarantined | AgentStatus::Draining
                )
            });
            if let Some(entry) = present {
                return Some(entry.agent().agent_type.clone());
            }
        }
        None
    }

    /// The guids that begin with a text, at most `limit`; none where no guid begins like that.
    pub fn guids_like(&self, text: &str, limit: usize) -> Vec<AgentGuid> {
        id_prefix::bounds(text).map_or_else(Vec::new, |(first, last)| {
            self.index.read().guids_between(first, last, limit)
        })
    }

    /// The agents with this handle. All are looked through: no index is kept for what people type.
    pub fn guids_of_handle(&self, handle: &str) -> Vec<AgentGuid> {
        let named = self
            .agents
            .iter()
            .filter(|entry| entry.agent().handle == handle);
        let mut guids: Vec<AgentGuid> = named.map(|entry| *entry.key()).collect();
        guids.sort_unstable();
        guids
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
        let known = self.get(agent.guid);
        let vitals = if let Some(old) = &known {
            index.remove(old.agent());
            old.vitals()
        } else {
            let streak = self.left_streaks.remove(&agent.guid);
            let streak = streak.map(|(_, streak)| streak).unwrap_or_default();
            Arc::new(Vitals::of(&agent, streak))
        };
        index.insert(&agent);
        let before = known.as_deref().map(AgentEntry::agent);
        let is_lost = index.present.replace(before, Some(&agent));
        if let Some(known) = known.as_ref().filter(|_| is_lost) {
            self.losses.notify(Arc::clone(known));
        }
        let entry = Arc::new(AgentEntry::new(agent, vitals));
        let guid = entry.agent().guid;
        self.agents.insert(guid, Arc::clone(&entry));
        drop(index);
        if known.is_none() {
            // Only now: from here on a change of the number is told.
            (self.lease_count)(guid, &|leases| entry.begin_with_leases(leases));
        }
        entry
    }

    /// Forgets an agent.
    pub(super) fn remove(&self, guid: AgentGuid) -> Option<Arc<AgentEntry>> {
        let mut index = self.index.write();
        let (_, entry) = self.agents.remove(&guid)?;
        index.remove(entry.agent());
        if index.present.replace(Some(entry.agent()), None) {
            self.losses.notify(Arc::clone(&entry));
        }
        self.keep_streak(guid, entry.streak());
        Some(entry)
    }

    fn keep_streak(&self, guid: AgentGuid, streak: Streak) {
        if streak == Streak::default() {
            return;
        }
        if self.left_streaks.len() >= MAX_LEFT_STREAKS {
            let any = self.left_streaks.iter().next().map(|entry| *entry.key());
            any.and_then(|any| self.left_streaks.remove(&any));
        }
        self.left_streaks.insert(guid, streak);
    }

    pub(super) fn set_loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }
}

impl fmt::Debug for AgentDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentDirectory")
            .field("agents", &self.agents.len())
            .field("loaded", &self.loaded)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
