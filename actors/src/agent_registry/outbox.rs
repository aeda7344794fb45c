//! What is published to agents. Nobody waits for it: an order is repeated by every answer to a heartbeat.

use std::time::Duration;

use loom_protocol::agent::{Directive, ShutdownNotice};
use loom_protocol::{AgentGuid, ProjectId, names};
use serde::Serialize;
use tokio::task::JoinSet;

/// How long a message may wait for the connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Publishes beside the actor, for no longer than it lives.
pub(super) struct Outbox {
    client: async_nats::Client,
    project: ProjectId,
    tasks: JoinSet<()>,
}

impl Outbox {
    /// That of a project.
    pub fn new(client: async_nats::Client, project: ProjectId) -> Self {
        Self {
            client,
            project,
            tasks: JoinSet::new(),
        }
    }

    pub fn publish_directive(&mut self, guid: AgentGuid, directive: &Directive) {
        self.publish(names::directive(&self.project, guid), directive);
    }

    pub fn publish_shutdown(&mut self, notice: &ShutdownNotice) {
        self.publish(names::agent_shutdown(&self.project, notice.guid), notice);
    }

    fn publish(&mut self, subject: String, message: &impl Serialize) {
        while self.tasks.try_join_next().is_some() {}
        let Ok(payload) = serde_json::to_vec(message) else {
            return;
        };
        let client = self.client.clone();
        self.tasks.spawn(async move {
            let published = client.publish(subject, payload.into());
            match tokio::time::timeout(PATIENCE, published).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an order was not published"),
                Err(_) => tracing::debug!("an order was not published in time"),
            }
        });
    }
}
