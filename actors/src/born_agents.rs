//! The agents of a project that were born from targets, for whoever judges agents: which they are, and how one is ended.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError};

use crate::agent_registry::AgentEntry;
use crate::target_manager::{TargetDirectory, TargetManagerHandle};

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

    /// Whether a target counts this agent among its own. An entry of before one that was just born with its id is none.
    pub fn is_linked(&self, entry: &AgentEntry) -> bool {
        let linked = self.targets.linked(entry.agent().guid);
        linked.is_some_and(|linked| linked.is_of(entry))
    }

    /// Orders the process of an agent to be ended by the mechanism that started it: TERM, and KILL for what is left
    /// after `grace`. Whether it is ordered: not of one that is not linked, nor where another one was born with its id.
    ///
    /// # Errors
    /// It is not known whether it is.
    pub async fn end_process(
        &self,
        entry: &AgentEntry,
        grace: Duration,
    ) -> Result<bool, WireError> {
        if !self.is_linked(entry) {
            return Ok(false);
        }
        let guid = entry.agent().guid;
        match self.manager.end_agent(guid, grace).await {
            Ok(()) => Ok(true),
            Err(error) if error.code == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
