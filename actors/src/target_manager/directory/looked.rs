//! When targets were looked at last: kept in memory, since a look that shows nothing new writes nothing.

use loom_protocol::target::Target;
use loom_protocol::{TargetId, Timestamp};

use super::{Index, TargetDirectory};

impl TargetDirectory {
    /// A target was looked at.
    pub(in crate::target_manager) fn looked_at(&self, id: TargetId, at: Timestamp) {
        let mut index = self.index.write();
        if index.by_id.contains_key(&id) {
            index.looked.insert(id, at);
        }
    }
}

impl Index {
    /// A target with the time of the last look at it.
    pub(super) fn with_look(&self, mut target: Target) -> Target {
        let looked = self.looked.get(&target.id).copied();
        target.last_health_check = target.last_health_check.max(looked);
        target
    }

    /// Forgets the looks at targets that are gone.
    pub(super) fn forget_looks(&mut self) {
        let by_id = &self.by_id;
        self.looked.retain(|id, _| by_id.contains_key(id));
    }
}
