//! Leases of agents that have no entry when a project starts.
//!
//! | under the agent's key there is | what happened | its leases |
//! |---|---|---|
//! | the mark of a removal | it left, or was buried | go back at once |
//! | nothing, or the mark of an expiry | nobody knows: the bucket was lost, or made so that entries go by their age | go back when the agent had the time to come back that it may be silent |

use std::sync::{Arc, Weak};
use std::time::Duration;

use loom_protocol::work::Reason;
use loom_protocol::{AgentGuid, WireError};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Project, READY_WITHIN};
use crate::agent_registry::AgentDirectory;
use crate::leases::Leases;
use crate::liveness::{BarrierOutcome, DeliveryBarrier};
use crate::work_ledger::{ReadModel, WorkLedgerHandle};

/// The pause before we try again to hear everybody.
const TRY_AGAIN: Duration = Duration::from_millis(250);

impl Project {
    /// Begins to take the leases back whose agent has no entry: at once where it was removed, by the agent or by
    /// us; where nobody knows what became of it (its bucket was lost, or made so that entries go by themselves),
    /// when the agent had the time to register again that it may be silent.
    ///
    /// # Errors
    /// Who is there is not known yet.
    pub async fn revoke_orphaned_leases(&self) -> Result<(), WireError> {
        self.registry.ready(READY_WITHIN).await?;
        // An agent may have its entry in the bucket of all projects.
        self.barrier.shared_agents_within(READY_WITHIN).await?;
        let mut lost = Vec::new();
        for (guid, items) in self.work.lease_counts() {
            if self.agents.get(guid).is_some() {
                continue;
            }
            let last = self.entries.last(&guid.to_string()).await;
            let last =
                last.map_err(|error| WireError::unavailable(error.to_string(), TRY_AGAIN))?;
            if last.is_some_and(|last| last.value.is_none() && !last.expired) {
                tracing::info!(project = %self.id, %guid, items, "the agent is gone: its items go back");
                let leases = Leases::of(&self.work, &self.ledger);
                leases.revoke_in_background(guid, Reason::AgentLost);
            } else {
                tracing::warn!(
                    project = %self.id, %guid, items,
                    "the entry of an agent that has items is lost; they go back unless it is heard of"
                );
                lost.push(guid);
            }
        }
        if !lost.is_empty() {
            let silence = Silenced {
                agents: Arc::downgrade(&self.agents),
                work: Arc::downgrade(&self.work),
                ledger: self.ledger.clone(),
                barrier: self.barrier.clone(),
                patience: self.patience,
            };
            tokio::spawn(silence.wait_for(lost));
        }
        Ok(())
    }
}

/// Agents of which nothing is known but that they have leases.
struct Silenced {
    agents: Weak<AgentDirectory>,
    work: Weak<ReadModel>,
    ledger: WorkLedgerHandle,
    barrier: DeliveryBarrier,
    patience: Duration,
}

impl Silenced {
    /// Takes the leases of those back of which nothing is heard, as of any agent that is silent. Ends with the
    /// project.
    async fn wait_for(self, lost: Vec<AgentGuid>) {
        let begun = Instant::now();
        loop {
            let deadline = begun.max(self.barrier.grace().since()) + self.patience;
            sleep_until(deadline).await;
            let (Some(agents), Some(work)) = (self.agents.upgrade(), self.work.upgrade()) else {
                return;
            };
            let is_heard = self.barrier.pass().await == BarrierOutcome::Passed;
            let grace = self.barrier.grace().since();
            if !is_heard || grace + self.patience > Instant::now() {
                drop((agents, work));
                sleep(TRY_AGAIN).await;
                continue;
            }
            for guid in lost {
                if agents.get(guid).is_none() {
                    Leases::of(&work, &self.ledger).revoke_in_background(guid, Reason::AgentLost);
                }
            }
            return;
        }
    }
}
