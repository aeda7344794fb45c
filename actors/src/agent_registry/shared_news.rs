//! What the reader of the bucket of all projects tells, and what it hears of that.

use loom_protocol::{AgentGuid, Timestamp};

use super::entry::SharedPlace;
use crate::domain::agent::AgentPut;

/// Something about one agent in the bucket of all projects.
#[derive(Debug, Clone)]
pub struct SharedNews {
    /// The agent.
    pub guid: AgentGuid,
    /// Where its entry is, or was.
    pub place: SharedPlace,
    /// What there is.
    pub what: SharedChange,
}

/// What became of an entry in the bucket of all projects.
#[derive(Debug, Clone)]
pub enum SharedChange {
    /// It is there.
    Put {
        /// What the client wrote.
        put: Box<AgentPut>,
        /// It was there when it was looked for; else it was put before our eyes.
        found: bool,
        /// When the server stored it.
        stored_at: Timestamp,
    },
    /// The client deleted it, or moved it to another project.
    Deleted,
    /// It went without a mark: by its age, or with others.
    Vanished,
}

/// An entry that is no agent.
#[derive(Debug, Clone)]
pub struct SharedRefusal {
    /// Where it is.
    pub place: SharedPlace,
    /// Why.
    pub reason: String,
}
