//! One agent as the directory holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use loom_protocol::agent::{Agent, AgentStatus, Directive, DirectiveKind, MAX_CONCURRENT_TASKS};
use loom_protocol::event::ShutdownReason;
use loom_protocol::work::LeaseRef;
use loom_protocol::{Timestamp, WireError};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::agent;
use crate::domain::breaker::{AttemptEnd, BreakerTerms, Streak};
use crate::domain::matching::AgentProfile;

/// How many orders an agent may have open; it holds at most as many items.
const MAX_DIRECTIVES: usize = 2 * MAX_CONCURRENT_TASKS as usize;

/// What changes too often to be part of a snapshot. One for each agent, shared by its snapshots.
#[derive(Debug)]
pub(super) struct Vitals {
    last_seen: AtomicI64,
    last_activity: AtomicI64,
    /// From here on this process has known of the agent: the zero of the two times below, which the
    /// time of day cannot move.
    known_since: Instant,
    seen_after: AtomicU64,
    active_after: AtomicU64,
    leases: AtomicU32,
    own_count: AtomicU32,
    directives: Mutex<Vec<Directive>>,
    /// The orders to stop that a heartbeat's answer has carried.
    carried: Mutex<Vec<LeaseRef>>,
    streak: Mutex<Streak>,
    /// Whether it has asked a request: it knows how to.
    has_asked: AtomicBool,
    /// The last put by a client in the project's own bucket that counts already.
    put_applied: AtomicU64,
    /// Its entry in the bucket of all projects.
    shared: Mutex<Option<SharedPlace>>,
    /// The task count that was announced last.
    announced_count: AtomicU32,
    /// What the order to end was given for.
    end_cause: Mutex<Option<ShutdownReason>>,
}

/// Where an agent's entry is in the bucket of all projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPlace {
    /// Which bucket, by the time of its making: one that is made anew counts from 1 again.
    pub bucket: i128,
    /// The key, as the client spells it.
    pub key: String,
    /// The last put that has been applied.
    pub revision: u64,
}

impl Vitals {
    /// Those of an agent that is not known at present.
    pub(super) fn of(agent: &Agent, streak: Streak) -> Self {
        Self {
            last_seen: agent.last_heartbeat.as_millis().into(),
            last_activity: agent.last_activity.as_millis().into(),
            known_since: Instant::now(),
            seen_after: AtomicU64::new(0),
            active_after: AtomicU64::new(0),
            leases: AtomicU32::new(0),
            own_count: agent.current_task_count.into(),
            directives: Mutex::default(),
            carried: Mutex::default(),
            streak: streak.into(),
            has_asked: AtomicBool::new(false),
            put_applied: AtomicU64::new(0),
            shared: Mutex::default(),
            announced_count: AtomicU32::new(agent.current_task_count),
            end_cause: Mutex::default(),
        }
    }

