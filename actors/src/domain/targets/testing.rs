//! What the tests of births begin with.

use loom_protocol::target::{Mechanism, SpinUpOperation, SpinUpStatus};
use loom_protocol::{SpinUpId, TargetId, Timestamp};
use uuid::Uuid;

/// A start that was just decided, of a local target.
pub(crate) fn operation(id: SpinUpId) -> SpinUpOperation {
    SpinUpOperation {
        operation_id: id,
        target_id: TargetId::new(Uuid::from_u128(1)),
        target_name: "t".into(),
        mechanism: Mechanism::Local,
        status: SpinUpStatus::Pending,
        need: None,
        work_item_id: None,
        agent_guid: None,
        error: None,
        output: None,
        started_at: Timestamp::from_millis(0),
        ended_at: None,
    }
}
