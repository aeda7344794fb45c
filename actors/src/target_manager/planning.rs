//! Who is started: looks at what waits as a level, and starts what is missing.
//!
//! | looked at | how often |
//! |---|---|
//! | when an item waits, an agent or a target changes | at most every 50 ms, however much changes |
//! | when a rest, a pause or a `notBefore` is over; when somebody else's start has left room | at that time, or within 30 s where the time of day may have been set |
//!
//! Nothing is started before the agents, the items and the targets have been read; nor, after a start of the coordinator,
//! before `stale_after` has passed while somebody who lived before it has not been heard again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::target::TargetStatus;
use loom_protocol::work::WorkStatus;
use tokio::time::Instant;

use super::directory::Known;
use super::env::Env;
use super::key::TargetKey;
use super::messages::TargetMsg;
use super::plans::Plans;
use super::queue::ChangeQueue;
use crate::agent_registry::AgentChange;
use crate::domain::matching::Requirements;
use crate::domain::targets::{Choice, Need, Standing, TargetProfile, may_start, missing};

/// The least time between two looks.
const EVERY: Duration = Duration::from_millis(50);
/// The most while something waits for a time of day.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// The pause before it is looked again whether everything has been read, or whether there is room.
const NOT_YET: Duration = Duration::from_millis(250);
/// The pause after a start that could not be recorded.
const HOLD_OFF: Duration = Duration::from_secs(1);

/// What the hooks of others know of the one who looks.
#[derive(Debug, Default)]
struct Signal {
    /// Whether a look is asked for already.
    asked: AtomicBool,
    /// Whether there is anything to look for.
    has_targets: AtomicBool,
}

/// Who looks, and when.
#[derive(Default)]
pub(super) struct Planner {
    choice: Choice<TargetKey>,
    /// What the choice knows of each target.
    known: HashMap<TargetKey, (u64, Standing)>,
    signal: Arc<Signal>,
    last: Option<Instant>,
    next: Option<(u64, Instant)>,
    epoch: u64,
    not_before: Option<Instant>,
}

/// What waits of one need.
struct Waiting {
    need: Need,
    pending: u64,
    /// Of each type that some prefer, how many do.
    preferred: BTreeMap<Arc<str>, usize>,
    /// How many agents are there that may take it.
    there: u64,
}

impl Waiting {
    /// The type that most of them prefer.
    fn preferred(&self) -> Option<&Arc<str>> {
        let most = self.preferred.iter().max_by_key(|(_, count)| **count);
        most.map(|(agent_type, _)| agent_type)
    }
}

impl Planner {
    /// Has items and agents tell when they change.
    pub fn listen(&self, env: &Env) {
        let signal = self.signal.clone();
        let ask = {
            let (signal, myself) = (signal.clone(), env.myself());
            move || {
                if !signal.asked.swap(true, Ordering::AcqRel) {
                    let _ = myself.cast(TargetMsg::LookWanted);
                }
            }
        };
        let (of_items, asks) = (signal.clone(), ask.clone());
        env.args
            .work
            .changes()
            .hook("target-manager", move |change| {
                let waits = change.header.status == WorkStatus::Pending;
                if waits && of_items.has_targets.load(Ordering::Relaxed) {
                    asks();
                }
            });
        let myself = env.myself();
        env.args
            .agents
            .changes()
            .hook("target-manager", move |(guid, change)| {
                if !signal.has_targets.load(Ordering::Relaxed) {
                    return;
                }
                if matches!(change, AgentChange::Gone | AgentChange::Offline) {
                    let (guid, change) = (*guid, *change);
                    let _ = myself.cast(TargetMsg::AgentLeft { guid, change });
                }
                ask();
            });
    }

    /// A look is wanted: as soon as may be.
    pub fn want_look(&mut self, env: &Env) {
        let now = Instant::now();
        let earliest = [self.last.map(|last| last + EVERY), self.not_before];
        let at = earliest.into_iter().flatten().max().unwrap_or(now).max(now);
        self.look_at(env, at);
    }

