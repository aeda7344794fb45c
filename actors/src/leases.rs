//! Taking leases back, whoever it is that does it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::work::{LeaseRef, Reason};
use loom_protocol::{AgentGuid, WireError, WorkId};
use tokio::time::sleep;

use crate::domain::work::Command;
use crate::work_ledger::{LeaseInfo, Operation, ReadModel, WorkLedgerHandle};

/// The pause before leases that could not be taken back are tried again; doubles up to the longest.
const TRY_AGAIN_FIRST: Duration = Duration::from_millis(250);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(5);

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
        self.revoke_these(guid, reason, leases).await
    }

    /// Takes all leases of an agent back that is leaving, and those that it `held` a moment ago. Gives those that were
    /// taken back, by this call or meanwhile in the background.
    pub async fn revoke_all(
        &self,
        guid: AgentGuid,
        reason: Reason,
        held: Vec<LeaseInfo>,
    ) -> Result<Vec<LeaseRef>, WireError> {
        let mut leases = held;
        for lease in self.work.leases_of(guid) {
            let is_it = |other: &LeaseInfo| (other.id, other.attempt) == (lease.id, lease.attempt);
            if !leases.iter().any(is_it) {
                leases.push(lease);
            }
        }
        self.revoke_these(guid, reason, leases).await
    }

    async fn revoke_these(
        &self,
        guid: AgentGuid,
        reason: Reason,
        leases: Vec<LeaseInfo>,
    ) -> Result<Vec<LeaseRef>, WireError> {
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

    /// Takes all leases back that an agent has which has left. What cannot be taken back just now is
    /// tried again, for as long as the project is there: no clock of the agent's would tell.
    pub fn revoke_in_background(self, guid: AgentGuid, reason: Reason) {
        let left: HashSet<(WorkId, u32)> = self.held(guid).collect();
        if left.is_empty() {
            return;
        }
        tokio::spawn(self.revoke_until_gone(guid, reason, left));
    }

    async fn revoke_until_gone(
        mut self,
        guid: AgentGuid,
        reason: Reason,
        left: HashSet<(WorkId, u32)>,
    ) {
        let project = Arc::downgrade(&self.work);
        let mut pause = TRY_AGAIN_FIRST;
        loop {
            let what = |lease: &LeaseInfo| left.contains(&(lease.id, lease.attempt));
            let revoked = self.revoke(guid, reason, what).await;
            if !self.held(guid).any(|lease| left.contains(&lease)) {
                return;
            }
            let why = revoked.err().map_or_else(
                || "the ledger did not write it".to_owned(),
                |error| error.to_string(),
            );
            tracing::warn!(%guid, "the leases of an agent that left could not be taken back yet: {why}");
            let ledger = self.ledger.clone();
            drop(self);
            sleep(pause).await;
            pause = TRY_AGAIN_MAX.min(pause * 2);
            let Some(work) = project.upgrade() else {
                return;
            };
            self = Self { work, ledger };
        }
    }

    fn held(&self, guid: AgentGuid) -> impl Iterator<Item = (WorkId, u32)> + use<> {
        let leases = self.work.leases_of(guid);
        leases.into_iter().map(|lease| (lease.id, lease.attempt))
    }
}
