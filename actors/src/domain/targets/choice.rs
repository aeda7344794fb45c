//! The targets of a project, indexed by what they serve, so that a choice costs the same with ten targets and with ten
//! thousand.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use loom_protocol::Timestamp;

use super::{Need, TargetProfile};

/// What a list of targets has in common. `None`: whatever the need says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LaneKey {
    capability: Arc<str>,
    /// `None`: targets that serve any boundary.
    boundary: Option<Arc<str>>,
    /// `None`: targets of every type.
    agent_type: Option<Arc<str>>,
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
    startable: Option<(Option<Timestamp>, K)>,
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
            startable: standing
                .is_startable
                .then(|| (standing.last_used, key.clone())),
        };
        for lane in &member.lanes {
            let lane = self.lanes.entry(lane.clone()).or_default();
            lane.members += 1;
            lane.capacity += member.capacity;
            lane.startable.extend(member.startable.clone());
        }
        self.members.insert(key, member);
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
            if let Some(place) = &member.startable {
                lane.startable.remove(place);
            }
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

    /// The target that starts the next agent for a need: of the preferred type where one may, else of any that the need
    /// allows; of several the least recently used. Costs O(log n).
    pub fn pick(&self, need: &Need, preferred: Option<&Arc<str>>) -> Option<&K> {
        let required = need.required_agent_type.as_ref();
        let preferred = preferred.filter(|preferred| required.is_none_or(|r| r == *preferred));
        preferred
            .and_then(|preferred| self.least_recently_used(need, Some(preferred)))
            .or_else(|| self.least_recently_used(need, required))
    }

    fn least_recently_used(&self, need: &Need, agent_type: Option<&Arc<str>>) -> Option<&K> {
        let lanes = self.lanes_for(need, agent_type);
        let firsts = lanes.filter_map(|lane| lane.startable.first());
        firsts.min().map(|(_, key)| key)
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
