//! The agents of a project that were born from targets, for whoever judges agents: which they are, and what it takes to
//! end one and to give its target room again.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::ListTargetsRequest;
use loom_protocol::{AgentGuid, ErrorCode, WireError};

use crate::target_manager::{MOST_TARGETS, TargetDirectory, TargetManagerHandle};

/// Agents that were born from targets. Cheap to clone.
#[derive(Clone)]
pub struct BornAgents {
    targets: Arc<TargetDirectory>,
    manager: TargetManagerHandle,
}

impl BornAgents {
    /// Those of the project whose targets these are.
    pub fn of(targets: &Arc<TargetDirectory>, manager: &TargetManagerHandle) -> Self {
        Self {
            targets: targets.clone(),
            manager: manager.clone(),
        }
    }

    /// Whether the links are known: from then on an agent that is not linked has no target.
    pub fn are_known(&self) -> bool {
        self.targets.is_loaded()
    }

    /// Whether a target counts this agent among its own.
    pub fn is_linked(&self, guid: AgentGuid) -> bool {
        self.targets.linked(guid).is_some()
    }

    /// All of them, as far as they are known.
    pub fn all(&self) -> Vec<AgentGuid> {
        let every = ListTargetsRequest {
            include_disabled: true,
            ..ListTargetsRequest::default()
        };
        let found = self.targets.find(&every, MOST_TARGETS);
        let targets = found.map(|found| found.targets).unwrap_or_default();
        let guids = targets.into_iter().flat_map(|target| target.current_agent_guids);
        guids.collect()
    }

    /// Orders the process of an agent to be ended by the mechanism that started it: TERM, and KILL for what is left
    /// after `grace`. Whether it is ordered: not of one that is not linked.
    ///
    /// # Errors
    /// It is not known whether it is.
    pub async fn end_process(&self, guid: AgentGuid, grace: Duration) -> Result<bool, WireError> {
        match self.manager.end_agent(guid, grace).await {
            Ok(()) => Ok(true),
            Err(error) if error.code == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Linked → gone: what is left of its process is ended as [`end_process`](Self::end_process) does it, and its target
    /// has room for another one. In this order: an agent that is not linked is found by nobody any more.
    ///
    /// # Errors
    /// It is not known whether it is done.
    pub async fn free_target(&self, guid: AgentGuid, grace: Duration) -> Result<(), WireError> {
        self.end_process(guid, grace).await?;
        self.manager.unlink(guid).await
    }
}