    /// Looks at this time, if it does not look sooner.
    fn look_at(&mut self, env: &Env, at: Instant) {
        if self.next.is_some_and(|(_, next)| next <= at) {
            return;
        }
        self.epoch += 1;
        let epoch = self.epoch;
        self.next = Some((epoch, at));
        env.arm(self.next, |epoch| TargetMsg::LookDue { epoch });
    }

    /// The targets have changed: what the choice knows of them.
    pub fn targets_changed(&mut self, env: &Env) {
        let has_targets = env.args.directory.len() > 0;
        let signal = &self.signal;
        signal.has_targets.store(has_targets, Ordering::Relaxed);
        self.want_look(env);
    }

    /// The time to look has come.
    pub fn look_due(&mut self, env: &Env, plans: &mut Plans, queue: &mut ChangeQueue, epoch: u64) {
        if self.next.is_some_and(|(next, _)| next == epoch) {
            self.next = None;
            self.look(env, plans, queue);
        }
    }

    fn look(&mut self, env: &Env, plans: &mut Plans, queue: &mut ChangeQueue) {
        self.signal.asked.store(false, Ordering::Release);
        self.last = Some(Instant::now());
        if !env.is_loaded || queue.is_draining() {
            return;
        }
        let now = env.now();
        let args = &env.args;
        args.directory
            .forget_operations(now.before(args.births.settings.keep_operations));
        let wakes = self.refresh_choice(env, plans, now);
        if self.known.is_empty() {
            return;
        }
        let is_read = args.agents.is_loaded() && args.work.is_loaded();
        if !is_read || !args.nats.is_up() || !args.ownership.is_held() {
            return self.look_at(env, Instant::now() + NOT_YET);
        }
        let (ready, next_ready) = args.work.ready_by_needs(now);
        let mut waiting = self.waiting(env, &ready);
        if !waiting.is_empty() && waits_for_the_living(env) {
            return self.look_at(env, Instant::now() + NOT_YET);
        }
        let is_satisfied = self.start_missing(env, (plans, queue), &mut waiting);
        let of_day = wakes
            .into_iter()
            .filter(|_| !is_satisfied)
            .chain(next_ready);
        if let Some(wait) = of_day.map(|at| at.since(now)).min() {
            self.look_at(env, Instant::now() + wait.clamp(EVERY, LOOK_MAX));
        }
        if !is_satisfied {
            self.look_at(env, Instant::now() + LOOK_MAX);
        }
    }

    /// What waits, by what it needs, as far as any target serves it.
    fn waiting(&self, env: &Env, ready: &[(Arc<Requirements>, usize)]) -> Vec<Waiting> {
        let mut by_need: BTreeMap<Need, Waiting> = BTreeMap::new();
        for (requirements, count) in ready {
            let need = Need::from(&**requirements);
            if self.choice.capacity(&need) == 0 {
                continue;
            }
            let waiting = by_need.entry(need.clone()).or_insert_with(|| Waiting {
                need,
                pending: 0,
                preferred: BTreeMap::new(),
                there: 0,
            });
            waiting.pending += u64::try_from(*count).unwrap_or(u64::MAX);
            if let Some(preferred) = &requirements.preferred_agent_type {
                *waiting.preferred.entry(preferred.clone()).or_default() += count;
            }
        }
        let mut waiting: Vec<Waiting> = by_need.into_values().collect();
        for waiting in &mut waiting {
            let requirements = Requirements {
                capability: waiting.need.capability.clone(),
                boundary: waiting.need.boundary.clone(),
                required_agent_type: waiting.need.required_agent_type.clone(),
                preferred_agent_type: None,
            };
            let most = self.choice.capacity(&waiting.need);
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let there = env.args.agents.count_there(&requirements, most);
            waiting.there = u64::try_from(there).unwrap_or(u64::MAX);
        }
        // Where nobody is there comes first, then where most waits.
        waiting.sort_by_key(|waiting| (waiting.there > 0, std::cmp::Reverse(waiting.pending)));
        waiting
    }

