//! The time of day, for the times that an agent tells of. The only file that reads it.

use loom_protocol::Timestamp;

#[allow(clippy::disallowed_methods, reason = "this is the one place")]
/// The time of day, by the clock of this machine.
pub fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::default().after(since_epoch)
}
