//! When a project was last used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When a project was last used by a request, on the monotonic clock.
pub struct LastUse {
    opened: Instant,
    /// In milliseconds since then.
    last: AtomicU64,
}

impl Default for LastUse {
    /// Used now.
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl LastUse {
    /// It is used now.
    pub fn note(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// For how long it has not been.
    pub fn unused(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(last)
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
}
