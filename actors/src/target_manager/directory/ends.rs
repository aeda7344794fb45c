//! The ends of starts, and which of them the bucket may not have yet: those of late births follow from their links.

use std::sync::Arc;

use loom_protocol::SpinUpId;

use super::TargetDirectory;
use crate::target_manager::{Ended, Record};

impl TargetDirectory {
    /// The end of an operation was stored.
    pub(in crate::target_manager) fn apply_end(&self, end: Arc<Ended>) {
        let mut index = self.index.write();
        index.unwritten_ends.remove(&end.operation.operation_id);
        index.ended.insert(end);
        index.changes += 1;
    }

    /// The end of a late birth is known by its link, and will be stored.
    pub(in crate::target_manager) fn apply_end_to_come(&self, end: Arc<Ended>) {
        let mut index = self.index.write();
        index.unwritten_ends.insert(end.operation.operation_id);
        index.ended.insert(end);
        index.changes += 1;
    }

    /// The end of the start of an agent that is linked, where it was born late and the bucket may not say so yet: without
    /// the link its ticket could be used once more.
    pub(in crate::target_manager) fn end_to_come(
        &self,
        record: &Record,
        id: SpinUpId,
    ) -> Option<Ended> {
        let index = self.index.read();
        let end = index.ended.get(id)?;
        if index.unwritten_ends.contains(&id) {
            return Some((**end).clone());
        }
        record.end_late(end)
    }
}
