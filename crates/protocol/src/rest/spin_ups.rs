//! Starts of agents, as REST answers them.

use serde::{Deserialize, Serialize};

use super::PageInfo;
use crate::id::{SpinUpId, TargetId};
use crate::target::{SpinUpOperation, SpinUpStatus};
use crate::time::Timestamp;

/// `GET /api/spin-ups`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct SpinUpsPage {
    /// The starts, the latest first.
    pub operations: Vec<SpinUpOperation>,
    /// Where the page stands.
    #[serde(flatten)]
    pub page: PageInfo,
}

/// `POST /api/targets/{idOrName}/spin-up`: the start has begun, as existing clients read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SpinUpBegun {
    /// By this id its end is asked for.
    pub operation_id: SpinUpId,
    /// The target.
    pub target_id: TargetId,
    /// Its name.
    pub target_name: String,
    /// `in-progress`: it is decided, and goes on by itself. Where it ended before this was answered, how.
    pub status: SpinUpStatus,
    /// Whether an agent is started, or there already.
    pub success: bool,
    /// When it was decided.
    pub timestamp: Timestamp,
}

impl From<&SpinUpOperation> for SpinUpBegun {
    fn from(operation: &SpinUpOperation) -> Self {
        let status = match operation.status {
            SpinUpStatus::Pending => SpinUpStatus::InProgress,
            later => later,
        };
        Self {
            operation_id: operation.operation_id,
            target_id: operation.target_id,
            target_name: operation.target_name.clone(),
            status,
            success: !matches!(status, SpinUpStatus::Failed | SpinUpStatus::Timeout),
            timestamp: operation.started_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Mechanism;
    use serde_json::{Value, json};

    fn operation(status: SpinUpStatus) -> SpinUpOperation {
        SpinUpOperation {
            operation_id: SpinUpId::generate(),
            target_id: TargetId::generate(),
            target_name: "here".into(),
            mechanism: Mechanism::Local,
            status,
            need: None,
            work_item_id: None,
            agent_guid: None,
            error: None,
            output: None,
            started_at: Timestamp::from_millis(1),
            ended_at: None,
        }
    }

    #[test]
    fn a_start_that_is_decided_is_answered_with_the_six_fields_of_the_contract() {
        for (status, said, success) in [
            (SpinUpStatus::Pending, "in-progress", true),
            (SpinUpStatus::InProgress, "in-progress", true),
            (SpinUpStatus::Success, "success", true),
            (SpinUpStatus::Failed, "failed", false),
            (SpinUpStatus::Timeout, "timeout", false),
        ] {
            let operation = operation(status);
            let answer = serde_json::to_value(SpinUpBegun::from(&operation)).unwrap();
            let expected: Value = json!({
                "operationId": operation.operation_id, "targetId": operation.target_id, "targetName": "here",
                "status": said, "success": success, "timestamp": "1970-01-01T00:00:00.001Z",
            });
            assert_eq!(answer, expected);
        }
    }
}
