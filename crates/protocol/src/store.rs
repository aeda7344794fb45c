//! Which store the coordinator works with, and what was in one that is gone.

use serde::{Deserialize, Serialize};

use crate::id::WorkId;
use crate::work::WorkStatus;

/// `GET /api/store`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StoreAnswer {
    /// The id of the store, for `nats.store_id`; none: it is not known yet.
    pub id: Option<String>,
    /// Why it, or a project in it, is not to be used, a sentence each.
    pub problems: Vec<String>,
    /// What stops nothing: where the data directory remembers another one, and streams that do not keep what they are
    /// given; a sentence each.
    pub warnings: Vec<String>,
}

/// An item that was known and is not in the store that is there, or only in an older state. Its bodies are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LostItem {
    /// Its project.
    pub project_id: String,
    /// Its id.
    pub id: WorkId,
    /// The client's name for it.
    pub task_id: String,
    /// What it needed.
    pub capability: String,
    /// Where it stood.
    pub status: WorkStatus,
    /// Where it stands in the store that is there; none: it is not in it.
    pub in_store: Option<WorkStatus>,
}

/// `GET /api/store/lost`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LostAnswer {
    /// The items, unfinished ones first; at most [`MOST_LOST`].
    pub items: Vec<LostItem>,
    /// How many there are.
    pub total: usize,
}

/// How many lost items one answer lists.
pub const MOST_LOST: usize = 10_000;

/// `POST /api/store/accept`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AcceptRequest {
    /// Which project's store; none: all that is not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
}

/// Its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AcceptAnswer {
    /// Whether the store as a whole was another one, and is accepted now.
    pub whole: bool,
    /// The projects whose store was another one, and is accepted now.
    pub projects: Vec<String>,
    /// How many items were known and are not in it.
    pub lost: usize,
}
