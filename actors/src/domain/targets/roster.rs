//! What is asked about all targets of a project at once, kept up as their records change: which of them may start an agent
//! for a need, who is expected from them, and when the next one has rested. An answer costs what it names, not what exists.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use loom_protocol::target::{Target, TargetStatus};
use loom_protocol::{AgentGuid, SpinUpId, Timestamp};

use super::choice::{Choice, Standing};
use super::expected::Expected;
use super::places::Places;
use super::{BornRun, Need, TargetProfile, TargetRecord, may_start};

/// The targets of a project, as their records say. `K` tells them apart.
#[derive(Debug)]
pub struct Roster<K> {
    choice: Choice<K>,
    expected: Expected,
    /// Those that rest after a failure, and that nothing else keeps from starting agents; by the end of it.
    resting: BTreeSet<(Timestamp, K)>,
    /// Those of them whose rest is over, as the clock said, which may be set back.
    rested: BTreeSet<(Timestamp, K)>,
    /// The groups whose limits targets share, and how many do.
    groups: HashMap<String, usize>,
    /// Where somebody may be missing since this was taken last.
    touched: Places,
}

impl<K> Default for Roster<K> {
    fn default() -> Self {
        Self {
            choice: Choice::default(),
            expected: Expected::default(),
            resting: BTreeSet::new(),
            rested: BTreeSet::new(),
            groups: HashMap::new(),
            touched: Places::default(),
        }
    }
}

impl<K: Clone + Ord + Hash> Roster<K> {
    /// A record is another one than before, or has come, or gone.
    pub fn replace<R: Clone>(
        &mut self,
        key: &K,
        before: Option<&TargetRecord<R>>,
        now: Option<&TargetRecord<R>>,
    ) {
        match (before, now) {
            (Some(before), Some(now)) if is_alike(&before.target, &now.target) => {
                self.restand(key, before, now);
            }
            (before, now) => {
                if let Some(before) = before {
                    self.remove(key, before);
                }
                if let Some(now) = now {
                    self.insert(key.clone(), now);
                }
            }
        }
        if let Some(now) = now {
            self.touch_opened(before, now);
        }
        for lost in self.expected.replace(before, now) {
            self.touched
                .add_product(&lost.capabilities, &lost.boundaries);
        }
    }

    /// Anything may have changed.
    pub fn touch_everywhere(&mut self) {
        self.touched = Places::everywhere();
    }

    /// Where somebody may be missing because of what has changed since this was asked last.
    pub fn take_touched(&mut self) -> Places {
        std::mem::take(&mut self.touched)
    }

    /// Whether there is anything to take.
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// A target that may start agents now, or have more of them.
    fn touch_opened<R: Clone>(&mut self, before: Option<&TargetRecord<R>>, now: &TargetRecord<R>) {
        let can = |record: &TargetRecord<R>| {
            let is_startable = is_able(record) && record.cools_until.is_none();
            (is_startable, capacity(record))
        };
        let (was, is) = (before.map(can).unwrap_or_default(), can(now));
        let target = &now.target;
        let is_alike = |before: &TargetRecord<R>| is_alike(&before.target, target);
        if (is.0 && !was.0) || is.1 > was.1 || !before.is_some_and(is_alike) {
            self.touched
                .add_product(&target.capabilities, &target.boundaries);
        }
    }

    /// Takes in a target that is not in it. One that rests is released by [`release`](Self::release) only.
    fn insert<R: Clone>(&mut self, key: K, record: &TargetRecord<R>) {
        let target = &record.target;
        let until = rests_until(record);
        let profile = TargetProfile::from(target);
        self.choice
            .set(key.clone(), &profile, standing(record, until));
        self.resting.extend(until.map(|until| (until, key)));
        if let Some(group) = &target.limit_group {
            *self.groups.entry(group.clone()).or_default() += 1;
        }
    }

    /// A target that starts agents for the same as before stands otherwise, perhaps: most writes change neither whether it
    /// may start one nor where it stands among others, and cost nothing here.
    fn restand<R: Clone>(&mut self, key: &K, before: &TargetRecord<R>, now: &TargetRecord<R>) {
        let (was, is) = (rests_until(before), rests_until(now));
        let (stood, stands) = (standing(before, was), standing(now, is));
        if was == is && stood == stands {
            return;
        }
        self.forget_rest(key, was);
        self.choice.stand(key, stands);
        self.resting.extend(is.map(|until| (until, key.clone())));
    }

    fn forget_rest(&mut self, key: &K, until: Option<Timestamp>) {
        if let Some(until) = until {
            let place = (until, key.clone());
            self.resting.remove(&place);
            self.rested.remove(&place);
        }
    }

