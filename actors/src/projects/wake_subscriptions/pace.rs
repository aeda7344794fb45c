//! How much is much, and how often that is looked at.

use std::time::Duration;

/// What decides how those that sleep are heard: how many messages wake nobody, where all are heard together. The same is
/// counted on the way to and fro.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// More than these in `counted_for` are worth subscriptions for each.
    pub busy: u64,
    /// For how long they are counted.
    pub counted_for: Duration,
    /// How long the former subscriptions are kept after the new ones are heard.
    pub lingers: Duration,
    /// How often it is sampled what would come, while each is heard alone.
    pub sampled_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            busy: 300,
            counted_for: Duration::from_secs(1),
            lingers: Duration::from_secs(5),
            sampled_every: Duration::from_mins(1),
        }
    }
}

impl Pace {
    /// Not more than these in `counted_for` are heard together again: less than [`busy`](Self::busy), so that what is about
    /// as much as that does not change the way every minute.
    pub const fn calm(self) -> u64 {
        self.busy / 2
    }
}
