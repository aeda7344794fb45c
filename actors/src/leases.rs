//! Taking leases back, whoever it is that does it.

use std::sync::Arc;

use loom_protocol::work::{LeaseRef, Reason};
use loom_protocol::{AgentGuid, WireError};

use crate::domain::work::Command;
use crate::work_ledger::{LeaseInfo, Operation, ReadModel, WorkLedgerHandle};

/// What it takes to take leases back.
#[derive(Clone)]
pub struct Leases {
    work: Arc<ReadModel>,
    ledger: WorkLedgerHandle,
}

impl Leases {
    /// Those of the project whose ledger this is.
    pub fn of(work: &Arc<ReadModel>, ledger: &WorkLedgerHandle) -> Self {
        Self {
            work: work.clone(),
            ledger: ledger.clone(),
        }
    }

    /// Takes leases of an agent back, those that `which` names. Gives those that were taken back.
    pub async fn revoke(
        &self,
        guid: AgentGuid,
        reason: Reason,
        which: impl Fn(&LeaseInfo) -> bool,
    ) -> Result<Vec<LeaseRef>, WireError> {
        let mut leases = self.work.leases_of(guid);
        leases.retain(|lease| which(lease));
        let operations = leases
            .iter()
            .map(|lease| {
                let command = Command::Revoke {
                    guid,
                    attempt: lease.attempt,
                    reason: match reason {
                        Reason::AgentLost if !lease.started => Reason::NotStarted,
                        reason => reason,
                    },
                    spends_attempt: lease.started && reason == Reason::AgentLost,
                    backoff: None,
                };
                Operation::Apply(lease.id, Arc::new(command))
            })
            .collect();
        let outcomes = self.ledger.carry_out(operations).await?;
        Ok(leases
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(lease, _)| LeaseRef {
                id: lease.id,
                attempt: lease.attempt,
            })
            .collect())
    }

    /// Takes all leases of an agent back that has left.
    pub fn revoke_in_background(self, guid: AgentGuid, reason: Reason) {
        if self.work.lease_count(guid) == 0 {
            return;
        }
        tokio::spawn(async move {
            if let Err(error) = self.revoke(guid, reason, |_| true).await {
                tracing::warn!(%guid, "the leases of an agent that left could not be taken back yet: {error}");
            }
        });
    }
}
