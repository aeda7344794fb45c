//! Requests about many things at once, which only REST has: those of a list, those that a filter names, or all.

use serde::Deserialize;

use crate::bounded::AtMost;
use crate::target::Mechanism;
use crate::work::limits;

/// `POST /api/agents/shutdown-batch`
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ShutdownBatchRequest {
    /// These agents.
    #[serde(alias = "agentGuids", alias = "agentIds", alias = "ids")]
    pub guids: Option<AtMost<{ limits::ITEMS }, String>>,
    /// Those that match.
    pub filter: Option<AgentBatchFilter>,
    /// All agents of the project.
    pub all: bool,
    /// Whether they may finish what they have; yes where absent.
    pub graceful: Option<bool>,
    /// How long they may take for that, in milliseconds.
    pub grace_period_ms: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// Which agents a batch is about; each field that is there must hold. An unknown one is
/// refused: a misspelt filter would mean everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentBatchFilter {
    /// Of this status.
    pub status: Option<String>,
    /// Without an item for at least so long, in milliseconds.
    pub idle_time_ms: Option<u64>,
    /// Of this type.
    #[serde(alias = "type")]
    pub agent_type: Option<String>,
    /// In this boundary.
    #[serde(alias = "classification")]
    pub boundary: Option<String>,
    /// With this capability.
    pub capability: Option<String>,
}

/// `POST /api/work/cancel-batch`
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct CancelBatchRequest {
    /// These items.
    #[serde(alias = "workItemIds", alias = "workIds")]
    pub ids: Option<AtMost<{ limits::ITEMS }, String>>,
    /// Those that match.
    pub filter: Option<WorkBatchFilter>,
    /// All items of the project that have not ended.
    pub all: bool,
    /// Whether what an agent holds goes to another one instead of being cancelled.
    pub reassign: bool,
    /// Why.
    pub reason: Option<String>,
    /// Who asks.
    pub by: Option<String>,
}

/// Which items a batch is about; each field that is there must hold. An unknown one is
/// refused: a misspelt filter would mean everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkBatchFilter {
    /// Of this status, or of one of several (comma between them); those that have not ended where absent.
    pub status: Option<String>,
    /// In this boundary.
    #[serde(alias = "classification")]
    pub boundary: Option<String>,
    /// Of this capability.
    pub capability: Option<String>,
    /// With this label: `name` or `name=value`.
    pub label: Option<String>,
    /// Of this priority, or a higher one.
    pub min_priority: Option<u8>,
    /// Of this agent: its guid, the beginning of it, or its handle.
    pub assigned_to: Option<String>,
}

/// `POST /api/dlq/retry-batch`
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct RetryBatchRequest {
    /// These letters.
    #[serde(alias = "workItemIds")]
    pub ids: AtMost<{ limits::ITEMS }, String>,
    /// Those of this capability.
    pub capability: Option<String>,
    /// Those with this reason.
    pub reason: Option<String>,
    /// All letters of the project.
    pub all: bool,
    /// Whether the attempts are counted anew; yes where absent.
    pub reset_attempts: Option<bool>,
}

/// `POST /api/targets/disable-batch`
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DisableTargetsRequest {
    /// These targets.
    #[serde(alias = "targetIds", alias = "targetNames", alias = "ids")]
    pub targets: Option<AtMost<{ limits::ITEMS }, String>>,
    /// Those that match.
    pub filter: Option<TargetBatchFilter>,
    /// All targets of the project.
    pub all: bool,
}

/// Which targets a batch is about; each field that is there must hold. An unknown one is refused: a misspelt filter
/// would mean all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetBatchFilter {
    /// Whose agents are of this type.
    #[serde(alias = "type")]
    pub agent_type: Option<String>,
    /// Whose agents can do this.
    pub capability: Option<String>,
    /// That serve this boundary.
    #[serde(alias = "classification")]
    pub boundary: Option<String>,
    /// Of this mechanism.
    pub mechanism: Option<Mechanism>,
    /// With this tag.
    pub tag: Option<String>,
}
