//! When and how fast something that crashed is started again. Pure: time and jitter come in as values.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use serde::{Deserialize, Serialize};

/// Who is restarted when an actor crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Only the one that crashed.
    OneForOne,
    /// The one that crashed and those started after it.
    RestForOne,
}

/// When and how fast an actor, or a whole tree, is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Who is restarted when this actor crashes. Says nothing for a tree: trees stand alone.
    pub strategy: Strategy,
    /// How many restarts are allowed within the window; the next crash is an exhaustion.
    pub max_restarts: u32,
    /// The window. Where it is shorter than `max_restarts` starts that time out take, those never exhaust the policy.
    pub within: Duration,
    /// The longest pause before the first restart in the window; doubles with each further one.
    pub backoff_first: Duration,
    /// What the pause never exceeds.
    pub backoff_max: Duration,
    /// How long a start may take: of an actor its `pre_start` (what it loads after that is not counted), of a tree
    /// how long its start is waited for.
    pub start_timeout: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            max_restarts: 10,
            within: Duration::from_mins(1),
            backoff_first: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            start_timeout: Duration::from_secs(30),
        }
    }
}

/// What to do about a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartVerdict {
    /// Start it again after this pause.
    RestartAfter(Duration),
    /// It crashed more often than the policy allows: let the next level up decide.
    Exhausted,
}

/// The crashes that still count. Holds at the most `max_restarts` of them.
#[derive(Debug, Clone, Default)]
pub struct RestartHistory {
    crashes: VecDeque<Instant>,
}

impl RestartHistory {
    /// Notes a crash at `now` and says what to do. Crashes older than the window are forgotten first.
    ///
    /// The pause is between half and the whole of `backoff_first · 2ⁿ` (at the most `backoff_max`), where n counts
    /// the restarts in the window before this one; `jitter` in `0.0..1.0` chooses in between.
    pub fn record_crash(
        &mut self,
        policy: &RestartPolicy,
        now: Instant,
        jitter: f64,
    ) -> RestartVerdict {
        self.crashes
            .retain(|crash| now.saturating_duration_since(*crash) < policy.within);
        let earlier = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        if earlier >= policy.max_restarts {
            return RestartVerdict::Exhausted;
        }
        self.crashes.push_back(now);
        let whole = policy
            .backoff_first
            .saturating_mul(2_u32.saturating_pow(earlier))
            .min(policy.backoff_max);
        RestartVerdict::RestartAfter(whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)))
    }

    /// How many crashes count at present.
    pub fn len(&self) -> usize {
        self.crashes.len()
    }

    /// Whether no crash counts at present.
    pub fn is_empty(&self) -> bool {
        self.crashes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn policy(max_restarts: u32) -> RestartPolicy {
        RestartPolicy {
            max_restarts,
            ..RestartPolicy::default()
        }
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest() {
        let policy = policy(10);
        let mut history = RestartHistory::default();
        let now = Instant::now();
        let pauses: Vec<_> = (0..10)
            .map(|_| history.record_crash(&policy, now, 1.0))
            .collect();
        let millis = [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000];
        assert_eq!(
            pauses,
            millis.map(|ms| RestartVerdict::RestartAfter(Duration::from_millis(ms)))
        );
        assert_eq!(
            history.record_crash(&policy, now, 1.0),
            RestartVerdict::Exhausted
        );
    }

    #[test]
    fn crashes_older_than_the_window_are_forgotten() {
        let policy = policy(1);
        let mut history = RestartHistory::default();
        let start = Instant::now();
        let first = history.record_crash(&policy, start, 0.0);
        assert_eq!(
            first,
            RestartVerdict::RestartAfter(Duration::from_millis(25))
        );
        assert_eq!(
            history.record_crash(&policy, start + policy.within / 2, 0.0),
            RestartVerdict::Exhausted
        );
        assert_eq!(
            history.record_crash(&policy, start + policy.within, 0.0),
            first
        );
    }

    proptest! {
        /// In no window more restarts than allowed; no pause outside of its bounds; no growth.
        #[test]
        fn never_more_restarts_in_a_window_than_allowed(
            max_restarts in 0_u32..8,
            within_ms in 1_u64..5_000,
            first_ms in 0_u64..1_000,
            max_ms in 0_u64..10_000,
            gaps_ms in proptest::collection::vec(0_u64..2_000, 1..60),
            jitter in 0.0_f64..1.0,
        ) {
            let policy = RestartPolicy {
                max_restarts,
                within: Duration::from_millis(within_ms),
                backoff_first: Duration::from_millis(first_ms),
                backoff_max: Duration::from_millis(max_ms),
                ..RestartPolicy::default()
            };
            let mut history = RestartHistory::default();
            let mut now = Instant::now();
            let mut restarts = Vec::new();
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                let in_window = restarts
                    .iter()
                    .filter(|at: &&Instant| now.duration_since(**at) < policy.within)
                    .count();
                match history.record_crash(&policy, now, jitter) {
                    RestartVerdict::RestartAfter(pause) => {
                        prop_assert!(in_window < max_restarts as usize);
                        prop_assert!(pause <= policy.backoff_max);
                        prop_assert!(pause >= policy.backoff_first.min(policy.backoff_max) / 2);
                        restarts.push(now);
                    }
                    RestartVerdict::Exhausted => prop_assert_eq!(in_window, max_restarts as usize),
                }
                prop_assert!(history.len() <= max_restarts as usize);
            }
        }
    }
}
