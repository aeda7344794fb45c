//! The targets of a project, indexed by what they serve, so that a choice costs the same with ten targets and with ten
//! thousand.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use loom_protocol::Timestamp;

use super::{Need, TargetProfile};

/// What a list of targets has in common. `None`: whatever the need says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    pub capability: Arc<str>,
    /// `None`: targets that serve any boundary.
    pub boundary: Option<Arc<str>>,
    /// `None`: targets of every type.
    pub agent_type: Option<Arc<str>>,
}

/// The targets of one key.
#[derive(Debug)]
struct Lane<K> {
    /// How many agents they may have together.
    capacity: u64,
    /// Those that may start one now, the least recently used first; one that was never used before all others.
    startable: BTreeSet<(Option<Timestamp>, K)>,
    /// How many targets are in it, startable or not.
    members: usize,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self {
            capacity: 0,
            startable: BTreeSet::new(),
            members: 0,
        }
    }
}

/// Where one target stands.
#[derive(Debug, Clone)]
struct Member<K> {
    lanes: Vec<LaneKey>,
    capacity: u64,
    place: (Option<Timestamp>, K),
    is_startable: bool,
}

/// Whether and since when a target is to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many agents it may have; 0 for one that is disabled.
    pub capacity: u32,
    /// Whether it may start one now.
    pub is_startable: bool,
    /// When an agent was started by it last.
    pub last_used: Option<Timestamp>,
}

/// All targets of a project. `K` tells them apart, and orders those that were used at the same time.
#[derive(Debug)]
pub struct Choice<K> {
    members: HashMap<K, Member<K>>,
    lanes: HashMap<LaneKey, Lane<K>>,
}

