//! Items for the tests of the command line.

use loom_protocol::Timestamp;
use loom_protocol::work::WorkItem;
use serde_json::json;

/// An item in progress.
pub fn item() -> WorkItem {
    let time = Timestamp::default();
    serde_json::from_value(json!({
        "id": "01890a5d-ac96-774b-bcce-b302099a8057", "taskId": "t", "projectId": "p",
        "capability": "c", "boundary": "default", "description": "d", "priority": 5,
        "status": "in-progress", "terminal": false, "attempt": 3, "attempts": 0,
        "maxAttempts": 3, "offeredBy": "me", "offeredAt": time, "updatedAt": time, "revision": 1
    }))
    .unwrap()
}
