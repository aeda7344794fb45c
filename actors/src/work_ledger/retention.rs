//! Which finished records go, and when.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use loom_protocol::Timestamp;

use super::header::Header;
use super::read_model::ReadModel;

/// How often finished records are looked over.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The same while nothing is written and nothing of it is about to go: a timer costs as much as a message. A little more than a look at the
/// bucket may wait, so that one is due by then.
pub(super) const SWEEP_RARELY: Duration = Duration::from_secs(11);
/// How many are looked up at a time.
const BATCH: usize = 4_096;
/// How many removals are under way at a time: few, so that a trickle disturbs no other write, and
/// more the further the sweep has fallen behind, so that it keeps up with a fast fleet.
const REMOVALS_IN_FLIGHT: RangeInclusive<usize> = 16..=256;
/// One removal is under way for so many that wait.
const WAITING_FOR_EACH: usize = 16;

/// The timer of the next sweep: of all that were set, the last one counts.
#[derive(Debug, Default)]
pub(super) struct SweepTimer {
    number: u64,
    is_rare: bool,
}

impl SweepTimer {
    /// It is set anew. Gives its number.
    pub fn set(&mut self, pause: Duration) -> u64 {
        self.number += 1;
        self.is_rare = pause > SWEEP_EVERY;
        self.number
    }

    /// The timer of this number is over. Whether it counts.
    pub fn is_over(&mut self, number: u64) -> bool {
        let counts = number == self.number;
        self.is_rare &= !counts;
        counts
    }

    /// Whether it is set, and for longer than it may be while something is written.
    pub const fn is_rare(&self) -> bool {
        self.is_rare
    }
}

/// Whether any finished item is to be forgotten.
pub(super) fn is_due(read: &ReadModel, keep: usize, retention: Duration, now: Timestamp) -> bool {
    !read.to_forget(keep, now.before(retention), 1).is_empty()
}

/// Forgets finished items that the server has let expire, and removes the oldest of those that are
/// too many. Gives the number that went.
pub(super) async fn sweep(
    read: Arc<ReadModel>,
    keep: usize,
    retention: Duration,
    now: Timestamp,
) -> usize {
    let expired = now.before(retention);
    let mut total = 0;
    loop {
        let headers = read.to_forget(keep, expired, BATCH);
        let is_last = headers.len() < BATCH;
        let gone = forget(&read, headers, expired).await;
        total += gone;
        // Where the server removes nothing, the next sweep tries again.
        if is_last || gone == 0 {
            return total;
        }
    }
}

async fn forget(read: &Arc<ReadModel>, headers: Vec<Header>, expired: Timestamp) -> usize {
    let in_flight = removals_in_flight(headers.len());
    let gone: Vec<Header> = stream::iter(headers)
        .map(|header| {
            let store = read.store().clone();
            async move {
                if header.updated_at < expired {
                    return Some(header);
                }
                match store.remove(header.revision).await {
                    Ok(()) => Some(header),
                    Err(error) => {
                        tracing::debug!(id = %header.id, "{error}");
                        None
                    }
                }
            }
        })
        .buffer_unordered(in_flight)
        .filter_map(|gone| async move { gone })
        .collect()
        .await;
    for header in &gone {
        read.forget(header);
    }
    gone.len()
}

fn removals_in_flight(waiting: usize) -> usize {
    let (fewest, most) = REMOVALS_IN_FLIGHT.into_inner();
    (waiting / WAITING_FOR_EACH).clamp(fewest, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_timers_the_last_one_counts() {
        let mut timer = SweepTimer::default();
        assert!(!timer.is_rare(), "none is set");
        let rare = timer.set(SWEEP_RARELY);
        assert!(timer.is_rare());
        let soon = timer.set(SWEEP_EVERY);
        assert!(!timer.is_rare() && !timer.is_over(rare) && timer.is_over(soon));
        let again = timer.set(SWEEP_RARELY);
        assert!(timer.is_over(again) && !timer.is_rare(), "while it sweeps");
    }

    #[test]
    fn the_further_the_sweep_is_behind_the_more_removals_are_under_way() {
        let under_way = [0, 100, 2_048, BATCH, 1_000_000].map(removals_in_flight);
        assert_eq!(under_way, [16, 16, 128, 256, 256]);
    }
}