    /// Starts one agent for each need in turn, until nobody is missing or nobody may start. Whether nobody is missing.
    fn start_missing(
        &mut self,
        env: &Env,
        (plans, queue): (&mut Plans, &mut ChangeQueue),
        waiting: &mut Vec<Waiting>,
    ) -> bool {
        let mut is_satisfied = true;
        while !waiting.is_empty() {
            let mut is_full = false;
            let mut still = Vec::new();
            for one in std::mem::take(waiting) {
                if is_full || self.missing_for(env, plans, &one) == 0 {
                    continue;
                }
                let picked = self.choice.pick(&one.need, one.preferred());
                let Some(key) = picked.copied() else {
                    is_satisfied = false;
                    continue;
                };
                let Some(permit) = plans.room_for_one(env) else {
                    (is_satisfied, is_full) = (false, true);
                    self.look_at(env, Instant::now() + HOLD_OFF);
                    continue;
                };
                let Some(known) = env.args.directory.known(key) else {
                    continue;
                };
                if plans.begin_for(env, queue, (key, &known), &one.need, permit) {
                    self.refresh_one(env, plans, (key, &known), env.now());
                    still.push(one);
                } else {
                    // Its record has taken as many as it takes at once.
                    (is_satisfied, is_full) = (false, true);
                    self.look_later(env);
                }
            }
            *waiting = still;
        }
        is_satisfied
    }

    fn missing_for(&self, env: &Env, plans: &Plans, waiting: &Waiting) -> u64 {
        let need = &waiting.need;
        let is_known = |guid| env.args.agents.get(guid).is_some();
        let recorded = env.args.directory.count_expected(need, is_known);
        let being_born = recorded + plans.count_serving(need);
        let there = waiting.there + u64::try_from(being_born).unwrap_or(u64::MAX);
        let each = env.args.births.settings.items_per_agent;
        missing(self.choice.capacity(need), waiting.pending, each, there)
    }

    /// A start could not be recorded: for a moment no other one is tried.
    pub fn look_later(&mut self, env: &Env) {
        self.not_before = Some(Instant::now() + HOLD_OFF);
        self.want_look(env);
    }

    /// Takes into the choice what has changed; and when what now hinders a target is over by itself.
    fn refresh_choice(&mut self, env: &Env, plans: &Plans, now: Timestamp) -> Vec<Timestamp> {
        let all = env.args.directory.all_known();
        let present: HashSet<TargetKey> = all.iter().map(|(key, _)| *key).collect();
        let known = self.known.keys().copied();
        let gone: Vec<TargetKey> = known.filter(|key| !present.contains(key)).collect();
        for key in gone {
            self.known.remove(&key);
            self.choice.remove(&key);
        }
        let mut wakes = Vec::new();
        for (key, known) in &all {
            self.refresh_one(env, plans, (*key, known), now);
            let rest = known.record.cools_until.filter(|until| *until > now);
            wakes.extend(rest);
            wakes.extend(env.group_paused_until(&known.record.target, now));
        }
        wakes
    }

    fn refresh_one(
        &mut self,
        env: &Env,
        plans: &Plans,
        (key, known): (TargetKey, &Known),
        now: Timestamp,
    ) {
        let (record, target) = (&known.record, &known.record.target);
        let mut condition = record.condition(env.group_paused_until(target, now).is_some());
        let planned = plans.count_of(key);
        condition.agents += u32::try_from(planned).unwrap_or(u32::MAX);
        let is_enabled = target.status != TargetStatus::Disabled;
        let standing = Standing {
            capacity: if is_enabled { target.max_agents } else { 0 },
            is_startable: may_start(&condition, now).is_ok(),
            last_used: if planned > 0 {
                Some(now)
            } else {
                target.last_used_at
            },
        };
        let is_known = self.known.get(&key) == Some(&(known.revision, standing));
        if !is_known {
            self.known.insert(key, (known.revision, standing));
            let profile = TargetProfile::from(target);
            self.choice.set(key, &profile, standing);
        }
    }
}

/// Whether somebody who lived before this coordinator may be heard yet: it would be doubled.
fn waits_for_the_living(env: &Env) -> bool {
    let args = &env.args;
    args.opened_at.elapsed() < args.stale_after && args.agents.has_unheard(args.begun_at)
}
