//! One start of an agent, from the need to the birth.

use serde::{Deserialize, Serialize};

use super::Mechanism;
use crate::id::{AgentGuid, SpinUpId, TargetId, WorkId};
use crate::time::Timestamp;

/// Where a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SpinUpStatus {
    /// It is decided, and the mechanism was not asked yet.
    Pending,
    /// The mechanism was asked, or may have been.
    InProgress,
    /// The agent registered with its ticket.
    Success,
    /// It was refused, or ended before it registered.
    Failed,
    /// It did not register in time.
    Timeout,
}

impl SpinUpStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::InProgress,
        Self::Success,
        Self::Failed,
        Self::Timeout,
    ];

    /// Whether nothing more will come of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Timeout)
    }

    /// The status as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in-progress",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }
}

/// What work waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// The capability.
    pub capability: String,
    /// The boundary.
    pub boundary: String,
    /// The only agent type that may take it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub required_agent_type: Option<String>,
}

/// What stands in an [`error`](SpinUpOperation::error) between what became of a start and what was said last.
pub const SAID_LAST: &str = "; it said: ";

/// One start of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SpinUpOperation {
    /// Its id; the started agent carries it.
    pub operation_id: SpinUpId,
    /// The target.
    pub target_id: TargetId,
    /// Its name when the start was decided.
    pub target_name: String,
    /// How it is started.
    pub mechanism: Mechanism,
    /// Where it is.
    pub status: SpinUpStatus,
    /// The need that it is for; none where a person asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub need: Option<Need>,
    /// The item that asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub work_item_id: Option<WorkId>,
    /// The agent that was born.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_guid: Option<AgentGuid>,
    /// Why there was none: what became of it, and what was said last ([`SAID_LAST`]).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The end of what the mechanism said, without secrets; at most 4 KiB. While the start goes on, what it says at
    /// present: why it waits, where it does; at most 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
    /// When it was decided.
    pub started_at: Timestamp,
    /// When its outcome was known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<Timestamp>,
}
