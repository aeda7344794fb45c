//! Lists of agents, and of what is none.

use serde::{Deserialize, Serialize};

/// `agents.list`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ListAgentsRequest {
    /// Only of this type.
    #[serde(skip_serializing_if = "Option::is_none", alias = "type")]
    pub agent_type: Option<String>,
    /// Only of this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only with this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only in this boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// At most so many; 50 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Instead of agents: the entries that cannot be taken for agents, each with the reason. Of the
    /// other fields only `limit` counts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unreadable: bool,
}

/// An entry that an agent put and that cannot be taken for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UnreadableEntry {
    /// The bucket that holds it.
    pub bucket: String,
    /// Its key there.
    pub key: String,
    /// The number of the put.
    pub revision: u64,
    /// The project that it names, where it names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub project_id: Option<String>,
    /// Why it is not taken.
    pub reason: String,
}
