//! An item for whoever wants to try something with one.

use serde_json::json;

use super::WorkItem;
use crate::time::Timestamp;

/// A made-up item in progress, to try out what takes one: the third attempt of `01890a5d-…`, of project `p` and
/// capability `c`. No coordinator knows of it, and its times are the beginning of time.
pub fn sample_item() -> WorkItem {
    let time = Timestamp::default();
    let item = serde_json::from_value(json!({
        "id": "01890a5d-ac96-774b-bcce-b302099a8057", "taskId": "t", "projectId": "p",
        "capability": "c", "boundary": "default", "description": "d", "priority": 5,
        "status": "in-progress", "terminal": false, "attempt": 3, "attempts": 0,
        "maxAttempts": 3, "offeredBy": "me", "offeredAt": time, "updatedAt": time, "revision": 1
    }));
    item.unwrap_or_else(|error| unreachable!("the sample is no item: {error}"))
}