    /// The present moment for `seen_after` and `active_after`.
    fn moment(&self) -> u64 {
        u64::try_from(self.known_since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One agent: an immutable snapshot, and the numbers that move between snapshots.
#[derive(Debug)]
pub struct AgentEntry {
    agent: Agent,
    vitals: Arc<Vitals>,
}

impl AgentEntry {
    pub(super) const fn new(agent: Agent, vitals: Arc<Vitals>) -> Self {
        Self { agent, vitals }
    }

    /// What the next snapshot of the same agent shares with this one.
    pub(super) fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

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

    /// When this process last heard of the agent, on the monotonic clock; of one that it has only
    /// read of: when it did.
    pub fn seen_at(&self) -> Instant {
        let after = self.vitals.seen_after.load(Ordering::Relaxed);
        self.vitals.known_since + Duration::from_millis(after)
    }

    /// When the agent last had to do with work, on the monotonic clock; of one that had not since
    /// this process knows it: when it became known.
    pub fn active_at(&self) -> Instant {
        let after = self.vitals.active_after.load(Ordering::Relaxed);
        self.vitals.known_since + Duration::from_millis(after)
    }

    /// Whether it has asked a request since this process knows it.
    pub fn has_asked(&self) -> bool {
        self.vitals.has_asked.load(Ordering::Relaxed)
    }

    pub(super) fn note_asked(&self) {
        self.vitals.has_asked.store(true, Ordering::Relaxed);
    }

    pub(super) fn put_applied(&self) -> u64 {
        self.vitals.put_applied.load(Ordering::Relaxed)
    }

    pub(super) fn set_put_applied(&self, revision: u64) {
        self.vitals.put_applied.store(revision, Ordering::Relaxed);
    }

    /// Its entry in the bucket of all projects, where it has one.
    pub fn shared_place(&self) -> Option<SharedPlace> {
        self.vitals.shared.lock().clone()
    }

    pub(super) fn set_shared_place(&self, place: Option<SharedPlace>) {
        *self.vitals.shared.lock() = place;
    }

    /// The number of its items as clients see it, if another one was announced last.
    pub(super) fn take_unannounced_count(&self) -> Option<u32> {
        let own = self.vitals.own_count.load(Ordering::Relaxed);
        let count = own.max(self.leases());
        let announced = self.vitals.announced_count.swap(count, Ordering::Relaxed);
        (announced != count).then_some(count)
    }

    pub(super) fn end_cause(&self) -> Option<ShutdownReason> {
        *self.vitals.end_cause.lock()
    }

    pub(super) fn set_end_cause(&self, cause: Option<ShutdownReason>) {
        *self.vitals.end_cause.lock() = cause;
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

    /// Whether somebody would miss it if its entry went by itself.
    pub(super) fn is_missed(&self) -> bool {
        let agent = self.agent();
        agent.status != AgentStatus::Offline || self.leases() > 0 || agent.quarantine.is_some()
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

    /// The agent as one side of [`may_take`](crate::domain::matching::may_take). `cooling_down`:
    /// whether it gave the item in question back a moment ago.
    pub fn candidate(&self, cooling_down: bool) -> AgentProfile<'_> {
        AgentProfile {
            agent_type: &self.agent.agent_type,
            capabilities: &self.agent.capabilities,
            boundaries: &self.agent.boundaries,
            status: self.agent.status,
            leases: self.leases(),
            slots: self.agent.max_concurrent_tasks,
            cooling_down,
        }
    }

    /// Refuses what comes from another run of the agent than the one that is registered. Of a replaced
    /// run: `not-registered` with `details.replaced`.
    pub fn admit(&self, instance_id: Option<&str>) -> Result<(), WireError> {
        agent::admit(&self.agent, instance_id)
    }

    /// The orders that the agent has not obeyed yet.
    pub fn directives(&self) -> Vec<Directive> {
        self.vitals.directives.lock().clone()
    }

    /// Of orders that an answer carries, the leases that are to be stopped and that no answer has
    /// carried before.
    pub fn carried_first(&self, orders: &[Directive]) -> Vec<LeaseRef> {
        let leases = orders.iter().filter_map(lease_to_stop);
        let mut carried = self.vitals.carried.lock();
        carried.retain(|lease| orders.iter().any(|o| lease_to_stop(o) == Some(*lease)));
        let mut first: Vec<LeaseRef> = leases.collect();
        first.retain(|lease| !carried.contains(lease));
        carried.extend_from_slice(&first);
        first
    }

    /// That an answer carried an order could not be noted: the next one counts.
    pub(crate) fn not_noted(&self, lease: LeaseRef) {
        self.vitals.carried.lock().retain(|other| *other != lease);
    }

    /// Whether it was told to end and has not yet.
    pub fn is_leaving(&self) -> bool {
        self.shutdown_order().is_some()
    }

    /// The order to end that it was given and has not obeyed.
    pub fn shutdown_order(&self) -> Option<Directive> {
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

    /// How many items an agent has that has just come: that is told with its coming.
    pub(super) fn begin_with_leases(&self, leases: usize) {
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        self.vitals.leases.store(leases, Ordering::Relaxed);
        self.vitals
            .announced_count
            .fetch_max(leases, Ordering::Relaxed);
    }

    /// Whether that is another number than before.
    pub(super) fn set_leases(&self, leases: usize, now: Timestamp) -> bool {
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        let before = self.vitals.leases.swap(leases, Ordering::Relaxed);
        self.vitals
            .last_activity
            .fetch_max(now.as_millis(), Ordering::Relaxed);
        let moment = self.vitals.moment();
        self.vitals
            .active_after
            .fetch_max(moment, Ordering::Relaxed);
        before != leases
    }

    pub(super) fn note_attempt(&self, end: AttemptEnd, terms: &BreakerTerms) -> bool {
        self.vitals.streak.lock().note(end, terms)
    }

    pub(super) fn streak(&self) -> Streak {
        self.vitals.streak.lock().clone()
    }

    /// Whether that is another number than before.
    pub(super) fn set_own_count(&self, count: u32) -> bool {
        self.vitals.own_count.swap(count, Ordering::Relaxed) != count
    }

    pub(super) fn touch(&self, now: Timestamp) {
        self.vitals
            .last_seen
            .fetch_max(now.as_millis(), Ordering::Relaxed);
        let moment = self.vitals.moment();
        self.vitals.seen_after.fetch_max(moment, Ordering::Relaxed);
    }
}

/// The lease that an order is to stop.
fn lease_to_stop(order: &Directive) -> Option<LeaseRef> {
    let (id, attempt) = order.work_item_id.zip(order.attempt)?;
    (order.kind == DirectiveKind::Cancel).then_some(LeaseRef { id, attempt })
}

/// Whether two orders are about the same thing.
fn same_order(one: &Directive, other: &Directive) -> bool {
    let about = |order: &Directive| (order.kind, order.work_item_id, order.attempt);
    about(one) == about(other)
}