    /// Takes out a target whose record was taken in.
    fn remove<R: Clone>(&mut self, key: &K, record: &TargetRecord<R>) {
        self.choice.remove(key);
        self.forget_rest(key, rests_until(record));
        if let Some(group) = &record.target.limit_group
            && let Some(count) = self.groups.get_mut(group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(group);
            }
        }
    }

    /// Lets those start agents that have rested, and no longer those that rest once more because the clock was set back.
    /// Each costs once.
    pub fn release(&mut self, now: Timestamp) {
        while let Some((until, _)) = self.rested.last()
            && *until > now
            && let Some(place) = self.rested.pop_last()
        {
            self.choice.set_startable(&place.1, false);
            self.resting.insert(place);
        }
        while let Some((until, _)) = self.resting.first()
            && *until <= now
            && let Some(place) = self.resting.pop_first()
        {
            self.choice.set_startable(&place.1, true);
            self.touched.extend(self.choice.places_of(&place.1));
            self.rested.insert(place);
        }
    }

    /// Whether [`release`](Self::release) has anything to do.
    pub fn is_to_release(&self, now: Timestamp) -> bool {
        let is_over = |place: &(Timestamp, K)| place.0 <= now;
        self.resting.first().is_some_and(is_over)
            || self.rested.last().is_some_and(|place| !is_over(place))
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

    /// The target that starts the next agent for a need: of the preferred type where one may, else of any that the need
    /// allows; of several the one with the fewest starts that are on their way into its record (`planned`), of those the
    /// least recently used. `may`: whether one may with so many planned. Costs O(log n), and asks about those that may not.
    pub fn pick(
        &self,
        need: &Need,
        preferred: Option<&Arc<str>>,
        planned: impl Fn(&K) -> u32,
        may: impl Fn(&K, u32) -> bool,
    ) -> Option<&K> {
        self.choice.lists(need, preferred).find_map(|list| {
            let mut with_plans = Vec::new();
            for key in list {
                match planned(key) {
                    0 if may(key, 0) => return Some(key),
                    0 => {}
                    planned => with_plans.push((planned, key)),
                }
            }
            with_plans.sort_by_key(|(planned, _)| *planned);
            let mut with_plans = with_plans.into_iter();
            let found = with_plans.find(|(planned, key)| may(key, *planned));
            found.map(|(_, key)| key)
        })
    }

    /// The starts whose agents may take what is needed once they are there, the oldest first.
    pub fn births(&self, need: &Need) -> impl Iterator<Item = SpinUpId> + use<'_, K> {
        self.expected.births(need)
    }

    /// How many agents are being born that may take what is needed, or were born and are not known to be there.
    /// `is_known`: whether that run of an agent has come. It is asked about each that was born and may take it.
    pub fn count_expected(
        &self,
        need: &Need,
        is_known: impl Fn(AgentGuid, BornRun<'_>) -> bool,
    ) -> usize {
        let born = self.expected.agents(need);
        let unknown = born.filter(|(guid, run)| !is_known(*guid, *run));
        self.expected.count_births(need) + unknown.count()
    }

    /// Whether nothing is kept of anybody.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let (choice, expected) = (self.choice.is_empty(), self.expected.is_empty());
        let rests = self.resting.is_empty() && self.rested.is_empty();
        choice && expected && rests && self.groups.is_empty()
    }
}

/// Whether two start agents for the same, and rest with the same group.
fn is_alike(one: &Target, other: &Target) -> bool {
    one.agent_type == other.agent_type
        && one.capabilities == other.capabilities
        && one.boundaries == other.boundaries
        && one.limit_group == other.limit_group
}

/// How many agents a target may have.
fn capacity<R>(record: &TargetRecord<R>) -> u32 {
    match record.target.status {
        TargetStatus::Disabled => 0,
        _ => record.target.max_agents,
    }
}

/// Whether nothing but a rest, or its group, may keep a target from starting an agent.
fn is_able<R: Clone>(record: &TargetRecord<R>) -> bool {
    let mut condition = record.condition(false);
    condition.cools_until = None;
    may_start(&condition, Timestamp::default()).is_ok()
}

/// Where a target stands that rests so long, or does not.
fn standing<R: Clone>(record: &TargetRecord<R>, until: Option<Timestamp>) -> Standing {
    Standing {
        capacity: capacity(record),
        is_startable: until.is_none() && is_able(record),
        last_used: record.target.last_used_at,
    }
}

/// The end of the rest of one that could start an agent otherwise.
fn rests_until<R: Clone>(record: &TargetRecord<R>) -> Option<Timestamp> {
    record.cools_until.filter(|_| is_able(record))
}

#[cfg(test)]
mod tests;
