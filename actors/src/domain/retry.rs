//! When an item that came back is offered again, or that it is not. Pure: limits and the drawn
//! jitter in, verdict out.
//!
//! | the item came back because | it is offered again |
//! |---|---|
//! | it failed recoverably, or was without progress | after a pause: at random between 0 and `min(backoff_max, backoff_first · 2^(n-1))` for the n-th spent attempt |
//! | its agent said when (`notBefore`, `retryAfterMs`) | then |
//! | its agent was lost, had not started, or gave it back | at once |
//! | it failed, and not recoverably | never |
//! | all of its attempts are spent | never |

use std::time::Duration;

use loom_protocol::Timestamp;

/// A pause that grows with the attempts, with the jitter drawn already: whoever decides again
/// on a newer record comes to the same pause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    /// In `0.0..1.0`.
    jitter: f64,
}

impl Backoff {
    /// The pause before the second attempt, the longest one, and a jitter in `0.0..1.0` drawn by the caller.
    pub const fn new(first: Duration, max: Duration, jitter: f64) -> Self {
        Self {
            first,
            max,
            jitter: jitter.clamp(0.0, 1.0),
        }
    }

    /// The longest pause after so many spent attempts.
    fn ceiling(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1));
        let grown = doubled.and_then(|factor| self.first.checked_mul(factor));
        grown.map_or(self.max, |grown| grown.min(self.max))
    }

    /// The pause after so many spent attempts (one that spent none counts as the first).
    pub fn pause(&self, attempts: u32) -> Duration {
        self.ceiling(attempts).mul_f64(self.jitter)
    }
}

/// Why an item comes back, as far as its next attempt is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Return {
    /// Nobody is to try again.
    NotRecoverable,
    /// The item is not to blame.
    AtOnce,
    /// Its agent said when.
    NotBefore(Timestamp),
    /// The item may be to blame: after a pause.
    After(Backoff),
}

/// What becomes of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryVerdict {
    /// It has failed.
    GiveUp,
    /// It is offered again, not before a given time.
    Again {
        /// `None`: at once.
        not_before: Option<Timestamp>,
    },
}

/// Judges an item that has spent `attempts` of `max_attempts`, the last one included.
pub fn judge(attempts: u32, max_attempts: u32, why: Return, now: Timestamp) -> RetryVerdict {
    if attempts >= max_attempts {
        return RetryVerdict::GiveUp;
    }
    let not_before = match why {
        Return::NotRecoverable => return RetryVerdict::GiveUp,
        Return::AtOnce => None,
        Return::NotBefore(time) => Some(time),
        Return::After(backoff) => Some(now.after(backoff.pause(attempts))),
    };
    RetryVerdict::Again { not_before }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backoff(first: u64, max: u64, jitter: f64) -> Backoff {
        Backoff::new(
            Duration::from_millis(first),
            Duration::from_millis(max),
            jitter,
        )
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    #[test]
    fn the_pause_doubles_up_to_its_longest() {
        let pause = |n| backoff(1_000, 5_000, 1.0).pause(n).as_millis();
        assert_eq!(
            [0, 1, 2, 3, 4, 40].map(pause),
            [1_000, 1_000, 2_000, 4_000, 5_000, 5_000]
        );
    }

    #[test]
    fn the_jitter_is_full() {
        assert_eq!(backoff(1_000, 5_000, 0.0).pause(3), Duration::ZERO);
        assert_eq!(backoff(1_000, 5_000, 0.5).pause(3), Duration::from_secs(2));
    }

    fn any_return() -> impl Strategy<Value = Return> {
        prop_oneof![
            Just(Return::NotRecoverable),
            Just(Return::AtOnce),
            (0_i64..2_000_000).prop_map(|at| Return::NotBefore(Timestamp::from_millis(at))),
            (0_u64..10_000, 0_u64..100_000, 0.0..1.0_f64)
                .prop_map(|(first, max, jitter)| Return::After(backoff(first, max, jitter))),
        ]
    }

    proptest! {
        #[test]
        fn a_pause_is_between_nothing_and_the_ceiling(
            first in 0_u64..u64::MAX / 2, max in 0_u64..1 << 40, jitter in 0.0..1.0_f64, n in 0_u32..2_000,
        ) {
            let backoff = backoff(first, max, jitter);
            let pause = backoff.pause(n);
            prop_assert!(pause <= Duration::from_millis(max));
            prop_assert!(n > 1 || pause <= Duration::from_millis(first));
            prop_assert!(backoff.ceiling(n) <= backoff.ceiling(n + 1));
        }

        #[test]
        fn nobody_tries_more_often_than_allowed(attempts in 0_u32..20, most in 1_u32..20, why in any_return()) {
            let verdict = judge(attempts, most, why, now());
            let gives_up = attempts >= most || why == Return::NotRecoverable;
            prop_assert_eq!(verdict == RetryVerdict::GiveUp, gives_up);
        }

        #[test]
        fn what_the_agent_says_wins_and_the_same_decision_is_the_same(attempts in 0_u32..20, why in any_return()) {
            let verdict = judge(attempts, 20, why, now());
            prop_assert_eq!(verdict, judge(attempts, 20, why, now()));
            if let (Return::NotBefore(time), RetryVerdict::Again { not_before }) = (why, verdict) {
                prop_assert_eq!(not_before, Some(time));
            }
            if let (Return::After(_), RetryVerdict::Again { not_before }) = (why, verdict) {
                prop_assert!(not_before >= Some(now()));
            }
        }
    }
}
