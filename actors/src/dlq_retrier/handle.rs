//! How everybody else talks to the DlqRetrier.

use std::sync::Arc;

use loom_protocol::{WireError, WorkId};

use super::actor::DlqMsg;
use super::orders::{Retried, RetryBatch};
use crate::supervision::ActorHandle;
use crate::unavailable::not_reached;
use crate::work_ledger::TRANSITION_DEADLINE;

/// The handle of a project's DlqRetrier. Cheap to clone.
///
/// ```no_run
/// use loom_actors::dlq_retrier::{DlqRetrierHandle, RetryBatch};
/// use loom_actors::project::Project;
/// use loom_protocol::{WireError, WorkId};
///
/// async fn put_back(project: &Project, id: WorkId) -> Result<(), WireError> {
///     let retrier: &DlqRetrierHandle = &project.dlq;
///     let batch = RetryBatch { ids: vec![id], reset_attempts: true, automatic: false };
///     for (id, outcome) in retrier.retry(batch).await? {
///         outcome?;
///         println!("{id} is pending again");
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct DlqRetrierHandle(ActorHandle<DlqMsg>);

impl DlqRetrierHandle {
    /// Wraps the actor's handle.
    pub const fn new(actor: ActorHandle<DlqMsg>) -> Self {
        Self(actor)
    }

    /// The actor's handle, for supervision and fault injection.
    pub const fn actor(&self) -> &ActorHandle<DlqMsg> {
        &self.0
    }

    /// Puts letters back into the queue; what became of each stands in the order of the ids. May be
    /// repeated.
    ///
    /// # Errors
    /// No answer in time; some may be back all the same.
    pub async fn retry(&self, order: RetryBatch) -> Result<Retried, WireError> {
        let order = Arc::new(order);
        self.0
            .call(TRANSITION_DEADLINE, |reply| DlqMsg::Retry {
                order: order.clone(),
                reply,
            })
            .await
            .map_err(|error| not_reached(&error))?
    }

    /// Deletes a letter; its record stays failed until its time is over. May be repeated, for as
    /// long as that record exists.
    ///
    /// # Errors
    /// There is no such letter, or no answer in time.
    pub async fn discard(&self, id: WorkId) -> Result<(), WireError> {
        self.0
            .call(TRANSITION_DEADLINE, |reply| DlqMsg::Discard { id, reply })
            .await
            .map_err(|error| not_reached(&error))?
    }
}
