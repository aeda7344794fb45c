//! How everybody else talks to the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError, WorkId};
use tokio::sync::oneshot;

use super::actor::LedgerMsg;
use super::operation::{Applied, Operation};
use super::read_error::ReadError;
use crate::domain::work::{Command, Refusal};
use crate::supervision::{ActorHandle, CallError};
use crate::unavailable::not_reached;

/// How long a caller waits for a transition before it is told `unavailable`.
pub const TRANSITION_DEADLINE: Duration = Duration::from_millis(2_800);
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why an operation was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The item's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The item cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// NATS cannot take it just now.
    #[error("the ledger cannot write work item {0} just now: {1}; try again")]
    Unavailable(WorkId, String),
    /// Too much is under way.
    #[error("the ledger has too many operations under way; try again")]
    Overloaded,
    /// Others change the item all the time.
    #[error("work item {0} is being changed by others all the time; try again")]
    Contended(WorkId),
    /// No message of NATS carries it. One that was there has failed.
    #[error("work item {0} is too large: {1}")]
    TooLarge(WorkId, Arc<str>),
    /// Its record cannot be written or read.
    #[error("the record of work item {0}: {1}")]
    Record(WorkId, String),
    /// A defect of ours.
    #[error("the operation on work item {0} was lost in the ledger; please report this")]
    Lost(WorkId),
    /// The actor did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<LedgerError> for WireError {
    fn from(error: LedgerError) -> Self {
        let text = error.to_string();
        match error {
            LedgerError::Refused(refusal) => refusal.into(),
            LedgerError::Read(error) => error.into(),
            LedgerError::Call(error) => not_reached(&error),
            LedgerError::Unavailable(..) | LedgerError::Contended(_) => {
                Self::unavailable(text, RETRY_AFTER)
            }
            LedgerError::Overloaded => Self::overloaded(text, RETRY_AFTER),
            LedgerError::TooLarge(..) => Self::new(ErrorCode::TooLarge, text),
            LedgerError::Record(..) | LedgerError::Lost(_) => Self::new(ErrorCode::Internal, text),
        }
    }
}

/// What one operation of a batch came to.
pub type Outcome = Result<Applied, LedgerError>;

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
