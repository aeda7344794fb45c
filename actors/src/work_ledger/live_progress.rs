//! What agents report about the items that they work on. In memory; written down now and then only.

use loom_protocol::work::{Session, Usage};
use loom_protocol::{Timestamp, WorkId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::hashing::HashMap;

/// What an agent last reported about an item.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveProgress {
    /// Of which attempt.
    pub attempt: u32,
    /// 0 to 100.
    pub progress: Option<f64>,
    /// A sentence.
    pub message: Option<String>,
    /// What it has used up, all in all.
    pub usage: Option<Usage>,
    /// The conversation.
    pub session: Option<Session>,
    /// When it was reported.
    pub at: Timestamp,
    /// When it was last written down.
    pub persisted_at: Timestamp,
}

/// The last report about each item that runs.
#[derive(Default)]
pub(super) struct LiveProgresses(Mutex<HashMap<WorkId, Reported>>);

struct Reported {
    progress: LiveProgress,
    at: Instant,
}

impl LiveProgresses {
    /// What was reported about this attempt.
    pub fn get(&self, id: WorkId, attempt: u32) -> Option<LiveProgress> {
        let all = self.0.lock();
        let reported = all.get(&id)?;
        (reported.progress.attempt == attempt).then(|| reported.progress.clone())
    }

    /// When that was, on the monotonic clock.
    pub fn last_reported_at(&self, id: WorkId, attempt: u32) -> Option<Instant> {
        let all = self.0.lock();
        let reported = all.get(&id)?;
        (reported.progress.attempt == attempt).then_some(reported.at)
    }

    /// An agent reports.
    pub fn note(&self, id: WorkId, progress: LiveProgress) {
        let at = Instant::now();
        self.0.lock().insert(id, Reported { progress, at });
    }

    /// The attempt is over, or the item is gone.
    pub fn forget(&self, id: WorkId) {
        self.0.lock().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_counts_for_its_attempt_alone() {
        let (live, id) = (LiveProgresses::default(), WorkId::generate());
        let second = LiveProgress {
            attempt: 2,
            progress: Some(40.0),
            ..LiveProgress::default()
        };
        live.note(id, second.clone());
        assert_eq!(live.get(id, 2), Some(second));
        assert!(live.last_reported_at(id, 2).is_some());
        assert_eq!(
            (live.get(id, 1), live.last_reported_at(id, 3)),
            (None, None)
        );
        live.forget(id);
        assert_eq!(live.get(id, 2), None);
    }
}
