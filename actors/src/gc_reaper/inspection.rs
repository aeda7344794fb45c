//! Looking at agents: whose deadline is over, who is suspect, and what the verdict is.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::AgentGuid;
use loom_protocol::agent::AgentStatus;
use loom_protocol::gc::GcAction;
use tokio::time::{Instant, sleep};

use super::actor::{GcReaperArgs, GcReaperMsg, State};
use super::reap_action::ReapAction;
use crate::agent_registry::{AgentChange, AgentEntry};
use crate::domain::matching::fits;
use crate::domain::reaping::{
    IdleVerdict, Idleness, OrderToEnd, ReapVerdict, Silence, idle_verdict, reap_verdict,
};
use crate::liveness::BarrierOutcome;

/// The pause between passes while they stall.
const AFTER_STALL: Duration = Duration::from_millis(100);
/// How long an agent may take to obey the order to end at once, before its process is ended.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);
/// How long after the grace of its process the end of that is ordered again, where it still is there.
const END_AGAIN: Duration = Duration::from_secs(30);

/// What is to be done to an agent, and when: now if that is zero. Nothing changes until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextAction {
    pub action: GcAction,
    pub after: Duration,
}

/// The orders that an agent was given, and has not obeyed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OrdersGiven {
    /// Since when it is to end.
    pub end_at: Option<Instant>,
    /// When the end of its process was ordered.
    pub process_end_at: Option<Instant>,
}

/// What the verdicts go by, at one moment.
pub(super) struct Snapshot<'a> {
    args: &'a GcReaperArgs,
    grace: Instant,
    now: Instant,
}

impl<'a> Snapshot<'a> {
    pub fn now(args: &'a GcReaperArgs) -> Self {
        Self {
            args,
            grace: args.barrier.grace().since(),
            now: Instant::now(),
        }
    }

    fn since(&self, sign: Instant) -> Duration {
        self.now.saturating_duration_since(sign.max(self.grace))
    }

    fn heartbeat_interval(entry: &AgentEntry) -> Option<Duration> {
        let interval = entry.agent().heartbeat_interval_ms;
        interval.map(Duration::from_millis)
    }

    fn silence(&self, entry: &AgentEntry) -> Silence {
        Silence {
            silent_for: self.since(entry.seen_at()),
            unheard_for: self.args.clock.now().since(entry.last_seen()),
            heartbeat_interval: Self::heartbeat_interval(entry),
            has_asked: entry.has_asked(),
            offline: entry.agent().status == AgentStatus::Offline,
            has_leases: self.args.work.lease_count(entry.agent().guid) > 0,
            quarantined: entry.agent().quarantine.is_some(),
        }
    }

    /// Whether it has been silent for a third of the time that it may be.
    pub fn is_silent(&self, entry: &AgentEntry) -> bool {
        let interval = Self::heartbeat_interval(entry);
        let allowance = self.args.terms().allowance(interval, entry.has_asked());
        self.since(entry.seen_at()) * 3 >= allowance
    }

    fn idleness(&self, entry: &AgentEntry, orders: OrdersGiven) -> Idleness {
        let agent = entry.agent();
        let born_from_target = agent.target_id.as_ref();
        let own = agent.spindown_after_idle_ms.map(Duration::from_millis);
        let idle_for = self.since(entry.active_at());
        let limit = own.or(born_from_target.map(|_| self.args.settings.idle_timeout));
        Idleness {
            status: agent.status,
            has_leases: entry.leases() > 0,
            idle_for,
            limit,
            // Asked only where it matters: it looks at every kind of pending item.
            is_wanted: limit.is_some_and(|limit| idle_for >= limit) && self.is_wanted(entry),
            order: entry.shutdown_order().map(|order| OrderToEnd {
                given_for: self.since(orders.end_at.unwrap_or(self.now)),
                grace: Duration::from_millis(order.grace_ms.unwrap_or(0)),
            }),
            process_ends_in: self.process_ends_in(entry, orders),
        }
    }

