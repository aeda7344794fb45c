//! The start clock and the progress clock of every lease.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::Directive;
use loom_protocol::work::{LeaseRef, Reason};
use loom_protocol::{AgentGuid, WorkId, names};
use tokio::time::Instant;

use super::env::DispatcherEnv;
use super::item_deadlines::ItemDeadlines;
use super::messages::{DispatcherMsg, DispatcherTimer};
use crate::deadline_queue::DeadlineQueue;
use crate::domain::lease::{self, Expiry, LeaseVerdict};
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
    due: DeadlineQueue<WorkId>,
    /// Found out of time; judged again behind the barrier.
    late: Vec<WorkId>,
    /// Those for whom the barrier is being passed.
    at_the_barrier: Vec<WorkId>,
}

/// A lease that is out of time.
struct ExpiredLease {
    guid: AgentGuid,
    lease: LeaseRef,
    cause: ExpiryCause,
}

/// Why a lease is taken back.
#[derive(Debug, Clone, Copy)]
enum ExpiryCause {
    /// Its clock has run out.
    Clock(Expiry),
    /// The item is past its deadline, and so is the time that the agent had to stop.
    Deadline,
}

impl ExpiryCause {
    const fn reason(self) -> Reason {
        match self {
            Self::Clock(expiry) => expiry.reason(),
            Self::Deadline => Reason::Deadline,
        }
    }
}

impl LeaseClocks {
    /// Every lease that is there has its clock from now on.
    pub fn start(env: &DispatcherEnv, deadlines: &ItemDeadlines) -> Self {
        let mut clocks = Self::default();
        for id in env.args.read.leased() {
            clocks.set(env, deadlines, id);
        }
        clocks
    }

    /// An item was written: its clock runs if it is leased.
    pub fn item_changed(
        &mut self,
        env: &DispatcherEnv,
        deadlines: &ItemDeadlines,
        header: &Header,
    ) {
        if header.status.is_leased() {
            self.set(env, deadlines, header.id);
        } else {
            self.due.remove(&header.id);
        }
    }

    /// Sets the clock of a lease to its end as it is known now.
    pub fn set(&mut self, env: &DispatcherEnv, deadlines: &ItemDeadlines, id: WorkId) {
        if let Some((_, attempt, clock)) = env.args.read.lease_clock(id) {
            let grace = env.args.barrier.grace().since();
            let until = lease::deadline(&clock, &env.args.settings.limits(), grace);
            let stop = deadlines.stop_grace_of(id, attempt);
            self.due.set(id, stop.map_or(until, |stop| stop.min(until)));
        }
    }

    /// Clocks ring. Most of them ring in vain: their agents were heard of since they were set.
    pub fn timer_due(&mut self, env: &mut DispatcherEnv, deadlines: &ItemDeadlines, epoch: u64) {
        if self.due.fired(epoch).is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(id) = self.due.pop_due(now) {
            if self.judge(env, deadlines, id).is_some() {
                self.late.push(id);
            }
        }
        self.begin_barrier(env);
    }

    /// Whether an item's lease is out of time; if it is kept, its clock is set.
    fn judge(
        &mut self,
        env: &DispatcherEnv,
        deadlines: &ItemDeadlines,
        id: WorkId,
    ) -> Option<ExpiredLease> {
        let (guid, attempt, clock) = env.args.read.lease_clock(id)?;
        let (grace, now) = (env.args.barrier.grace().since(), Instant::now());
        let expired = |cause| ExpiredLease {
            guid,
            lease: LeaseRef { id, attempt },
            cause,
        };
        let stop = deadlines.stop_grace_of(id, attempt);
        match lease::judge(&clock, &env.args.settings.limits(), grace, now) {
            _ if stop.is_some_and(|stop| stop <= now) => Some(expired(ExpiryCause::Deadline)),
            LeaseVerdict::OutOfTime(expiry) => Some(expired(ExpiryCause::Clock(expiry))),
            LeaseVerdict::Keep { until } => {
                self.due.set(id, stop.map_or(until, |stop| stop.min(until)));
                None
            }
        }
    }

    /// One pass at a time; who is found late meanwhile takes the next.
    fn begin_barrier(&mut self, env: &mut DispatcherEnv) {
        if self.late.is_empty() || !self.at_the_barrier.is_empty() {
            return;
        }
        self.at_the_barrier = std::mem::take(&mut self.late);
        let (barrier, myself) = (env.args.barrier.clone(), env.myself());
        env.spawn(async move {
            let outcome = barrier.pass().await;
            let _ = myself.cast(DispatcherMsg::BarrierEnded(outcome));
        });
    }

    /// What was delivered in time has been applied, or we could not hear: judged anew either way.
    pub fn barrier_ended(
        &mut self,
        env: &mut DispatcherEnv,
        deadlines: &ItemDeadlines,
        outcome: BarrierOutcome,
    ) {
        let now = Instant::now();
        let mut expired = Vec::new();
        for id in std::mem::take(&mut self.at_the_barrier) {
            match self.judge(env, deadlines, id) {
                None => {}
                Some(found) if outcome == BarrierOutcome::Passed && expired.len() < TOGETHER => {
                    self.due.set(id, now + LOOK_AGAIN);
                    expired.push(found);
                }
                Some(_) => self.late.push(id),
            }
        }
        expire_leases(env, expired);
        self.begin_barrier(env);
    }

    pub fn arm(&mut self, env: &DispatcherEnv) {
        env.arm(DispatcherTimer::LeaseClocks, self.due.next_to_arm());
    }
}

/// Assigned or InProgress → Pending or Failed, and the agents are told.
fn expire_leases(env: &mut DispatcherEnv, expired: Vec<ExpiredLease>) {
    if expired.is_empty() {
        return;
    }
    let operations = expired.iter().map(|late| {
        let attempt = late.lease.attempt;
        let command = match late.cause {
            ExpiryCause::Deadline => Command::MissDeadline { attempt },
            ExpiryCause::Clock(expiry) => Command::Revoke {
                guid: late.guid,
                attempt,
                reason: expiry.reason(),
                spends_attempt: expiry.spends_attempt(),
                backoff: expiry
                    .spends_attempt()
                    .then(|| env.args.settings.retry.backoff(env.args.jitter.next())),
            },
        };
        Operation::Apply(late.lease.id, Arc::new(command))
    });
    let Ok(answer) = env.args.ledger.begin(operations.collect()) else {
        return;
    };
    let (client, project, agents) = (
        env.args.nats.client.clone(),
        env.args.read.project().clone(),
        env.args.agents.clone(),
    );
    env.spawn(async move {
        let outcomes = answer.await.unwrap_or_default();
        for (late, outcome) in expired.iter().zip(outcomes) {
            let LeaseRef { id, attempt } = late.lease;
            let (guid, reason) = (late.guid, late.cause.reason());
            if let Err(error) = outcome {
                tracing::debug!(%project, %id, attempt, "a lease out of time was not taken back: {error}");
                continue;
            }
            tracing::info!(%project, %id, attempt, %guid, "a lease is taken back: {reason}");
            let directive = Directive {
                instance_id: agents.get(guid).and_then(|e| e.agent().instance_id.clone()),
                ..Directive::cancel(late.lease, Some(reason.to_string()))
            };
            let payload = serde_json::to_vec(&directive).unwrap_or_default();
            let subject = names::directive(&project, guid);
            if let Err(error) = client.publish(subject, payload.into()).await {
                tracing::debug!(%guid, "the agent was not told: {error}");
            }
        }
    });
}
