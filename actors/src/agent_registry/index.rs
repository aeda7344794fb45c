//! Ordered indexes over agents: a listing costs what it returns, not what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::rest::AgentTotals;
use loom_protocol::{AgentGuid, Timestamp};

use super::AgentFilter;
use super::present::Present;

use crate::hashing::HashMap;

/// Where an agent stands in every listing: by registration, then by guid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub registered_at: Timestamp,
    pub guid: AgentGuid,
}

impl Place {
    pub(super) fn of(agent: &Agent) -> Self {
        Self {
            registered_at: agent.registered_at,
            guid: agent.guid,
        }
    }
}

type Places = BTreeSet<Place>;

/// Which way a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

impl Direction {
    /// The place of `set` that comes first from `from` on, in this direction.
    fn first(self, set: &Places, from: Bound<Place>) -> Option<Place> {
        let place = match self {
            Self::Forward => set.range((from, Bound::Unbounded)).next(),
            Self::Backward => set.range((Bound::Unbounded, from)).next_back(),
        };
        place.copied()
    }
}

/// The sets. An agent is in one by status and type, and in one for each capability and boundary.
#[derive(Debug, Default)]
pub(super) struct Index {
    all: Places,
    guids: BTreeSet<AgentGuid>,
    by_capability: HashMap<String, Places>,
    by_boundary: HashMap<String, Places>,
    by_type: BTreeMap<String, Places>,
    by_status: HashMap<AgentStatus, Places>,
    pub(super) present: Present,
}

impl Index {
    pub(super) fn insert(&mut self, agent: &Agent) {
        let place = Place::of(agent);
        self.all.insert(place);
        self.guids.insert(agent.guid);
        for capability in &agent.capabilities {
            add(&mut self.by_capability, capability, place);
        }
        for boundary in &agent.boundaries {
            add(&mut self.by_boundary, boundary, place);
        }
        if let Some(set) = self.by_type.get_mut(&agent.agent_type) {
            set.insert(place);
        } else {
            let set = Places::from([place]);
            self.by_type.insert(agent.agent_type.clone(), set);
        }
        self.by_status
            .entry(agent.status)
            .or_default()
            .insert(place);
    }

    pub(super) fn remove(&mut self, agent: &Agent) {
        let place = Place::of(agent);
        self.all.remove(&place);
        self.guids.remove(&agent.guid);
        for capability in &agent.capabilities {
            take(&mut self.by_capability, capability, place);
        }
        for boundary in &agent.boundaries {
            take(&mut self.by_boundary, boundary, place);
        }
        if let Some(set) = self.by_type.get_mut(&agent.agent_type) {
            set.remove(&place);
            if set.is_empty() {
                self.by_type.remove(&agent.agent_type);
            }
        }
        if let Some(set) = self.by_status.get_mut(&agent.status) {
            set.remove(&place);
        }
    }

    /// The sets that an agent must all be in; `None` where one of them is empty.
    pub(super) fn selection(&self, filter: &AgentFilter) -> Option<Selection<'_>> {
        let mut sets = Vec::with_capacity(5);
        if let Some(capability) = &filter.capability {
            sets.push(self.by_capability.get(capability)?);
        }
        if let Some(boundary) = &filter.boundary {
            sets.push(self.by_boundary.get(boundary)?);
        }
        if let Some(agent_type) = &filter.agent_type {
            sets.push(self.by_type.get(agent_type)?);
        }
        if let Some(status) = filter.status {
            sets.push(self.by_status.get(&status)?);
        }
        if sets.is_empty() {
            sets.push(&self.all);
        }
        sets.sort_by_key(|set| set.len());
        Some(Selection { sets, examined: 0 })
    }

    /// The guids from `first` to `last`, at most `limit` of them.
    pub(super) fn guids_between(
        &self,
        first: AgentGuid,
        last: AgentGuid,
        limit: usize,
    ) -> Vec<AgentGuid> {
        self.guids
            .range(first..=last)
            .take(limit)
            .copied()
            .collect()
    }

    pub(super) fn guids(&self) -> impl Iterator<Item = AgentGuid> {
        self.all.iter().map(|place| place.guid)
    }

    pub(super) fn totals(&self) -> AgentTotals {
        let by_type = self
            .by_type
            .iter()
            .map(|(agent_type, set)| (agent_type.clone(), set.len()))
            .collect();
        let by_status = self
            .by_status
            .iter()
            .filter(|(_, set)| !set.is_empty())
            .map(|(status, set)| (status.as_str().to_owned(), set.len()))
            .collect();
        AgentTotals {
            total: self.all.len(),
            by_type,
            by_status,
        }
    }
}

fn add(sets: &mut HashMap<String, Places>, token: &str, place: Place) {
    match sets.get_mut(token) {
        Some(set) => {
            set.insert(place);
        }
        None => {
            sets.insert(token.to_owned(), Places::from([place]));
        }
    }
}

fn take(sets: &mut HashMap<String, Places>, token: &str, place: Place) {
    if let Some(set) = sets.get_mut(token) {
        set.remove(&place);
        if set.is_empty() {
            sets.remove(token);
        }
    }
}

/// The places that are in all of some sets, smallest set first.
pub(super) struct Selection<'a> {
    sets: Vec<&'a Places>,
    /// How many places were looked at.
    pub examined: usize,
}

impl Selection<'_> {
    /// How many there can be at the most; exact where there is only one set.
    pub(super) fn at_most(&self) -> usize {
        self.sets.first().map_or(0, |set| set.len())
    }

    /// The first place from `from` on that is in every set. A set that lacks a place names the
    /// next one it has, and the search goes on there: runs that cannot match are jumped over.
    pub(super) fn seek(&mut self, direction: Direction, mut from: Bound<Place>) -> Option<Place> {
        loop {
            let mut place = None;
            let mut agreed = true;
            for set in &self.sets {
                self.examined += 1;
                let start = place.map_or(from, Bound::Included);
                let found = direction.first(set, start)?;
                if place.is_some_and(|place| place != found) {
                    agreed = false;
                    from = Bound::Included(found);
                    break;
                }
                place = Some(found);
            }
            if agreed {
                return place;
            }
        }
    }

    /// Up to `limit` places from `from` on.
    pub(super) fn take(
        &mut self,
        direction: Direction,
        mut from: Bound<Place>,
        limit: usize,
    ) -> Vec<Place> {
        let mut places = Vec::new();
        while places.len() < limit {
            let Some(place) = self.seek(direction, from) else {
                break;
            };
            places.push(place);
            from = Bound::Excluded(place);
        }
        places
    }
}
