//! The items that are being assigned just now.

use std::sync::Arc;

use loom_protocol::WorkId;
use parking_lot::Mutex;

use crate::hashing::HashSet;
use crate::work_ledger::Header;

/// The items that are being assigned. What an assignment makes of its item is heard with its outcome, so the change
/// that the read model tells of it is passed over.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderAssignment(Arc<Mutex<HashSet<WorkId>>>);

impl UnderAssignment {
    /// They are handed to the ledger.
    pub fn begin(&self, ids: &[WorkId]) {
        self.0.lock().extend(ids);
    }

    /// The outcomes are there: from now on each change is heard, and what these items are now is to be looked at.
    pub fn end(&self, ids: &[WorkId]) {
        let mut under = self.0.lock();
        for id in ids {
            under.remove(id);
        }
    }

    /// Whether an item is held because it is being assigned.
    pub fn explains(&self, header: &Header) -> bool {
        header.status.is_leased() && self.0.lock().contains(&header.id)
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::Timestamp;
    use loom_protocol::work::WorkStatus;

    use super::*;
    use crate::domain::matching::Requirements;

    #[test]
    fn only_that_an_item_is_held_is_explained_by_its_assignment_and_only_while_it_lasts() {
        let [id, other] = [1, 2].map(|_| WorkId::generate());
        let needs = Requirements {
            capability: "rust".into(),
            boundary: "default".into(),
            required_agent_type: None,
            preferred_agent_type: None,
        };
        let mut header = Header::for_test(id, 1, 0, needs, Timestamp::default());
        let under = UnderAssignment::default();
        under.begin(&[other]);
        header.status = WorkStatus::Assigned;
        assert!(!under.explains(&header));
        under.begin(&[id]);
        for status in [WorkStatus::Assigned, WorkStatus::InProgress] {
            header.status = status;
            assert!(under.explains(&header), "{status}");
        }
        for status in [
            WorkStatus::Pending,
            WorkStatus::Completed,
            WorkStatus::Failed,
            WorkStatus::Cancelled,
        ] {
            header.status = status;
            assert!(!under.explains(&header), "{status}");
        }
        under.end(&[id]);
        header.status = WorkStatus::Assigned;
        assert!(!under.explains(&header));
    }
}
