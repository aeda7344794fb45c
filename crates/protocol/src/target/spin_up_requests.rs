//! Start an agent, look at starts.

use serde::{Deserialize, Serialize};

use super::SpinUpStatus;

/// `spin-up.trigger`: starts an agent now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SpinUpRequest {
    /// The target: its id, its name, or an unambiguous beginning of its id.
    pub target: String,
    /// The item that it is started for: its id, the beginning of it, or its taskId. The agent is told of it, and gets its
    /// boundary where the target has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work_item_id: Option<String>,
}

/// `spin-up.status`: one start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct OperationRequest {
    /// Its id, or an unambiguous beginning of it.
    pub operation_id: String,
}

/// `spin-up.list`: both filters together; what is absent filters nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ListSpinUpsRequest {
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<SpinUpStatus>,
    /// At this target: its id, also of one that is gone, its name, or an unambiguous beginning of its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// At most so many; 50 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
