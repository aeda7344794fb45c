//! What a look at a target says of it, and when that is worth a write. Pure.
//!
//! A look each minute at hundreds of targets must not fill the stream, so a record is written only
//! | when | how often at the most |
//! |---|---|
//! | the health is another one | at each look |
//! | the error is another one | every [`NOTE_EVERY`] |
//! | nothing is new | never |
//!
//! When it was looked at last is kept in memory, and is as old in the record as the last of these writes: after a restart
//! it may be older than it was told before.

use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::target::{HealthCheck, HealthStatus, TargetConfig, TargetStatus};

use super::record::TargetRecord;

/// How often another error of a target that stays unhealthy is written, at the most.
pub(crate) const NOTE_EVERY: Duration = Duration::from_mins(10);
/// How much of an error is kept, in bytes.
const LONGEST_ERROR: usize = 1024;

/// What a look has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkup {
    /// The configuration that was tried: of another one it says nothing.
    pub of: TargetConfig,
    /// Healthy or not; unknown where this program cannot look.
    pub status: HealthStatus,
    /// Why it is not healthy.
    pub error: Option<String>,
    /// When it ended.
    pub at: Timestamp,
}

impl<R: Clone> TargetRecord<R> {
    /// With what a look has shown. `None`: that is not worth a write.
    pub fn checked(&self, checkup: &Checkup) -> Option<Self> {
        let target = &self.target;
        if target.config != checkup.of {
            return None;
        }
        let is_other = target.health_status != checkup.status;
        let error = checkup.error.as_deref().map(shortened);
        let is_noted = target
            .last_health_check
            .is_some_and(|noted| checkup.at < noted.after(NOTE_EVERY));
        let is_news = checkup.status == HealthStatus::Unhealthy
            && target.last_error.as_deref() != error
            && !is_noted;
        (is_other || is_news).then(|| {
            self.with(checkup.at, |next| {
                let was = std::mem::replace(&mut next.target.health_status, checkup.status);
                next.target.last_health_check = Some(checkup.at);
                match checkup.status {
                    HealthStatus::Unhealthy => {
                        next.target.last_error = error.map(ToOwned::to_owned);
                    }
                    // The error of a start that failed is another matter.
                    HealthStatus::Healthy | HealthStatus::Unknown => {
                        next.target
                            .last_error
                            .take_if(|_| was == HealthStatus::Unhealthy);
                    }
                }
            })
        })
    }

    /// How often it is looked at without being asked for; `None`: never. One that was found unhealthy is looked at until it
    /// is healthy again, whether that is scheduled or not: it starts nothing by itself before.
    pub fn checked_every(&self) -> Option<Duration> {
        let target = &self.target;
        let check = target.health_check.unwrap_or(HealthCheck {
            enabled: false,
            ..HealthCheck::default()
        });
        let is_wanted = check.enabled || target.health_status == HealthStatus::Unhealthy;
        let is_on = target.status != TargetStatus::Disabled;
        (is_wanted && is_on).then(|| Duration::from_millis(check.interval_ms))
    }

    /// How long a look may take.
    pub fn look_limit(&self, most: Duration) -> Duration {
        let check = self.target.health_check.unwrap_or_default();
        Duration::from_millis(check.timeout_ms).min(most)
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
