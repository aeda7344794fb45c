//! Looking at items, calling them off, and the queue as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::item::WorkStatus;
use crate::agent::AgentStatus;
use crate::id::{AgentGuid, SpinUpId, TargetId, WorkId};
use crate::target::{Mechanism, SpinUpStatus, TargetStatus};
use crate::time::Timestamp;

/// A request that only names an item: `work.get`, `work.explain`. A prefix or the taskId will do if it is unambiguous.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct IdRequest {
    /// The item: its id, the beginning of it, or its taskId.
    pub id: String,
}

/// `work.cancel`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default)]
pub struct CancelRequest {
    /// The item: its id, the beginning of it, or its taskId.
    pub id: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `work.list`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ListWorkRequest {
    /// Only of this status, or of one of several (comma between them).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only of this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only of this boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// Only of this agent: its guid, the beginning of it, or its handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_to: Option<String>,
    /// Only with this label: `name` or `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// At most so many; 50 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// `asc`: oldest first, as where it is absent; `desc`: newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Only what was submitted then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// The answer to `work.explain`: who may take an item, and why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExplainAnswer {
    /// The item.
    pub id: WorkId,
    /// Where it stands.
    pub status: WorkStatus,
    /// One sentence.
    pub summary: String,
    /// How many items go before it, among those with the same needs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ahead: Option<usize>,
    /// Agents, with the rule that rejected each: the nearest first, which are those that may take it, then those that
    /// may not take it now, then those that never may. 100 at the most, and fewer where they would not fit.
    pub agents: Vec<AgentVerdict>,
    /// How many agents there are.
    #[serde(default)]
    pub agents_total: usize,
    /// How many of them may take it now.
    #[serde(default)]
    pub eligible: usize,
    /// How many agents that `agents` does not name each rule has rejected.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub others: BTreeMap<String, usize>,
    /// Targets, with the rule that keeps each from starting an agent for it: the nearest first, as with agents. 100 at the
    /// most, and fewer where they would not fit.
    pub targets: Vec<TargetVerdict>,
    /// Whether the targets are being read still, as for a moment after a start: nothing is said of them yet.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub targets_unread: bool,
    /// How many targets there are.
    #[serde(default)]
    pub targets_total: usize,
    /// How many of them may start an agent for it now.
    #[serde(default)]
    pub targets_eligible: usize,
    /// How many targets that `targets` does not name each rule has rejected.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub other_targets: BTreeMap<String, usize>,
    /// Agents that are being started and may take it once they are there, the first to be started first; 10 at the most.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub being_started: Vec<BeingStarted>,
}

/// Whether an agent may take an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentVerdict {
    /// The agent.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type.
    pub agent_type: String,
    /// Its status.
    pub status: AgentStatus,
    /// Whether it may take the item now.
    pub eligible: bool,
    /// The rule that rejected it: `capability boundary agent-type status slots held-off`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The same as a sentence.
    pub message: String,
}

/// Whether a target may start an agent for an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TargetVerdict {
    /// The target.
    pub id: TargetId,
    /// Its name.
    pub name: String,
    /// The type of its agents.
    pub agent_type: String,
    /// How they are started.
    pub mechanism: Mechanism,
    /// How it is.
    pub status: TargetStatus,
    /// Whether it may start one for the item now.
    pub eligible: bool,
    /// The rule against it: `capability boundary agent-type` (never), `disabled paused unhealthy full cooldown` (not now),
    /// `not-pending`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The same as a sentence.
    pub message: String,
}

/// An agent that is being started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BeingStarted {
    /// The start.
    pub operation_id: SpinUpId,
    /// The target.
    pub target_id: TargetId,
    /// Its name.
    pub target_name: String,
    /// Where the start is: `pending` or `in-progress`.
    pub status: SpinUpStatus,
    /// When it was decided.
    pub started_at: Timestamp,
    /// What its mechanism says at present: why it waits, where it does. A line of at most 300 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub said: Option<String>,
}

/// The answer to `queue.info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct QueueInfo {
    /// The stream that takes published work in.
    pub stream: String,
    /// Messages in it that are not taken over yet.
    pub messages: u64,
    /// Pending items by capability.
    pub pending: BTreeMap<String, usize>,
    /// When the oldest pending item was submitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_pending: Option<Timestamp>,
}

/// `queue.purge`: cancels what is pending and matches. One of the fields is needed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PurgeRequest {
    /// Only of this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only of this boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// Only with this label: `name` or `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// All that is pending, and no filter beside it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// The answer to `queue.purge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct PurgeAnswer {
    /// How many were cancelled.
    pub purged: usize,
}
