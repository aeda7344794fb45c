//! The start clock and the progress clock of every lease.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::Directive;
use loom_protocol::work::{LeaseRef, Reason};
use loom_protocol::{AgentGuid, WorkId, names};
use tokio::time::Instant;

use super::actor::{DispatcherMsg, State};
use super::item_deadlines::cancel_directive;
use super::timers::Due;
use crate::domain::lease::{self, Expiry, Limits, Verdict};
use crate::domain::retry::Backoff;
use crate::domain::work::Command;
use crate::liveness::BarrierOutcome;
use crate::work_ledger::{Header, Operation};

/// When a lease that is being taken back is looked at again, in case that came to nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How many leases are taken back together; the ledger takes so much at a time.
const TOGETHER: usize = 1_024;

/// When each lease is to be looked at: one deadline per lease, whatever is heard meanwhile.
#[derive(Debug, Default)]
pub(super) struct LeaseClocks {
    due: BTreeSet<(Instant, WorkId)>,
    of: HashMap<WorkId, Instant>,
    /// Found out of time; judged again behind the barrier.
    late: Vec<WorkId>,
    /// Those for whom the barrier is being passed.
    at_the_barrier: Vec<WorkId>,
}

impl LeaseClocks {
    fn set(&mut self, id: WorkId, at: Instant) {
        self.clear(id);
        self.due.insert((at, id));
        self.of.insert(id, at);
    }

    fn clear(&mut self, id: WorkId) {
        if let Some(at) = self.of.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    /// The next lease whose clock rings now.
    fn pop_due(&mut self, now: Instant) -> Option<WorkId> {
        let (at, id) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, id));
        self.of.remove(&id);
        Some(id)
    }

    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// A lease that is out of time.
struct Late {
    guid: AgentGuid,
    lease: LeaseRef,
    cause: Cause,
}

/// Why a lease is taken back.
#[derive(Debug, Clone, Copy)]
enum Cause {
    /// Its clock has run out.
    Clock(Expiry),
    /// The item is past its deadline, and so is the time that the agent had to stop.
    Deadline,
}

impl Cause {
    const fn reason(self) -> Reason {
        match self {
            Self::Clock(expiry) => expiry.reason(),
            Self::Deadline => Reason::Deadline,
        }
    }
}

impl State {
    /// Every lease that is there has its clock from now on.
    pub(super) fn start_lease_clocks(&mut self) {
        for id in self.args.read.leased() {
            self.wind_up(id);
        }
        self.arm_leases();
    }

    /// An item was written: its clock runs if it is leased.
    pub(super) fn run_lease_clock(&mut self, header: &Header) {
        if header.status.is_leased() {
            self.wind_up(header.id);
            self.arm_leases();
        } else {
            self.leases.clear(header.id);
        }
    }

    /// Sets the clock of a lease to its end as it is known now.
    pub(super) fn wind_up(&mut self, id: WorkId) {
        if let Some((_, attempt, clock)) = self.args.read.lease_clock(id) {
            let grace = self.args.barrier.grace().since();
            let until = lease::deadline(&clock, &self.limits(), grace);
            let stop = self.deadlines.grace_of(id, attempt);
            self.leases
                .set(id, stop.map_or(until, |stop| stop.min(until)));
        }
    }

    fn backoff(&self) -> Backoff {
        self.args.settings.retry.backoff(self.args.jitter.next())
    }

    fn limits(&self) -> Limits {
        self.args.settings.limits()
    }

    pub(super) fn arm_leases(&mut self) {
        if let Some(at) = self.leases.next() {
            self.timers.add_look(at, Due::Leases);
        }
    }

    /// Clocks ring. Most of them ring in vain: their agents were heard of since they were wound up.
    pub(super) fn look_at_leases(&mut self) {
        let now = Instant::now();
        while let Some(id) = self.leases.pop_due(now) {
            if self.judge(id).is_some() {
                self.leases.late.push(id);
            }
        }
        self.go_to_the_barrier();
        self.arm_leases();
    }

