//! How everybody else talks to the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_protocol::WorkId;
use tokio::sync::oneshot;

use super::actor::LedgerMsg;
use super::ledger_error::{LedgerError, Outcome};
use super::operation::Operation;
use crate::domain::work::Command;
use crate::supervision::{ActorHandle, CallError};

/// How long a caller waits for a transition before it is told `unavailable`.
pub const TRANSITION_DEADLINE: Duration = Duration::from_millis(2_800);

/// The handle of a project's WorkLedger. Cheap to clone.
///
/// ```no_run
/// use loom_actors::domain::work::Command;
/// use loom_actors::project::Project;
/// use loom_actors::work_ledger::{LedgerError, WorkLedgerHandle};
/// use loom_protocol::WorkId;
///
/// async fn call_off(project: &Project, id: WorkId) -> Result<(), LedgerError> {
///     let ledger: &WorkLedgerHandle = &project.ledger;
///     let cancel = Command::Cancel { by: "ann".into(), reason: None, again: false };
///     let cancelled = ledger.apply(id, cancel).await?;
///     println!("{id} is {}", cancelled.record.status);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct WorkLedgerHandle(ActorHandle<LedgerMsg>);

impl WorkLedgerHandle {
    /// Wraps the actor's handle.
    pub const fn new(actor: ActorHandle<LedgerMsg>) -> Self {
        Self(actor)
    }

    /// The actor's handle, for supervision and fault injection.
    pub const fn actor(&self) -> &ActorHandle<LedgerMsg> {
        &self.0
    }

    /// Carries operations out, side by side; the outcomes stand in the order of the operations. Nothing to do is
    /// done at once, whether the actor is up or not.
    pub async fn carry_out(&self, operations: Vec<Operation>) -> Result<Vec<Outcome>, LedgerError> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let operations: Arc<[Operation]> = operations.into();
        let sent_before = AtomicBool::new(false);
        let outcomes = self
            .0
            .call(TRANSITION_DEADLINE, |reply| LedgerMsg::CarryOut {
                operations: if sent_before.swap(true, Ordering::Relaxed) {
                    operations.iter().map(Operation::once_more).collect()
                } else {
                    operations.clone()
                },
                reply,
            })
            .await?;
        Ok(outcomes)
    }

    /// As [`carry_out`](Self::carry_out), but hands the answer over to be waited for without a
    /// deadline. The channel closes when the actor dies first.
    pub fn begin(
        &self,
        operations: Vec<Operation>,
    ) -> Result<oneshot::Receiver<Vec<Outcome>>, CallError> {
        let (reply, answer) = oneshot::channel();
        self.0.cast(LedgerMsg::CarryOut {
            operations: operations.into(),
            reply: reply.into(),
        })?;
        Ok(answer)
    }

    /// Carries one transition out.
    pub async fn apply(&self, id: WorkId, command: Command) -> Outcome {
        let operation = Operation::Apply(id, Arc::new(command));
        let mut outcomes = self.carry_out(vec![operation]).await?;
        outcomes.pop().unwrap_or(Err(LedgerError::Lost(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_to_do_is_done_while_the_ledger_is_not_up() {
        let never_up = WorkLedgerHandle::new(ActorHandle::new("work-ledger"));
        let began = tokio::time::Instant::now();
        assert!(never_up.carry_out(Vec::new()).await.unwrap().is_empty());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
