//! What an operator may tune about the actors, with defaults. The program reads these from TOML.

use std::time::Duration;

use loom_protocol::work::Reason;
use serde::{Deserialize, Serialize};

use crate::domain::lease::LeaseLimits;
use crate::domain::letter::AutoRetry;
use crate::domain::reaping::ReapTerms;
use crate::domain::retry::Backoff;
use loom_supervision::RestartPolicy;

/// Durations in configuration: text with a unit, like `"30s"` or `"1h 30m"`.
pub mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes a duration with its unit.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    /// Reads a duration with its unit; a bare number is refused.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|_| D::Error::custom("a duration is text with a unit, like \"30s\""))?;
        humantime::parse_duration(&text).map_err(|e| {
            D::Error::custom(format!(
                "{text:?} is not a duration: {e}; write a number and a unit, like \"30s\", \"5m\" or \"24h\""
            ))
        })
    }
}

/// `[agents]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    /// How often an agent that names no interval of its own is to beat.
    #[serde(with = "duration_text")]
    pub heartbeat_every: Duration,
    /// After how much silence an agent is offline. At least three times `heartbeat_every`.
    #[serde(with = "duration_text")]
    pub stale_after: Duration,
    /// The same of an agent that never named an interval and never asked a request. At least
    /// `stale_after`.
    #[serde(with = "duration_text")]
    pub bare_stale_after: Duration,
    /// How long an offline agent's entry is kept.
    #[serde(with = "duration_text")]
    pub bury_after: Duration,
    /// How long the grave of an agent that was taken for dead is kept.
    #[serde(with = "duration_text")]
    pub grave_retention: Duration,
    /// After how much idleness an agent born from a target is sent home.
    #[serde(with = "duration_text")]
    pub idle_timeout: Duration,
    /// How long an agent that was sent home may take.
    #[serde(with = "duration_text")]
    pub idle_grace: Duration,
    /// After how many items in a row, each failed quickly, an agent is quarantined; 0: never.
    pub quarantine_after: u32,
    /// An item that was held for less than this has failed quickly.
    #[serde(with = "duration_text")]
    pub quarantine_within: Duration,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            heartbeat_every: Duration::from_secs(10),
            stale_after: Duration::from_secs(30),
            bare_stale_after: Duration::from_mins(3),
            bury_after: Duration::from_hours(24),
            grave_retention: Duration::from_hours(168),
            idle_timeout: Duration::from_mins(5),
            idle_grace: Duration::from_secs(30),
            quarantine_after: 3,
            quarantine_within: Duration::from_secs(10),
        }
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

/// `[compat]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompatSettings {
    /// Whether the bucket `agent-registry` is read, where there is one.
    pub agent_registry: bool,
}

impl Default for CompatSettings {
    fn default() -> Self {
        Self {
            agent_registry: true,
        }
    }
}

/// `[work]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkSettings {
    /// How long an agent may take to start what it claimed.
    #[serde(with = "duration_text")]
    pub start_timeout: Duration,
    /// How long an item may be without progress, where it names no `timeoutMs`.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// How long an agent may take to stop an item that was cancelled, or is past its deadline.
    #[serde(with = "duration_text")]
    pub stop_grace: Duration,
    /// How many attempts may be spent on an item that names no `maxAttempts`.
    pub max_attempts: u32,
    /// How long a finished item can be read.
    #[serde(with = "duration_text")]
    pub retention: Duration,
    /// How many finished items can be read at the most; the oldest go first.
    pub max_finished: usize,
    /// `[work.retry]`
    pub retry: RetrySettings,
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

impl Default for WorkSettings {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(30),
            timeout: Duration::from_mins(30),
            stop_grace: Duration::from_secs(30),
            max_attempts: 3,
            retention: Duration::from_hours(168),
            max_finished: 100_000,
            retry: RetrySettings::default(),
        }
    }
}

/// `[work.retry]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// The pause before the second attempt.
    #[serde(with = "duration_text")]
    pub backoff_first: Duration,
    /// The longest pause between two attempts.
    #[serde(with = "duration_text")]
    pub backoff_max: Duration,
}

impl RetrySettings {
    /// The pauses of a project, with a jitter in `0.0..1.0` drawn by the caller.
    pub const fn backoff(&self, jitter: f64) -> Backoff {
        Backoff::new(self.backoff_first, self.backoff_max, jitter)
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_mins(5),
        }
    }
}

/// `[dlq]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DlqSettings {
    /// How long a dead letter is kept.
    #[serde(with = "duration_text")]
    pub retention: Duration,
    /// Whether dead letters are put back by a schedule.
    pub auto_retry: bool,
    /// Those of these reasons.
    pub auto_retry_reasons: Vec<Reason>,
    /// How long after the failure for the first time; doubles with each.
    #[serde(with = "duration_text")]
    pub auto_retry_after: Duration,
    /// How often, at the most, before somebody has to do it by hand.
    pub auto_retry_max: u32,
}

impl Default for DlqSettings {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(30 * 24),
            auto_retry: false,
            auto_retry_reasons: vec![Reason::AgentLost, Reason::Timeout, Reason::NotStarted],
            auto_retry_after: Duration::from_mins(15),
            auto_retry_max: 3,
        }
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

/// What `strategy` may say. It has no effect any more: the one that crashed is restarted, whatever it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Only the one that crashed.
    #[default]
    OneForOne,
    /// Formerly also those that were started after it.
    RestForOne,
}

