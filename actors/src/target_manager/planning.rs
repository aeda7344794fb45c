//! Who is started: looks at what waits as a level, and starts what is missing.
//!
//! | looked at | how often |
//! |---|---|
//! | when an item waits, an agent or a target changes | at most every 50 ms, however much changes |
//! | when a rest, a pause or a `notBefore` is over; when somebody else's start has left room | at that time, or within 30 s where the time of day may have been set |
//!
//! A look goes only where something has happened that agents may be started for: an item waits, somebody left, a target may
//! start one. So it costs what has changed, however much waits and however many targets there are. Where as many starts are
//! under way as may be, what it did not get to is looked at again. Everything is looked at when the targets have been read,
//! when a group has rested, and 30 s after a look that found that something waits.
//!
//! Whoever is started is counted in one place after the other: as planned here, as being born and as linked in the record of
//! the target, and as being there by the registry. They are asked in this order, so that one that goes on meanwhile is
//! counted twice and never not at all. For each start it costs a question to the registry for each agent that was born and
//! may take what waits: what is known of those is kept there only.
//!
//! Nothing is started before the agents, the items and the targets have been read; nor, after a start of the coordinator,
//! before `stale_after` has passed while somebody who lived before it has not been heard again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::work::WorkStatus;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::Known;
use super::env::Env;
use super::key::TargetKey;
use super::messages::TargetMsg;
use super::plans::Plans;
use super::queue::ChangeQueue;
use crate::agent_registry::AgentChange;
use crate::domain::matching::Requirements;
use crate::domain::targets::{BornRun, Need, Places, missing};

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
    /// Where somebody may be missing.
    touched: Mutex<Places>,
}

/// Who looks, and when.
#[derive(Default)]
pub(super) struct Planner {
    signal: Arc<Signal>,
    /// The groups that rested when it was looked last.
    paused: BTreeSet<String>,
    last: Option<Instant>,
    next: Option<(u64, Instant)>,
    epoch: u64,
    not_before: Option<Instant>,
    /// When everything is looked at again, because something waited.
    everywhere_at: Option<Instant>,
}

