//! What an agent does by itself, as its conduct says.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::work::{ClaimedItem, LeaseRef};
use loom_protocol::{AgentGuid, WireError, WorkId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Behaviour, Done, lease_of};
use crate::fleet::TestProject;

/// How long it lets a claim wait.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
const AFTER_REFUSAL: Duration = Duration::from_millis(50);

/// The part that the tasks share.
pub(super) struct Doing {
    pub project: TestProject,
    pub guid: AgentGuid,
    pub slots: usize,
    pub behaviour: watch::Sender<Behaviour>,
    pub done: watch::Sender<Done>,
}

impl Doing {
    pub async fn beat(self: Arc<Self>, every: Duration) {
        loop {
            self.until_awake().await;
            let beat = json!({ "guid": self.guid });
            if let Err(error) = self.project.request("agents.heartbeat", beat).await {
                self.refused(error);
            }
            sleep(every).await;
        }
    }

    pub async fn work(self: Arc<Self>) {
        let mut jobs = JoinSet::new();
        loop {
            self.until_eager().await;
            while jobs.try_join_next().is_some() {}
            if jobs.len() >= self.slots {
                jobs.join_next().await;
                continue;
            }
            let claim = json!({
                "max": self.slots - jobs.len(),
                "waitMs": CLAIM_WAIT.as_millis(),
                "claimId": WorkId::generate(),
            });
            for item in self.claim_surely(claim).await {
                let lease = lease_of(&item);
                self.done.send_modify(|done| done.claimed.push(lease));
                jobs.spawn(self.clone().deal_with(lease));
            }
        }
    }

    /// Repeats a claim whose answer it did not get, by its name.
    async fn claim_surely(&self, claim: Value) -> Vec<ClaimedItem> {
        loop {
            self.until_eager().await;
            match self.project.claim(self.guid, claim.clone()).await {
                Ok(items) => return items,
                Err(error) => {
                    self.refused(error);
                    sleep(AFTER_REFUSAL).await;
                }
            }
        }
    }

    async fn deal_with(self: Arc<Self>, lease: LeaseRef) {
        let mut behaviour = self.behaviour.subscribe();
        loop {
            let now = *behaviour.borrow_and_update();
            let reported = match now {
                Behaviour::Hold | Behaviour::Stall | Behaviour::Beat => {
                    if behaviour.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Behaviour::Late(late) => {
                    sleep(late).await;
                    self.complete(self.guid, lease).await
                }
                Behaviour::Diligent => self.complete(self.guid, lease).await,
                Behaviour::As(other) => self.complete(other, lease).await,
                Behaviour::WrongAttempt => {
                    let attempt = lease.attempt + 1;
                    self.complete(self.guid, LeaseRef { attempt, ..lease })
                        .await
                }
                Behaviour::Fail { recoverable } => {
                    let error = json!({ "error": "told to fail", "recoverable": recoverable });
                    self.report("fail", self.guid, lease, error).await.map(drop)
                }
            };
            match reported {
                Ok(()) => return,
                Err(error) if error.code.is_transient() => sleep(AFTER_REFUSAL).await,
                Err(error) => return self.refused(error),
            }
        }
    }

    async fn complete(&self, guid: AgentGuid, lease: LeaseRef) -> Result<(), WireError> {
        let result = json!({ "result": { "summary": "done by a fake agent" } });
        self.report("complete", guid, lease, result).await?;
        self.done.send_modify(|done| done.completed.push(lease.id));
        Ok(())
    }

    pub async fn report(
        &self,
        verb: &str,
        guid: AgentGuid,
        lease: LeaseRef,
        mut body: Value,
    ) -> Result<Value, WireError> {
        body["id"] = json!(lease.id);
        body["guid"] = json!(guid);
        body["attempt"] = json!(lease.attempt);
        self.project.request(&format!("work.{verb}"), body).await
    }

    async fn until_awake(&self) {
        let mut behaviour = self.behaviour.subscribe();
        // The sender is in self, so it cannot be gone.
        let _ = behaviour
            .wait_for(|behaviour| *behaviour != Behaviour::Stall)
            .await;
    }

    async fn until_eager(&self) {
        let mut behaviour = self.behaviour.subscribe();
        let is_eager =
            |behaviour: &Behaviour| !matches!(behaviour, Behaviour::Stall | Behaviour::Beat);
        let _ = behaviour.wait_for(is_eager).await;
    }

    fn refused(&self, error: WireError) {
        self.done.send_modify(|done| done.refused.push(error));
    }
}