    /// Whether an item's lease is out of time; if it is kept, its clock is wound up.
    fn judge(&mut self, id: WorkId) -> Option<Late> {
        let (guid, attempt, clock) = self.args.read.lease_clock(id)?;
        let (grace, now) = (self.args.barrier.grace().since(), Instant::now());
        let late = |cause| Late {
            guid,
            lease: LeaseRef { id, attempt },
            cause,
        };
        let stop = self.deadlines.grace_of(id, attempt);
        match lease::judge(&clock, &self.limits(), grace, now) {
            _ if stop.is_some_and(|stop| stop <= now) => Some(late(Cause::Deadline)),
            Verdict::OutOfTime(expiry) => Some(late(Cause::Clock(expiry))),
            Verdict::Keep { until } => {
                self.leases
                    .set(id, stop.map_or(until, |stop| stop.min(until)));
                None
            }
        }
    }

    /// One pass at a time; who is found late meanwhile takes the next.
    fn go_to_the_barrier(&mut self) {
        if self.leases.late.is_empty() || !self.leases.at_the_barrier.is_empty() {
            return;
        }
        self.leases.at_the_barrier = std::mem::take(&mut self.leases.late);
        let (barrier, myself) = (self.args.barrier.clone(), self.myself.clone());
        self.spawn(async move {
            let crossing = barrier.pass().await;
            let _ = myself.cast(DispatcherMsg::BarrierEnded(crossing));
        });
    }

    /// What was delivered in time has been applied, or we could not hear: judged anew either way.
    pub(super) fn crossed(&mut self, crossing: BarrierOutcome) {
        let now = Instant::now();
        let mut late = Vec::new();
        for id in std::mem::take(&mut self.leases.at_the_barrier) {
            match self.judge(id) {
                None => {}
                Some(found) if crossing == BarrierOutcome::Passed && late.len() < TOGETHER => {
                    self.leases.set(id, now + LOOK_AGAIN);
                    late.push(found);
                }
                Some(_) => self.leases.late.push(id),
            }
        }
        self.expire_leases(late);
        self.go_to_the_barrier();
        self.arm_leases();
    }

    /// Assigned or InProgress → Pending or Failed, and the agents are told.
    fn expire_leases(&mut self, late: Vec<Late>) {
        if late.is_empty() {
            return;
        }
        let operations = late.iter().map(|late| {
            let attempt = late.lease.attempt;
            let command = match late.cause {
                Cause::Deadline => Command::MissDeadline { attempt },
                Cause::Clock(expiry) => Command::Revoke {
                    guid: late.guid,
                    attempt,
                    reason: expiry.reason(),
                    spends_attempt: expiry.spends_attempt(),
                    backoff: expiry.spends_attempt().then(|| self.backoff()),
                },
            };
            Operation::Apply(late.lease.id, Arc::new(command))
        });
        let Ok(answer) = self.args.ledger.begin(operations.collect()) else {
            return;
        };
        let (client, project, agents) = (
            self.args.nats.client.clone(),
            self.args.read.project().clone(),
            self.args.agents.clone(),
        );
        self.spawn(async move {
            let outcomes = answer.await.unwrap_or_default();
            for (late, outcome) in late.iter().zip(outcomes) {
                let LeaseRef { id, attempt } = late.lease;
                let (guid, reason) = (late.guid, late.cause.reason());
                if let Err(error) = outcome {
                    tracing::debug!(%project, %id, attempt, "a lease out of time was not taken back: {error}");
                    continue;
                }
                tracing::info!(%project, %id, attempt, %guid, "a lease is taken back: {reason}");
                let order = Directive {
                    instance_id: agents.get(guid).and_then(|e| e.agent().instance_id.clone()),
                    ..cancel_directive(late.lease, reason.as_str())
                };
                let payload = serde_json::to_vec(&order).unwrap_or_default();
                let subject = names::directive(&project, guid);
                if let Err(error) = client.publish(subject, payload.into()).await {
                    tracing::debug!(%guid, "the agent was not told: {error}");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> WorkId {
        WorkId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn each_lease_has_one_deadline_however_often_it_is_wound_up() {
        let now = Instant::now();
        let mut clocks = LeaseClocks::default();
        for n in 0..100_000_u64 {
            clocks.set(id(u128::from(n % 1_000)), now + Duration::from_millis(n));
        }
        assert_eq!((clocks.due.len(), clocks.of.len()), (1_000, 1_000));
        assert_eq!(clocks.next(), Some(now + Duration::from_secs(99)));
        clocks.clear(id(0));
        assert_eq!(clocks.pop_due(now), None);
        let due = clocks.pop_due(now + Duration::from_hours(1));
        assert_eq!(due, Some(id(1)));
        assert_eq!((clocks.due.len(), clocks.of.len()), (998, 998));
    }
}
