//! Items and jobs for the tests of this module.

use loom_client::Job;
use loom_protocol::work::WorkItem;
use loom_protocol::{AgentGuid, Timestamp};
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

/// A job that no coordinator knows of.
pub fn job() -> Job {
    job_for(item())
}

/// A job for an item.
pub fn job_for(item: WorkItem) -> Job {
    Job::detached(AgentGuid::generate(), item)
}
