//! What an operator may tune about the actors, with defaults. The program reads these from TOML.

use std::time::Duration;

use loom_protocol::target::Mechanism;
use loom_protocol::work::Reason;

use crate::domain::lease::LeaseLimits;
use crate::domain::letter::AutoRetry;
use crate::domain::reaping::ReapTerms;
use crate::domain::retry::Backoff;
use crate::section;

mod setting;
mod supervision;

pub use setting::{
    Field, Kind, Scalar, Section, Setting, Shape, Value, at_least_ms, between, no_such, split,
};
pub use supervision::{RestartOverride, RestartSettings, Strategy, SupervisionSettings};

section! {
    /// `[agents]`
    pub struct AgentSettings {
        /// How often an agent that names no interval of its own is to beat.
        heartbeat_every: Duration [at_least_ms(10)] = Duration::from_secs(10);
        /// After how much silence an agent is offline and its work goes back; at least 3 x heartbeat_every.
        stale_after: Duration [at_least_ms(10)] = Duration::from_secs(30);
        /// The same of an agent that never named an interval and never asked a request: a client that knows nothing but
        /// its entry. At least stale_after.
        bare_stale_after: Duration [at_least_ms(10)] = Duration::from_mins(3);
        /// How long the entry of an offline agent is kept.
        bury_after: Duration [at_least_ms(10)] = Duration::from_hours(24);
        /// How long the grave of an agent that was taken for dead is kept; until then it is told to register anew when
        /// it returns. So long is the entry of one kept that left in quarantine.
        grave_retention: Duration [at_least_ms(1000)] = Duration::from_hours(7 * 24);
        /// After how much idleness an agent that was started from a target is sent home.
        idle_timeout: Duration [at_least_ms(1)] = Duration::from_mins(5);
        /// How long an agent that was sent home may take.
        idle_grace: Duration = Duration::from_secs(30);
        /// An agent that fails so many items in a row, each within a short time, is quarantined until
        /// `loom agents resume`; 0: never.
        quarantine_after: u32 = 3;
        /// That short time, from the assignment to the failure.
        quarantine_within: Duration = Duration::from_secs(10);
    }
}

impl AgentSettings {
    /// Whom the reaper takes for dead.
    pub const fn reap_terms(&self) -> ReapTerms {
        ReapTerms {
            stale_after: self.stale_after,
            bare_stale_after: self.bare_stale_after,
            heartbeat_every: self.heartbeat_every,
            bury_after: self.bury_after,
            forget_quarantine_after: self.grave_retention,
        }
    }
}

section! {
    /// `[compat]`
    pub struct CompatSettings {
        /// Read the agents of all projects in the bucket agent-registry, where there is one.
        agent_registry: bool = true;
    }
}

section! {
    /// `[work]`
    #[derive(Hash)]
    pub struct WorkSettings {
        /// How long an agent may take to start what it claimed.
        start_timeout: Duration [at_least_ms(10)] = Duration::from_secs(30);
        /// How long an item may be without progress, where it names no timeoutMs.
        timeout: Duration [at_least_ms(10)] = Duration::from_mins(30);
        /// How long an agent may take to stop an item that was cancelled, or is past its deadline.
        stop_grace: Duration = Duration::from_secs(30);
        /// How many attempts may be spent on an item that names no maxAttempts.
        max_attempts: u32 [between(1, 0xffff_ffff)] = 3;
        /// How long a finished item can be read.
        retention: Duration [at_least_ms(1000)] = Duration::from_hours(7 * 24);
        /// How many finished items can be read at the most; the oldest go first.
        max_finished: usize [between(1, 100_000_000)] = 100_000;
        /// The pause before a failed item is offered again.
        retry: RetrySettings;
    }
}

impl WorkSettings {
    /// How long the clocks of a project run.
    pub const fn limits(&self) -> LeaseLimits {
        LeaseLimits {
            start: self.start_timeout,
            progress: self.timeout,
        }
    }
}

section! {
    /// `[work.retry]`
    #[derive(Hash)]
    pub struct RetrySettings {
        /// The pause before the second attempt; doubles with each.
        backoff_first: Duration = Duration::from_secs(1);
        /// The longest pause between two attempts.
        backoff_max: Duration = Duration::from_mins(5);
    }
}

impl RetrySettings {
    /// The pauses of a project, with a jitter in `0.0..1.0` drawn by the caller.
    pub const fn backoff(&self, jitter: f64) -> Backoff {
        Backoff::new(self.backoff_first, self.backoff_max, jitter)
    }
}

/// When the TargetManager starts agents, and how long it waits for them: the keys of `[targets]` that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirthSettings {
    /// How many starts of a project take places at once; each for half a minute at the most.
    pub max_concurrent: u32,
    /// How long a target rests after its first failure; doubles with each in a row.
    pub cooldown: Duration,
    /// How many waiting items one agent is started for.
    pub items_per_agent: u32,
    /// How long a decided operation can be read.
    pub keep_operations: Duration,
    /// How long a start may take until its agent registers.
    pub birth_timeout: BirthTimeoutSettings,
}

section! {
    /// `[targets.birth_timeout]`
    pub struct BirthTimeoutSettings {
        /// Of a process on this machine.
        local: Duration [at_least_ms(10)] = Duration::from_secs(30);
        /// Of one on another machine.
        ssh: Duration [at_least_ms(10)] = Duration::from_mins(2);
        /// Of whatever a webhook asks for.
        webhook: Duration [at_least_ms(10)] = Duration::from_mins(5);
        /// Of a Job of Kubernetes.
        kubernetes: Duration [at_least_ms(10)] = Duration::from_mins(15);
        /// Of a run of a workflow.
        github_actions as "github-actions": Duration [at_least_ms(10)] = Duration::from_mins(15);
    }
}

impl BirthTimeoutSettings {
    /// That of a mechanism.
    pub const fn of(&self, mechanism: Mechanism) -> Duration {
        match mechanism {
            Mechanism::Local => self.local,
            Mechanism::Ssh => self.ssh,
            Mechanism::Webhook => self.webhook,
            Mechanism::Kubernetes => self.kubernetes,
            Mechanism::GithubActions => self.github_actions,
        }
    }
}

section! {
    /// `[dlq]`
    #[derive(Hash)]
    pub struct DlqSettings {
        /// How long a dead letter is kept.
        retention: Duration [at_least_ms(1000)] = Duration::from_hours(30 * 24);
        /// Put dead letters back into the queue by a schedule.
        auto_retry: bool = false;
        /// Those of these reasons: agent-error, usage-limit, timeout, agent-lost, not-started, released, deadline, no-result, denied, checks, outage, account.
        auto_retry_reasons: Vec<Reason> = vec![Reason::AgentLost, Reason::Timeout, Reason::NotStarted];
        /// How long after the failure for the first time; doubles with each.
        auto_retry_after: Duration [at_least_ms(1)] = Duration::from_mins(15);
        /// How often, at the most, before somebody has to do it by hand.
        auto_retry_max: u32 = 3;
    }
}

impl DlqSettings {
    /// The schedule, where there is one.
    pub fn schedule(&self) -> Option<AutoRetry> {
        self.auto_retry.then(|| AutoRetry {
            reasons: self.auto_retry_reasons.clone(),
            after: self.auto_retry_after,
            max: self.auto_retry_max,
        })
    }
}
