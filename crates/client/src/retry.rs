//! When to try again: exponential backoff with jitter. Pure, but for the jitter.

use std::time::Duration;

/// The pauses between tries: each twice the last, up to a bound, less a random part of up to half.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// The pauses of a request: 50 ms, then up to 2 s.
    pub(crate) const fn of_request() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// The next pause, and never less than what the coordinator asked for.
    pub(crate) fn pause(&mut self, asked_for: Option<Duration>) -> Duration {
        let jittered = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.max);
        match asked_for {
            Some(floor) => jittered.max(floor),
            None => jittered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_are_jittered() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for bound in [100, 200, 400, 400] {
            let pause = backoff.pause(None);
            let bound = Duration::from_millis(bound);
            assert!(
                pause >= bound / 2 && pause <= bound,
                "{pause:?} of {bound:?}"
            );
        }
    }

    #[test]
    fn the_coordinator_may_ask_for_more() {
        let mut backoff = Backoff::of_request();
        assert_eq!(
            backoff.pause(Some(Duration::from_secs(9))),
            Duration::from_secs(9)
        );
    }
}
