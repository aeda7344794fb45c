//! When and how fast something that crashed is started again. Pure: time and jitter come in as values.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest first pause of what was given up, whatever its policy says: by then nobody waits for a quick remedy.
const PARKED_AT_LEAST: Duration = Duration::from_secs(1);
/// What a pause of what was given up never exceeds.
const PARKED_AT_MOST: Duration = Duration::from_mins(1);

/// When and how fast an actor, or a whole tree, is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// How many restarts are allowed within the window; the next crash is an exhaustion.
    pub max_restarts: u32,
    /// The window. Where it is shorter than `max_restarts` starts that time out take, those never exhaust the policy.
    pub within: Duration,
    /// The longest pause before the first restart in the window; doubles with each further one.
    pub backoff_first: Duration,
    /// What the pause never exceeds. Of a tree also the first pause when it was given up (at least 1 s, at the most 1
    /// minute); that one doubles with each try in vain, up to 1 minute.
    pub backoff_max: Duration,
    /// How long a start may take: of an actor its `pre_start` (what it loads after that is not counted), of a tree
    /// how long its start is waited for.
    pub start_timeout: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
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

/// The crashes that still count (at the most `max_restarts` of them), and how often it was given up.
///
/// What was given up is tried again after a pause; one crash before it is up is a try in vain, whatever the policy
/// allows. Once it is up it has all of its restarts again.
#[derive(Debug, Clone, Default)]
pub struct RestartHistory {
    crashes: VecDeque<Instant>,
    /// Since it was last up for a whole window.
    given_up: u32,
    on_trial: bool,
    up_since: Option<Instant>,
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
        self.note_up(policy, now, false);
        if self.on_trial {
            return RestartVerdict::Exhausted;
        }
        self.crashes
            .retain(|crash| now.saturating_duration_since(*crash) < policy.within);
        let earlier = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        if earlier >= policy.max_restarts {
            return RestartVerdict::Exhausted;
        }
        self.crashes.push_back(now);
        let (first, longest) = (policy.backoff_first, policy.backoff_max);
        RestartVerdict::RestartAfter(pause(first, earlier, longest, jitter))
    }

    /// After an exhaustion: forgets the crashes, and says after which pause to try once more. Spread like the others.
    pub fn give_up(&mut self, policy: &RestartPolicy, jitter: f64) -> Duration {
        self.crashes.clear();
        self.on_trial = true;
        let earlier = self.given_up;
        self.given_up = earlier.saturating_add(1);
        let first = policy.backoff_max.max(PARKED_AT_LEAST);
        pause(first, earlier, PARKED_AT_MOST, jitter)
    }

    /// Notes whether it is up, as often as wanted. When it was up for a whole window its next pause after it was given
    /// up is a first one.
    pub fn note_up(&mut self, policy: &RestartPolicy, now: Instant, is_up: bool) {
        if is_up {
            self.on_trial = false;
            self.up_since.get_or_insert(now);
        } else if let Some(since) = self.up_since.take()
            && now.saturating_duration_since(since) >= policy.within
        {
            self.given_up = 0;
        }
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

/// Between half and the whole of `first · 2ⁿ`, at the most `longest`.
fn pause(first: Duration, n: u32, longest: Duration, jitter: f64) -> Duration {
    let whole = first.saturating_mul(2_u32.saturating_pow(n)).min(longest);
    whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
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

    #[test]
    fn what_was_given_up_is_tried_after_pauses_that_double_until_it_was_up_for_a_window() {
        let policy = policy(2);
        let mut history = RestartHistory::default();
        let mut now = Instant::now();
        let pause_after = |history: &mut RestartHistory, now| {
            while history.record_crash(&policy, now, 1.0) != RestartVerdict::Exhausted {}
            history.give_up(&policy, 1.0)
        };
        for secs in [5, 10, 20, 40, 60, 60] {
            let pause = pause_after(&mut history, now);
            assert_eq!(pause, Duration::from_secs(secs));
            now += pause;
            let in_vain = history.record_crash(&policy, now, 1.0);
            assert_eq!(in_vain, RestartVerdict::Exhausted, "one try each");
        }
        // Up, but not for a window: it has its restarts again, and the pauses go on where they were.
        history.note_up(&policy, now, true);
        now += policy.within / 2;
        let crashed = history.record_crash(&policy, now, 1.0);
        assert!(matches!(crashed, RestartVerdict::RestartAfter(_)));
        assert_eq!(pause_after(&mut history, now), PARKED_AT_MOST);
        // Up for a window.
        history.note_up(&policy, now, true);
        history.note_up(&policy, now + policy.within / 2, true);
        now += policy.within;
        assert_eq!(pause_after(&mut history, now), Duration::from_secs(5));
    }

    proptest! {
        /// However often it is given up and whatever the policy says: half a second to a minute, never shorter than
        /// before without a window of being up in between; and a try that crashes before it was up is the only one.
        #[test]
        fn the_pauses_of_what_was_given_up_grow_and_are_bounded(
            max_restarts in 0_u32..4,
            max_ms in 0_u64..200_000,
            ups_ms in proptest::collection::vec(proptest::option::of(0_u64..5_000), 1..40),
        ) {
            let policy = RestartPolicy {
                max_restarts,
                within: Duration::from_secs(3),
                backoff_max: Duration::from_millis(max_ms),
                ..RestartPolicy::default()
            };
            let mut history = RestartHistory::default();
            let (mut now, mut before) = (Instant::now(), Duration::ZERO);
            for up_ms in ups_ms {
                let mut crashes = 1;
                while history.record_crash(&policy, now, 1.0) != RestartVerdict::Exhausted {
                    crashes += 1;
                }
                prop_assert!(crashes <= max_restarts + 1);
                let least = history.clone().give_up(&policy, 0.0);
                let pause = history.give_up(&policy, 1.0);
                prop_assert!(least >= PARKED_AT_LEAST / 2 && least >= pause.mul_f64(0.49));
                prop_assert!(pause <= PARKED_AT_MOST);
                prop_assert!(pause >= before);
                prop_assert!(history.is_empty());
                before = pause;
                now += pause;
                let mut trial = history.clone();
                prop_assert_eq!(trial.record_crash(&policy, now, 1.0), RestartVerdict::Exhausted);
                if let Some(up) = up_ms.map(Duration::from_millis) {
                    history.note_up(&policy, now, true);
                    now += up;
                    if up >= policy.within {
                        before = Duration::ZERO;
                    }
                }
            }
        }

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