/// What waits of one need.
struct Waiting {
    need: Need,
    pending: u64,
    /// Of each type that some prefer, how many do.
    preferred: BTreeMap<Arc<str>, usize>,
    /// Whether somebody was there that may take it when it was looked; who comes first is decided by that.
    is_served: bool,
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
                    let needs = &change.header.needs;
                    let mut touched = of_items.touched.lock();
                    touched.add(&needs.capability, Some(&needs.boundary));
                    drop(touched);
                    asks();
                }
            });
        let (of_agents, asks) = (signal.clone(), ask.clone());
        env.args
            .agents
            .losses()
            .hook("target-manager", move |entry| {
                if of_agents.has_targets.load(Ordering::Relaxed) {
                    let agent = entry.agent();
                    let mut touched = of_agents.touched.lock();
                    touched.add_product(&agent.capabilities, &agent.boundaries);
                    drop(touched);
                    asks();
                }
            });
        let (of_gone, told) = (signal.clone(), env.myself());
        env.args
            .agents
            .departures()
            .hook("target-manager", move |entry| {
                if of_gone.has_targets.load(Ordering::Relaxed) {
                    let _ = told.cast(TargetMsg::AgentGone(entry.clone()));
                }
            });
        let (myself, directory) = (env.myself(), env.args.directory.clone());
        env.args
            .agents
            .changes()
            .hook("target-manager", move |(guid, change)| {
                if !signal.has_targets.load(Ordering::Relaxed) {
                    return;
                }
                if *change == AgentChange::Offline {
                    let _ = myself.cast(TargetMsg::AgentOffline(*guid));
                }
                // One that was expected may have come, and take less than it was started for. One that comes back is updated.
                if matches!(change, AgentChange::Registered | AgentChange::Updated) {
                    let places = directory.places_of_born(*guid);
                    signal.touched.lock().merge(places);
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

    /// The targets have changed.
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
        if args.directory.len() == 0 {
            return;
        }
        let is_read = args.agents.is_loaded() && args.work.is_loaded();
        if !is_read || !args.nats.is_up() || !args.ownership.is_held() {
            return self.look_at(env, Instant::now() + NOT_YET);
        }
        let places = self.take_touched(env, now);
        let (ready, next_ready) = args.work.ready_in(places, now);
        let waiting = waiting(env, &ready);
        if !waiting.is_empty() && waits_for_the_living(env) {
            self.look_everywhere();
            return self.look_at(env, Instant::now() + NOT_YET);
        }
        if !waiting.is_empty() {
            let again = Instant::now() + LOOK_MAX;
            self.everywhere_at.get_or_insert(again);
        }
        self.start_missing(env, (plans, queue), waiting);
        let rested = args.directory.rests().0;
        let paused = self.paused.iter();
        let paused = paused.filter_map(|group| args.agents.group_paused_until(group, now));
        let of_day = paused.chain(rested).chain(next_ready).min();
        if let Some(wait) = of_day.map(|at| at.since(now)) {
            self.look_at(env, Instant::now() + wait.clamp(EVERY, LOOK_MAX));
        }
        if let Some(at) = self.everywhere_at {
            self.look_at(env, at);
        }
    }

    /// Where it is to be looked, which is everywhere when a group has rested, or from time to time.
    fn take_touched(&mut self, env: &Env, now: Timestamp) -> Places {
        let args = &env.args;
        let is_paused = |group: &String| args.agents.group_paused_until(group, now).is_some();
        let groups = args.directory.rests().1.into_iter();
        let paused: BTreeSet<String> = groups.filter(is_paused).collect();
        let before = std::mem::replace(&mut self.paused, paused);
        let everywhere_at = self.everywhere_at;
        if everywhere_at.is_some_and(|at| at <= Instant::now()) || !before.is_subset(&self.paused) {
            self.look_everywhere();
        }
        let mut places = std::mem::take(&mut *self.signal.touched.lock());
        places.merge(args.directory.take_touched(now));
        if places.named().is_none() {
            self.everywhere_at = None;
        }
        places
    }

    /// The next look goes everywhere.
    fn look_everywhere(&self) {
        *self.signal.touched.lock() = Places::everywhere();
    }

    fn look_again_at(&self, need: &Need) {
        let mut touched = self.signal.touched.lock();
        touched.add(&need.capability, Some(&need.boundary));
    }

    /// Starts one agent for each need in turn, until nobody is missing or nobody may start.
    fn start_missing(
        &mut self,
        env: &Env,
        (plans, queue): (&mut Plans, &mut ChangeQueue),
        mut waiting: Vec<Waiting>,
    ) {
        while !waiting.is_empty() {
            let mut is_full = false;
            let mut still = Vec::new();
            for one in waiting {
                if is_full {
                    self.look_again_at(&one.need);
                    continue;
                }
                if missing_for(env, plans, &one) == 0 {
                    continue;
                }
                let Some((key, known)) = pick(env, plans, &one) else {
                    continue;
                };
                let Some(permit) = plans.room_for_one(env) else {
                    is_full = true;
                    self.look_again_at(&one.need);
                    self.look_at(env, Instant::now() + HOLD_OFF);
                    continue;
                };
                if plans.begin_for(env, queue, (key, &known), &one.need, permit) {
                    still.push(one);
                } else {
                    // Its record has taken as many as it takes at once.
                    is_full = true;
                    self.look_later(env);
                }
            }
            waiting = still;
        }
    }

    /// A start could not be recorded: for a moment no other one is tried.
    pub fn look_later(&mut self, env: &Env) {
        self.not_before = Some(Instant::now() + HOLD_OFF);
        self.look_everywhere();
        self.want_look(env);
    }
}

/// Whether somebody who lived before this coordinator may be heard yet: it would be doubled.
fn waits_for_the_living(env: &Env) -> bool {
    let args = &env.args;
    args.opened_at.elapsed() < args.stale_after && args.agents.has_unheard(args.begun_at)
}

/// What waits, by what it needs, as far as any target serves it. Those that differ in the preferred type only stand side
/// by side.
fn waiting(env: &Env, ready: &[(Arc<Requirements>, usize)]) -> Vec<Waiting> {
    let mut waiting: Vec<Waiting> = Vec::new();
    for alike in ready.chunk_by(|one, other| are_of_one_need(&one.0, &other.0)) {
        let need = Need::from(&*alike[0].0);
        if env.args.directory.capacity(&need) == 0 {
            continue;
        }
        let mut of_need = Waiting {
            pending: 0,
            preferred: BTreeMap::new(),
            is_served: env.args.agents.count_there(&need) > 0,
            need,
        };
        for (requirements, count) in alike {
            of_need.pending += u64::try_from(*count).unwrap_or(u64::MAX);
            if let Some(preferred) = &requirements.preferred_agent_type {
                *of_need.preferred.entry(preferred.clone()).or_default() += count;
            }
        }
        waiting.push(of_need);
    }
    // Where nobody is there comes first, then where most waits.
    waiting.sort_unstable_by(|one, other| {
        let rank = |waiting: &Waiting| (waiting.is_served, Reverse(waiting.pending));
        let ranks = rank(one).cmp(&rank(other));
        ranks.then_with(|| one.need.cmp(&other.need))
    });
    waiting
}

/// Whether two differ in the preferred type only.
fn are_of_one_need(one: &Requirements, other: &Requirements) -> bool {
    one.capability == other.capability
        && one.boundary == other.boundary
        && one.required_agent_type == other.required_agent_type
}

/// The target that starts the next agent for what waits.
fn pick(env: &Env, plans: &Plans, waiting: &Waiting) -> Option<(TargetKey, Known)> {
    let (args, now) = (&env.args, env.now());
    // Counted before the directory is read: it is asked for it.
    let planned = plans.targets(&args.directory);
    let planned = |key: &TargetKey| {
        let of_target = planned.iter().filter(|planned| *planned == key);
        u32::try_from(of_target.count()).unwrap_or(u32::MAX)
    };
    let is_paused = |group: &str| args.agents.group_paused_until(group, now).is_some();
    let (need, preferred) = (&waiting.need, waiting.preferred());
    args.directory
        .pick(need, preferred, now, planned, is_paused)
}

/// How many agents are missing for what waits, by what is known at this moment.
fn missing_for(env: &Env, plans: &Plans, waiting: &Waiting) -> u64 {
    let (need, directory, agents) = (&waiting.need, &env.args.directory, &env.args.agents);
    let is_known = |guid, run: BornRun<'_>| {
        let entry = agents.get(guid);
        entry.is_some_and(|entry| run.has_registered(entry.agent(), entry.last_seen()))
    };
    // In this order, whatever happens in between.
    let planned = plans.count_serving(directory, need);
    let recorded = directory.count_expected(need, is_known);
    let there = planned + recorded + agents.count_there(need);
    let there = u64::try_from(there).unwrap_or(u64::MAX);
    let each = env.args.births.settings.items_per_agent;
    missing(directory.capacity(need), waiting.pending, each, there)
}
