//! The clock as a value. The only file that may read the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use loom_protocol::Timestamp;

/// Tells the time of day. Cheap to clone; every actor gets one in its arguments.
///
/// Deadlines are measured on the monotonic clock (`tokio::time::Instant`), not on this one.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    /// By so many milliseconds ahead of the machine's.
    Ahead(i64),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that is by so many milliseconds ahead of the machine's (or behind it): as that of a coordinator on
    /// a machine whose clock is wrong.
    pub const fn ahead_by(millis: i64) -> Self {
        Self(Source::Ahead(millis))
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.as_millis()))))
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => machine_time(),
            Source::Ahead(millis) => {
                Timestamp::from_millis(machine_time().as_millis().saturating_add(*millis))
            }
            Source::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(millis) = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::Relaxed);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the one place")]
fn machine_time() -> Timestamp {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default().after(since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_when_told() {
        let clock = Clock::manual(Timestamp::from_millis(5));
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.clone().now(), Timestamp::from_millis(12));
    }
}
