//! When a project was last used, and when it was last tried to let it sleep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When a project was last used by a request, and last tried in vain to let it sleep, on the monotonic clock.
pub struct LastUse {
    opened: Instant,
    /// In milliseconds since then.
    last: AtomicU64,
    /// The same of the try, and one more; 0: there was none.
    tried: AtomicU64,
}

impl Default for LastUse {
    /// Used now.
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            last: AtomicU64::new(0),
            tried: AtomicU64::new(0),
        }
    }
}

impl LastUse {
    /// It is used now.
    pub fn note(&self) {
        self.last.fetch_max(self.now(), Ordering::Relaxed);
    }

    /// For how long it has not been.
    pub fn unused(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(last)
    }

    /// It was tried now, and stays awake. That is no use of it.
    pub fn note_try(&self) {
        let tried = self.now().saturating_add(1);
        self.tried.fetch_max(tried, Ordering::Relaxed);
    }

    /// Whether it may be tried to let it sleep that has been unused for so long: a try in vain puts the next one off for as
    /// long.
    pub fn may_sleep_after(&self, unused: Duration) -> bool {
        let tried = self.tried.load(Ordering::Relaxed).checked_sub(1);
        let untried = tried.is_none_or(|tried| {
            self.opened
                .elapsed()
                .saturating_sub(Duration::from_millis(tried))
                >= unused
        });
        untried && self.unused() >= unused
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_used_again_and_again_is_not_unused() {
        let minute = Duration::from_mins(1);
        let last_use = LastUse::default();
        for _ in 0..3 {
            tokio::time::advance(minute).await;
            assert_eq!(last_use.unused(), minute);
            last_use.note();
            assert_eq!(last_use.unused(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_in_vain_puts_the_next_one_off_and_is_no_use() {
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        let last_use = LastUse::default();
        assert!(!last_use.may_sleep_after(minute), "it was used just now");
        assert!(last_use.may_sleep_after(Duration::ZERO), "it was not tried");
        tokio::time::advance(minute).await;
        assert!(last_use.may_sleep_after(minute));
        last_use.note_try();
        assert_eq!(last_use.unused(), minute, "its place in the order stays");
        tokio::time::advance(second).await;
        assert!(!last_use.may_sleep_after(minute), "it was tried just now");
        assert!(
            last_use.may_sleep_after(second),
            "for room it is tried sooner"
        );
        tokio::time::advance(minute.saturating_sub(second)).await;
        assert!(last_use.may_sleep_after(minute));
    }
}
