//! How everything stands when nothing moves any more.

use loom_protocol::work::{WorkItem, WorkStatus};
use loom_protocol::{AgentGuid, WorkId};

/// An item at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalItem {
    /// The item.
    pub id: WorkId,
    /// Where it stands.
    pub status: WorkStatus,
    /// The fence.
    pub attempt: u32,
    /// How many attempts are spent.
    pub attempts: u32,
    /// How many may be spent.
    pub max_attempts: u32,
    /// The agent that held it last.
    pub assigned_to: Option<AgentGuid>,
}

impl From<&WorkItem> for FinalItem {
    fn from(item: &WorkItem) -> Self {
        Self {
            id: item.id,
            status: item.status,
            attempt: item.attempt,
            attempts: item.attempts,
            max_attempts: item.max_attempts,
            assigned_to: item.assigned_to,
        }
    }
}

/// What the coordinator shows at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FinalState {
    /// Every item, as often as it is listed.
    pub items: Vec<FinalItem>,
    /// The items of all dead letters, each as often as there are letters of it; `None` where nobody looked, and then
    /// nothing is concluded about them.
    pub dead_letters: Option<Vec<WorkId>>,
}
