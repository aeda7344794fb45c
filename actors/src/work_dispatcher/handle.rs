//! How everybody else talks to the dispatcher.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{AgentGuid, WireError, WorkId};
use tokio::time::Instant;

use super::claims::Claim;
use super::messages::{DispatcherMsg, QueuePosition};
use crate::supervision::ActorHandle;
use crate::unavailable::not_reached;
use crate::work_ledger::{Applied, Header, TRANSITION_DEADLINE};

/// The handle of a project's WorkDispatcher. Cheap to clone.
///
/// ```no_run
/// use loom_actors::project::Project;
/// use loom_actors::work_dispatcher::{Admission, Claim, WorkDispatcherHandle};
/// use loom_protocol::{AgentGuid, WireError};
///
/// async fn claim_one(project: &Project, guid: AgentGuid) -> Result<(), WireError> {
///     let dispatcher: &WorkDispatcherHandle = &project.dispatcher;
///     let claim = Claim {
///         guid,
///         instance_id: None,
///         claim_id: "the first".into(),
///         capabilities: None,
///         max: 1,
///         wait_until: None,
///         start: true,
///         resume: Vec::new(),
///         admission: Admission::default(),
///     };
///     let assigned = dispatcher.claim(claim).await?;
///     println!("{} items for {guid}", assigned.len());
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct WorkDispatcherHandle(ActorHandle<DispatcherMsg>);

impl WorkDispatcherHandle {
    /// Wraps the actor's handle.
    pub const fn new(actor: ActorHandle<DispatcherMsg>) -> Self {
        Self(actor)
    }

    /// The actor's handle, for supervision and fault injection.
    pub const fn actor(&self) -> &ActorHandle<DispatcherMsg> {
        &self.0
    }

    /// Claims; waits as long as the order says. Empty when the wait was over.
    pub async fn claim(&self, order: Claim) -> Result<Vec<Applied>, WireError> {
        let wait = order.wait_until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        let order = Arc::new(order);
        let outcome = self
            .0
            .call(wait + TRANSITION_DEADLINE, |reply| DispatcherMsg::Claim {
                order: order.clone(),
                reply,
            })
            .await
            .map_err(|error| not_reached(&error))?;
        Ok(outcome?)
    }

    /// An agent came, went or changed.
    pub fn agent_changed(&self, guid: AgentGuid) {
        let _ = self.0.cast(DispatcherMsg::AgentChanged(guid));
    }

    /// An agent has stopped a cancelled item.
    pub fn stopped(&self, guid: AgentGuid, id: WorkId) {
        let _ = self.0.cast(DispatcherMsg::Stopped { guid, id });
    }

    /// Has nothing offered to an idle agent for a moment, so that it may be told to go: until when the order has to be
    /// given. `None`: it has an item, or something waits that it may take.
    ///
    /// # Errors
    /// No answer came in time.
    pub async fn withhold(&self, guid: AgentGuid) -> Result<Option<Instant>, WireError> {
        let answer = self
            .0
            .call(TRANSITION_DEADLINE, |reply| DispatcherMsg::Withhold {
                guid,
                reply,
            });
        answer.await.map_err(|error| not_reached(&error))
    }

    /// What stands between a pending item and an agent.
    pub async fn queue_position(&self, header: Header) -> Result<QueuePosition, WireError> {
        let answer = self
            .0
            .call(TRANSITION_DEADLINE, |reply| DispatcherMsg::QueuePosition {
                header: Box::new(header.clone()),
                reply,
            });
        answer.await.map_err(|error| not_reached(&error))
    }
}
