//! Leases that nobody may have told their agents of: written for an incarnation of the dispatcher
//! that died before it could answer, and found when this one had answered the claim without them.

use std::collections::{HashMap, HashSet};

use loom_protocol::{AgentGuid, WorkId};

/// Such leases, until the agent's next claim or their end.
#[derive(Debug, Default)]
pub(super) struct UnacknowledgedAssignments(HashMap<AgentGuid, HashSet<WorkId>>);

impl UnacknowledgedAssignments {
    pub fn note(&mut self, guid: AgentGuid, id: WorkId) {
        self.0.entry(guid).or_default().insert(id);
    }

    /// The lease has ended.
    pub fn forget(&mut self, guid: AgentGuid, id: WorkId) {
        if let Some(ids) = self.0.get_mut(&guid) {
            ids.remove(&id);
            if ids.is_empty() {
                self.0.remove(&guid);
            }
        }
    }

    /// What the agent is to be told now.
    pub fn take(&mut self, guid: AgentGuid) -> HashSet<WorkId> {
        self.0.remove(&guid).unwrap_or_default()
    }
}
