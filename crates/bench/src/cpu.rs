//! The CPU time that the three processes take. It says what the work costs, also where other work
//! on the machine makes everybody wait.

use std::time::Duration;

/// What one measurement cost, per process; nothing where that cannot be told (other than Linux, or
/// a process of somebody else).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CpuTimes {
    /// This process.
    pub client: Option<Duration>,
    /// The coordinator.
    pub coordinator: Option<Duration>,
    /// The nats-server.
    pub server: Option<Duration>,
}

impl CpuTimes {
    /// What was spent since `before`.
    pub fn since(self, before: Self) -> Self {
        let spent = |now: Option<Duration>, before: Option<Duration>| now?.checked_sub(before?);
        Self {
            client: spent(self.client, before.client),
            coordinator: spent(self.coordinator, before.coordinator),
            server: spent(self.server, before.server),
        }
    }
}

/// What a process and its threads have spent so far.
pub(super) fn spent_by(pid: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let nanos = threads.flatten().filter_map(|thread| {
        // "nanoseconds on a CPU, nanoseconds waiting, time slices"
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanos.sum()))
}
