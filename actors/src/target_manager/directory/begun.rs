//! The starts that are not decided, by when they were begun last.

use loom_protocol::Timestamp;
use loom_protocol::target::SpinUpOperation;

use super::TargetDirectory;

impl TargetDirectory {
    /// Those that were begun after this time, and when, the oldest first.
    pub(in crate::target_manager) fn begun_since(
        &self,
        since: Timestamp,
    ) -> Vec<(SpinUpOperation, Timestamp)> {
        let index = self.index.read();
        let begun = index.births.begun_after(since);
        let births = begun.filter_map(|id| index.birth(id));
        let with_time = births.map(|(_, birth)| (birth.operation.clone(), birth.begun_at()));
        with_time.collect()
    }

    /// How many there are of those.
    pub(in crate::target_manager) fn count_begun_since(&self, since: Timestamp) -> usize {
        self.index.read().births.begun_after(since).count()
    }
}
