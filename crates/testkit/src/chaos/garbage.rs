//! What nobody can read, sent to everybody who reads.

use loom_protocol::names;
use serde_json::json;

use super::agent::Agent;
use super::world::CAPABILITIES;

impl Agent {
    /// One piece of garbage, somewhere.
    pub(super) async fn publish_garbage(&self) {
        let (project, client) = (self.project.id(), self.project.client());
        let (kind, size) = {
            let mut rng = self.rng.lock();
            (rng.usize(0..6), rng.usize(0..200))
        };
        let bytes: Vec<u8> = (0..size).map(|_| self.rng.lock().u8(..)).collect();
        self.world.count("garbage published");
        let subject = match kind {
            0 => names::request(project, "work.claim"),
            1 => names::request(project, "work.complete"),
            2 => names::heartbeat(project, self.spec.guid),
            3 => names::work_completed(project),
            4 => names::work_errors(project),
            _ => names::work_queue(project, CAPABILITIES[0]),
        };
        // Whether it arrives does not matter.
        let _ = client.publish(subject, bytes.into()).await;
        if kind == 3 {
            let lie =
                json!({ "workItemId": "no-uuid", "agentGuid": self.spec.guid, "attempt": "one" });
            let subject = names::work_completed(project);
            let _ = client.publish(subject, lie.to_string().into()).await;
        }
    }
}
