//! What a person asks for: an agent, or the end of one.

use std::time::Duration;

use loom_protocol::target::Target;
use loom_protocol::{AgentGuid, SpinUpId, WorkId};

use crate::domain::targets::Need;

/// An agent that a person asks for.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// The start that it becomes; the same again is the same start.
    pub(super) operation: SpinUpId,
    /// By which target.
    pub(super) target: Target,
    /// What it is for, where that is known.
    pub(super) need: Option<Need>,
    /// The item that it is for.
    pub(super) work_item: Option<WorkId>,
}

/// An agent that is to end.
#[derive(Debug, Clone, Copy)]
pub struct AgentToEnd {
    /// Which.
    pub(super) guid: AgentGuid,
    /// How long it has between TERM and KILL.
    pub(super) grace: Duration,
}