/// `[supervision]`: when and how fast a crashed actor is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisionSettings {
    /// Without effect; goes in the next release.
    pub strategy: Strategy,
    /// How many restarts are allowed `within` a window; the next one restarts the project's tree.
    pub max_restarts: u32,
    /// The window.
    #[serde(with = "duration_text")]
    pub within: Duration,
    /// The pause before the first restart; doubles with each in the window.
    #[serde(with = "duration_text")]
    pub backoff_first: Duration,
    /// The longest pause before a restart.
    #[serde(with = "duration_text")]
    pub backoff_max: Duration,
    /// How long an actor may take to start; what it reads from NATS after that is not counted.
    #[serde(with = "duration_text")]
    pub start_timeout: Duration,
    /// The same keys for the AgentRegistry alone.
    #[serde(skip_serializing_if = "SupervisionOverride::is_empty")]
    pub agent_registry: SupervisionOverride,
    /// The same keys for the WorkDispatcher alone.
    #[serde(skip_serializing_if = "SupervisionOverride::is_empty")]
    pub work_dispatcher: SupervisionOverride,
    /// The same keys for the WorkLedger alone.
    #[serde(skip_serializing_if = "SupervisionOverride::is_empty")]
    pub work_ledger: SupervisionOverride,
    /// The same keys for the GcReaper alone.
    #[serde(skip_serializing_if = "SupervisionOverride::is_empty")]
    pub gc_reaper: SupervisionOverride,
    /// The same keys for the DlqRetrier alone.
    #[serde(skip_serializing_if = "SupervisionOverride::is_empty")]
    pub dlq_retrier: SupervisionOverride,
    /// The same keys for the tree of a whole project.
    #[serde(skip_serializing_if = "SupervisionOverride::is_empty")]
    pub project: SupervisionOverride,
}

/// What one actor has otherwise than `[supervision]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the keys of [supervision], each optional")]
pub struct SupervisionOverride {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub within: Option<Duration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub backoff_first: Option<Duration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub backoff_max: Option<Duration>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "optional_duration_text"
    )]
    pub start_timeout: Option<Duration>,
}

impl SupervisionOverride {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl SupervisionSettings {
    /// What holds for an actor, or for a project's tree, that has this otherwise.
    pub fn policy(&self, own: &SupervisionOverride) -> RestartPolicy {
        RestartPolicy {
            max_restarts: own.max_restarts.unwrap_or(self.max_restarts),
            within: own.within.unwrap_or(self.within),
            backoff_first: own.backoff_first.unwrap_or(self.backoff_first),
            backoff_max: own.backoff_max.unwrap_or(self.backoff_max),
            start_timeout: own.start_timeout.unwrap_or(self.start_timeout),
        }
    }
}

impl Default for SupervisionSettings {
    fn default() -> Self {
        let general = RestartPolicy::default();
        Self {
            strategy: Strategy::default(),
            max_restarts: general.max_restarts,
            within: general.within,
            backoff_first: general.backoff_first,
            backoff_max: general.backoff_max,
            start_timeout: general.start_timeout,
            agent_registry: SupervisionOverride::default(),
            work_dispatcher: SupervisionOverride::default(),
            work_ledger: SupervisionOverride::default(),
            gc_reaper: SupervisionOverride::default(),
            dlq_retrier: SupervisionOverride::default(),
            // An actor that never starts needs about 20 s to exhaust its own restarts; a window of a minute would
            // forget each such round before the next, and the project would never be parked.
            project: SupervisionOverride {
                max_restarts: Some(3),
                within: Some(Duration::from_mins(10)),
                ..SupervisionOverride::default()
            },
        }
    }
}

/// As [`duration_text`], for a key that may be absent.
mod optional_duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "super::duration_text")] Duration);

    #[allow(clippy::ref_option, reason = "the signature is serde's")]
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Text).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<Text>::deserialize(deserializer).map(|text| text.map(|Text(value)| value))
    }
}

#[cfg(test)]
mod tests {
    use loom_supervision::{RestartHistory, RestartVerdict};
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn an_override_wins_over_the_general_settings() {
        let own = SupervisionOverride {
            max_restarts: Some(2),
            ..SupervisionOverride::default()
        };
        let policy = SupervisionSettings::default().policy(&own);
        assert_eq!(policy.max_restarts, 2);
        assert_eq!(policy.within, Duration::from_mins(1));
    }

    /// The pauses until the policy is exhausted by starts that fail at once; `None` when it never is.
    fn time_to_exhaustion(policy: &RestartPolicy, per_try: Duration) -> Option<Duration> {
        let (mut history, start) = (RestartHistory::default(), Instant::now());
        let mut now = start;
        for _ in 0..1000 {
            now += per_try;
            match history.record_crash(policy, now, 1.0) {
                RestartVerdict::RestartAfter(pause) => now += pause,
                RestartVerdict::Exhausted => return Some(now - start),
            }
        }
        None
    }

    #[test]
    fn by_default_an_actor_that_never_starts_parks_its_project_within_two_minutes() {
        let settings = SupervisionSettings::default();
        let actor = settings.policy(&settings.work_ledger);
        let project = settings.policy(&settings.project);
        let one_tree = time_to_exhaustion(&actor, Duration::ZERO).unwrap();
        let parked = time_to_exhaustion(&project, one_tree).unwrap();
        assert!(parked < Duration::from_mins(2), "{parked:?}");
    }
}
