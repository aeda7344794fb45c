//! What is asked about all targets of a project at once, kept up as their records change: which of them may start an agent
//! for a need, who is expected from them, and when the next one has rested. An answer costs what it names, not what exists.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use loom_protocol::target::TargetStatus;
use loom_protocol::{AgentGuid, SpinUpId, Timestamp};

use super::choice::{Choice, Standing};
use super::expected::Expected;
use super::{Need, TargetProfile, TargetRecord, may_start};

/// The targets of a project, as their records say. `K` tells them apart.
#[derive(Debug)]
pub struct Roster<K> {
    choice: Choice<K>,
    expected: Expected,
    /// Those that rest after a failure, and that nothing else keeps from starting agents; by the end of it.
    resting: BTreeSet<(Timestamp, K)>,
    /// The groups whose limits targets share, and how many do.
    groups: HashMap<String, usize>,
}

impl<K> Default for Roster<K> {
    fn default() -> Self {
        Self {
            choice: Choice::default(),
            expected: Expected::default(),
            resting: BTreeSet::new(),
            groups: HashMap::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Roster<K> {
    /// Takes in a target that is not in it. One that rests is released by [`release`](Self::release) only.
    pub fn insert<R: Clone>(&mut self, key: K, record: &TargetRecord<R>) {
        let target = &record.target;
        let until = rests_until(record);
        let is_enabled = target.status != TargetStatus::Disabled;
        let standing = Standing {
            capacity: if is_enabled { target.max_agents } else { 0 },
            is_startable: until.is_none() && is_able(record),
            last_used: target.last_used_at,
        };
        self.choice
            .set(key.clone(), &TargetProfile::from(target), standing);
        self.resting.extend(until.map(|until| (until, key)));
        if let Some(group) = &target.limit_group {
            *self.groups.entry(group.clone()).or_default() += 1;
        }
        self.expected.insert(record);
    }

    /// Takes out a target whose record was taken in.
    pub fn remove<R: Clone>(&mut self, key: &K, record: &TargetRecord<R>) {
        self.choice.remove(key);
        if let Some(until) = rests_until(record) {
            self.resting.remove(&(until, key.clone()));
        }
        if let Some(group) = &record.target.limit_group
            && let Some(count) = self.groups.get_mut(group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(group);
            }
        }
        self.expected.remove(record);
    }

    /// Lets those start agents that have rested. Each costs once.
    pub fn release(&mut self, now: Timestamp) {
        while let Some((until, _)) = self.resting.first()
            && *until <= now
            && let Some((_, key)) = self.resting.pop_first()
        {
            self.choice.set_startable(&key, true);
        }
    }

    /// When the next one has rested.
    pub fn next_rested(&self) -> Option<Timestamp> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// The groups whose limits targets share.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// How many agents the targets that serve a need may have together.
    pub fn capacity(&self, need: &Need) -> u64 {
        self.choice.capacity(need)
    }

    /// The targets that may start an agent for a need, as far as their own records say, in the order in which they are
    /// taken; see [`Choice::startable`].
    pub fn startable(
        &self,
        need: &Need,
        preferred: Option<&Arc<str>>,
    ) -> impl Iterator<Item = &K> + use<'_, K> {
        self.choice.startable(need, preferred)
    }

    /// The starts whose agents may take what is needed once they are there, the oldest first.
    pub fn births(&self, need: &Need) -> impl Iterator<Item = SpinUpId> + use<'_, K> {
        self.expected.births(need)
    }

    /// How many agents are being born that may take what is needed, or were born and are not known to be there.
    pub fn count_expected(&self, need: &Need, is_known: impl Fn(AgentGuid) -> bool) -> usize {
        let born = self.expected.agents(need);
        self.expected.count_births(need) + born.filter(|guid| !is_known(*guid)).count()
    }

    /// Whether nothing is kept of anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let (choice, expected) = (self.choice.is_empty(), self.expected.is_empty());
        choice && expected && self.resting.is_empty() && self.groups.is_empty()
    }
}

/// Whether nothing but a rest, or its group, may keep a target from starting an agent.
fn is_able<R: Clone>(record: &TargetRecord<R>) -> bool {
    let mut condition = record.condition(false);
    condition.cools_until = None;
    may_start(&condition, Timestamp::default()).is_ok()
}

/// The end of the rest of one that could start an agent otherwise.
fn rests_until<R: Clone>(record: &TargetRecord<R>) -> Option<Timestamp> {
    record.cools_until.filter(|_| is_able(record))
}

#[cfg(test)]
mod tests;