impl<K> Default for Choice<K> {
    fn default() -> Self {
        Self {
            members: HashMap::new(),
            lanes: HashMap::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Choice<K> {
    /// Puts a target where it belongs, in place of what was known of it.
    ///
    /// Costs the number of its capabilities times that of its boundaries.
    pub fn set(&mut self, key: K, target: &TargetProfile, standing: Standing) {
        self.remove(&key);
        let member = Member {
            lanes: lanes_of(target),
            capacity: u64::from(standing.capacity),
            place: (standing.last_used, key.clone()),
            is_startable: standing.is_startable,
        };
        for lane in &member.lanes {
            let lane = self.lanes.entry(lane.clone()).or_default();
            lane.members += 1;
            lane.capacity += member.capacity;
            if member.is_startable {
                lane.startable.insert(member.place.clone());
            }
        }
        self.members.insert(key, member);
    }

    /// A target that serves the same as before stands otherwise. Costs its lists where that matters to them.
    pub fn stand(&mut self, key: &K, standing: Standing) {
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        let capacity = u64::from(standing.capacity);
        let place = (standing.last_used, key.clone());
        let is_startable = standing.is_startable;
        let was = (member.capacity, member.is_startable);
        if was == (capacity, is_startable) && member.place == place {
            return;
        }
        for lane in &member.lanes {
            let Some(lane) = self.lanes.get_mut(lane) else {
                continue;
            };
            lane.capacity = lane.capacity - member.capacity + capacity;
            if member.is_startable {
                lane.startable.remove(&member.place);
            }
            if is_startable {
                lane.startable.insert(place.clone());
            }
        }
        member.capacity = capacity;
        member.place = place;
        member.is_startable = is_startable;
    }

    /// Whether a target may start an agent now is otherwise than it was.
    pub fn set_startable(&mut self, key: &K, is_startable: bool) {
        let Some(member) = self.members.get_mut(key) else {
            return;
        };
        member.is_startable = is_startable;
        for lane in &member.lanes {
            let Some(lane) = self.lanes.get_mut(lane) else {
                continue;
            };
            if is_startable {
                lane.startable.insert(member.place.clone());
            } else {
                lane.startable.remove(&member.place);
            }
        }
    }

    /// For which capabilities and boundaries a target starts agents.
    pub(super) fn places_of(
        &self,
        key: &K,
    ) -> impl Iterator<Item = (Arc<str>, Option<Arc<str>>)> + use<'_, K> {
        let lanes = self.members.get(key).into_iter();
        let lanes = lanes.flat_map(|member| &member.lanes);
        lanes.map(|lane| (lane.capability.clone(), lane.boundary.clone()))
    }

    /// Takes a target out.
    pub fn remove(&mut self, key: &K) {
        let Some(member) = self.members.remove(key) else {
            return;
        };
        for key in &member.lanes {
            let Some(lane) = self.lanes.get_mut(key) else {
                continue;
            };
            lane.members -= 1;
            lane.capacity -= member.capacity;
            lane.startable.remove(&member.place);
            if lane.members == 0 {
                self.lanes.remove(key);
            }
        }
    }

    /// How many agents the targets that serve a need may have together.
    pub fn capacity(&self, need: &Need) -> u64 {
        let lanes = self.lanes_for(need, need.required_agent_type.as_ref());
        lanes.map(|lane| lane.capacity).sum()
    }

    /// The targets that may start an agent for a need, in the order in which they are taken: those of the preferred type;
    /// then all that the need allows, those of the preferred type once more. Of each list the least recently used comes
    /// first, and each target costs O(log n).
    pub fn lists(
        &self,
        need: &Need,
        preferred: Option<&Arc<str>>,
    ) -> impl Iterator<Item = impl Iterator<Item = &K> + use<'_, K>> + use<'_, K> {
        let required = need.required_agent_type.as_ref();
        let preferred = preferred.filter(|preferred| required.is_none_or(|r| r == *preferred));
        let of_preferred =
            preferred.map(|preferred| self.least_recently_used(need, Some(preferred)));
        let of_all = self.least_recently_used(need, required);
        of_preferred.into_iter().chain([of_all])
    }

    fn least_recently_used(
        &self,
        need: &Need,
        agent_type: Option<&Arc<str>>,
    ) -> impl Iterator<Item = &K> + use<'_, K> {
        let lanes = self.lanes_for(need, agent_type);
        let mut places: Vec<_> = lanes.map(|lane| lane.startable.iter().peekable()).collect();
        std::iter::from_fn(move || {
            let first = places
                .iter_mut()
                .filter_map(|places| Some((*places.peek()?, places)))
                .min_by_key(|(place, _)| *place);
            first
                .and_then(|(_, places)| places.next())
                .map(|(_, key)| key)
        })
    }

    /// The two lists that serve a need: that of its boundary, and that of any.
    fn lanes_for(
        &self,
        need: &Need,
        agent_type: Option<&Arc<str>>,
    ) -> impl Iterator<Item = &Lane<K>> + use<'_, K> {
        let lane = |boundary: Option<&Arc<str>>| {
            self.lanes.get(&LaneKey {
                capability: need.capability.clone(),
                boundary: boundary.cloned(),
                agent_type: agent_type.cloned(),
            })
        };
        let both = [lane(Some(&need.boundary)), lane(None)];
        both.into_iter().flatten()
    }

    /// Whether nothing is kept of anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.lanes.is_empty()
    }
}

/// The lists that a target is in: for each capability and boundary one of its own type and one of all types.
fn lanes_of(target: &TargetProfile) -> Vec<LaneKey> {
    let boundaries: HashSet<Option<&Arc<str>>> = match target.boundaries.as_slice() {
        [] => HashSet::from([None]),
        boundaries => boundaries.iter().map(Some).collect(),
    };
    let capabilities: HashSet<&Arc<str>> = target.capabilities.iter().collect();
    let mut lanes = Vec::with_capacity(capabilities.len() * boundaries.len() * 2);
    for capability in capabilities {
        for boundary in &boundaries {
            for agent_type in [None, Some(&target.agent_type)] {
                lanes.push(LaneKey {
                    capability: capability.clone(),
                    boundary: boundary.cloned(),
                    agent_type: agent_type.cloned(),
                });
            }
        }
    }
    lanes
}
