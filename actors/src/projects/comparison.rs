//! When the marks of the projects that sleep are to be compared with their streams.

use std::time::Duration;

use tokio::time::Instant;

/// How often that is done without a cause, in case a message was lost.
pub(super) const COMPARE_EVERY: Duration = Duration::from_mins(5);
/// The pause after a comparison that failed; doubles with each that follows.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// When the next comparison is due. One that is wanted stays due until it has succeeded.
pub(super) struct Comparison {
    next: Instant,
    /// The pause after the next failure.
    again: Duration,
}

impl Comparison {
    /// Everything was compared just now.
    pub fn new(now: Instant) -> Self {
        Self {
            next: now + COMPARE_EVERY,
            again: AGAIN_FIRST,
        }
    }

    /// Something speaks for it: NATS has connected anew, and messages may be lost.
    pub fn is_wanted(&mut self, now: Instant) {
        self.next = now;
        self.again = AGAIN_FIRST;
    }

    /// It was made, or has failed.
    pub fn ended(&mut self, now: Instant, succeeded: bool) {
        if succeeded {
            *self = Self::new(now);
        } else {
            self.next = now + self.again;
            self.again = (self.again * 2).min(AGAIN_MAX);
        }
    }

    /// How long until it is due; zero: now.
    pub fn due_in(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_that_fails_after_a_reconnect_stays_due_until_it_succeeds() {
        let mut now = Instant::now();
        let mut comparison = Comparison::new(now);
        assert_eq!(comparison.due_in(now), COMPARE_EVERY);
        comparison.is_wanted(now);
        assert!(comparison.due_in(now).is_zero());
        let mut pauses = Vec::new();
        for _ in 0..7 {
            comparison.ended(now, false);
            pauses.push(comparison.due_in(now).as_secs());
            now += comparison.due_in(now);
            assert!(comparison.due_in(now).is_zero());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        comparison.is_wanted(now);
        comparison.ended(now, false);
        assert_eq!(comparison.due_in(now), AGAIN_FIRST, "anew");
        comparison.ended(now, true);
        assert_eq!(comparison.due_in(now), COMPARE_EVERY);
    }
}