    /// Only where a target has the agent.
    fn process_ends_in(&self, entry: &AgentEntry, orders: OrdersGiven) -> Option<Duration> {
        let end_at = orders.end_at?;
        if !self.args.born.is_linked(entry) {
            return None;
        }
        let (since, wait) = match orders.process_end_at {
            Some(at) => (at, self.args.settings.idle_grace + END_AGAIN),
            None => (end_at, OBEYED_WITHIN),
        };
        Some(wait.saturating_sub(self.since(since)))
    }

    fn is_wanted(&self, entry: &AgentEntry) -> bool {
        let agent = entry.candidate(false).filter();
        self.args
            .work
            .has_pending(|needs| fits(&agent, needs).is_ok())
    }

    /// What comes next for an agent, unless something changes; `None`: nothing but its death.
    fn idle_outlook(&self, entry: &AgentEntry, orders: OrdersGiven) -> Option<NextAction> {
        if entry.agent().status == AgentStatus::Offline {
            return None;
        }
        let idleness = self.idleness(entry, orders);
        let next = match idleness.order {
            Some(order) if order.grace.is_zero() => GcAction::EndProcess,
            Some(_) => GcAction::Insist,
            None => GcAction::SendHome,
        };
        match idle_verdict(&idleness) {
            IdleVerdict::Keep(None) => None,
            IdleVerdict::Keep(Some(after)) => Some(NextAction {
                action: next,
                after,
            }),
            IdleVerdict::SendHome | IdleVerdict::Insist | IdleVerdict::EndProcess => {
                Some(NextAction {
                    action: next,
                    after: Duration::ZERO,
                })
            }
        }
    }

    fn death_outlook(&self, entry: &AgentEntry) -> NextAction {
        let silence = self.silence(entry);
        match reap_verdict(&silence, &self.args.terms()) {
            ReapVerdict::Keep(after) => NextAction {
                action: if silence.offline && !silence.has_leases {
                    GcAction::Bury
                } else {
                    GcAction::MarkOffline
                },
                after,
            },
            ReapVerdict::MarkOffline => NextAction {
                action: GcAction::MarkOffline,
                after: Duration::ZERO,
            },
            ReapVerdict::Bury => NextAction {
                action: GcAction::Bury,
                after: Duration::ZERO,
            },
        }
    }

    /// The process of one that is offline is ended, where a target has started it, when it was silent for longer yet.
    fn end_of_process(&self, entry: &AgentEntry, orders: OrdersGiven) -> Option<NextAction> {
        let agent = entry.agent();
        let is_dead = agent.status == AgentStatus::Offline
            && self.args.work.lease_count(agent.guid) == 0
            && self.args.born.is_linked(entry);
        if !is_dead {
            return None;
        }
        let grace = self.args.settings.idle_grace;
        let after = if let Some(at) = orders.process_end_at {
            (grace + END_AGAIN).saturating_sub(self.since(at))
        } else {
            let interval = Self::heartbeat_interval(entry);
            let allowance = self.args.terms().allowance(interval, entry.has_asked());
            (allowance + grace).saturating_sub(self.since(entry.seen_at()))
        };
        Some(NextAction {
            action: GcAction::EndProcess,
            after,
        })
    }

    /// What comes next for an agent, unless something changes.
    pub fn next_action(&self, entry: &AgentEntry, orders: OrdersGiven) -> NextAction {
        let death = self.death_outlook(entry);
        let other = self
            .idle_outlook(entry, orders)
            .or_else(|| self.end_of_process(entry, orders));
        match other {
            Some(other) if other.after < death.after => other,
            _ => death,
        }
    }
}

impl State {
    pub(super) fn agent_changed(&mut self, guid: AgentGuid, change: AgentChange) {
        match self.args.directory.get(guid) {
            None => self.forget(guid),
            Some(entry) => {
                let is_offline = entry.agent().status == AgentStatus::Offline;
                if !is_offline && self.graves.remove(guid) {
                    self.clear_grave(guid);
                }
                if change == AgentChange::Offline
                    && is_offline
                    && !self.in_progress.contains_key(&guid)
                    && self.args.work.lease_count(guid) > 0
                {
                    // Not by us: it said goodbye, and is believed.
                    return self.begin(ReapAction::MarkOffline, &entry);
                }
                self.look(guid);
            }
        }
    }

