//! When a warning that comes again and again, for as long as a fault lasts, is to be logged: when the fault begins,
//! and then at most every [`LOG_AGAIN_AFTER`], with the number of times that were passed over.

use std::time::{Duration, Instant};

/// How long a warning that comes again is passed over.
pub const LOG_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// One warning, and how often it came since it was logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repetition {
    logged_at: Option<Instant>,
    passed_over: u64,
}

impl Repetition {
    /// The warning comes at this time. Where it is to be logged: how many times were passed over before it.
    pub fn comes(&mut self, now: Instant) -> Option<u64> {
        let too_soon = |logged| now.saturating_duration_since(logged) < LOG_AGAIN_AFTER;
        if self.logged_at.is_some_and(too_soon) {
            self.passed_over += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.passed_over))
    }

    /// The fault is over: the warning is logged as soon as it comes again.
    pub fn over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_is_logged_then_one_in_ten_seconds_and_none_is_uncounted(
            pauses in proptest::collection::vec(0..6_000u64, 1..100),
        ) {
            let mut repetition = Repetition::default();
            let mut now = Instant::now();
            let (mut came, mut told, mut logged_at) = (0, 0, None);
            for pause in pauses {
                now += Duration::from_millis(pause);
                came += 1;
                if let Some(passed_over) = repetition.comes(now) {
                    told += passed_over + 1;
                    prop_assert_eq!(told, came);
                    if let Some(before) = logged_at.replace(now) {
                        prop_assert!(now - before >= LOG_AGAIN_AFTER);
                    }
                } else {
                    prop_assert!(logged_at.is_some_and(|at| now - at < LOG_AGAIN_AFTER));
                }
            }
        }
    }

    #[test]
    fn a_fault_that_begins_anew_is_logged_at_once() {
        let mut repetition = Repetition::default();
        let now = Instant::now();
        assert_eq!(repetition.comes(now), Some(0));
        assert_eq!(repetition.comes(now), None);
        repetition.over();
        assert_eq!(repetition.comes(now), Some(0));
    }
}