    fn forget(&mut self, guid: AgentGuid) {
        self.deadlines.remove(&guid);
        self.suspects.remove(&guid);
        self.ordered_at.remove(&guid);
        self.process_ended_at.remove(&guid);
    }

    /// A timer that is late shows that we stood still: then the grace moves, and nobody is suspect.
    pub(super) fn look_due(&mut self, epoch: u64) {
        let Some(due_at) = self.deadlines.fired(epoch) else {
            return;
        };
        self.args.barrier.grace().timer_fired(due_at);
        let now = Instant::now();
        while let Some(guid) = self.deadlines.pop_due(now) {
            self.look(guid);
        }
    }

    pub(super) fn look_at_all(&mut self) {
        for entry in self.args.directory.all() {
            self.look(entry.agent().guid);
        }
    }

    /// Watched → watched, suspect, or in hand; not while something is being done to it.
    pub(super) fn look(&mut self, guid: AgentGuid) {
        if self.in_progress.contains_key(&guid) {
            return;
        }
        let Some(entry) = self.watched(guid) else {
            return;
        };
        let next_action = self.next_action(&entry);
        let is_for_silence = matches!(next_action.action, GcAction::MarkOffline | GcAction::Bury)
            || entry.agent().status == AgentStatus::Offline;
        if is_for_silence && next_action.after.is_zero() {
            self.suspects.insert(guid);
        } else {
            self.act_or_wait(&entry, next_action);
        }
    }

    /// The agent, unless it is gone.
    fn watched(&mut self, guid: AgentGuid) -> Option<Arc<AgentEntry>> {
        let entry = self.args.directory.get(guid);
        match &entry {
            None => self.forget(guid),
            Some(entry) if entry.is_leaving() => {
                self.ordered_at.entry(guid).or_insert_with(Instant::now);
            }
            Some(entry) => {
                self.ordered_at.remove(&guid);
                if entry.agent().status != AgentStatus::Offline {
                    self.process_ended_at.remove(&guid);
                }
            }
        }
        entry
    }

    fn next_action(&self, entry: &AgentEntry) -> NextAction {
        let orders = self.orders_given(entry.agent().guid);
        Snapshot::now(&self.args).next_action(entry, orders)
    }

    pub(super) fn orders_given(&self, guid: AgentGuid) -> OrdersGiven {
        OrdersGiven {
            end_at: self.ordered_at.get(&guid).copied(),
            process_end_at: self.process_ended_at.get(&guid).copied(),
        }
    }

    fn act_or_wait(&mut self, entry: &AgentEntry, next_action: NextAction) {
        if !next_action.after.is_zero() {
            let next = Instant::now() + next_action.after;
            return self.deadlines.set(entry.agent().guid, next);
        }
        match ReapAction::of(next_action.action) {
            Some(deed) => self.begin(deed, entry),
            None => self.forget(entry.agent().guid),
        }
    }

    /// Passes the barrier for whoever is suspect now; whoever becomes it meanwhile waits for the next.
    pub(super) fn begin_crossing(&mut self) {
        if self.is_crossing || self.suspects.is_empty() {
            return;
        }
        self.is_crossing = true;
        let suspects: Vec<AgentGuid> = std::mem::take(&mut self.suspects).into_iter().collect();
        let barrier = self.args.barrier.clone();
        let crossing = async move {
            let mut stalled = false;
            while barrier.pass().await == BarrierOutcome::Stalled {
                stalled = true;
                sleep(AFTER_STALL).await;
            }
            if stalled {
                // What counts is the end of the stall: only now can anybody be heard.
                barrier.grace().reset_all("everybody can be heard again");
            }
        };
        let after = suspects.clone();
        self.run(crossing, move |_| Some(GcReaperMsg::BarrierEnded(after)));
    }

    /// Suspect → in hand if it is still silent, else watched.
    pub(super) fn crossed(&mut self, suspects: &[AgentGuid]) {
        self.is_crossing = false;
        if self.is_draining() {
            return;
        }
        for guid in suspects {
            if self.in_progress.contains_key(guid) {
                continue;
            }
            if let Some(entry) = self.watched(*guid) {
                let next_action = self.next_action(&entry);
                self.act_or_wait(&entry, next_action);
            }
        }
    }
}
