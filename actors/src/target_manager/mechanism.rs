//! What the TargetManager needs of the mechanisms that start agents. They live outside of the actors; the program puts
//! them behind this.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use loom_protocol::target::{BirthTicket, SpinUpOperation, Target};
use loom_protocol::{ProjectId, SpinUpId};
use serde_json::Value;
use tokio::sync::watch;

/// Finds the mechanism of a target.
pub trait Mechanisms: Send + Sync {
    /// The mechanism of a target.
    ///
    /// # Errors
    /// Agents can't be started by it here; why, as a sentence.
    fn of(&self, target: &Target) -> Result<Arc<dyn Mechanism>, String>;

    /// What stands at a target, whenever that may have changed: what each start that is not decided and each agent that is
    /// linked is found by, where that is known. What they need beside themselves for as long as they live (a tunnel) is
    /// opened again, or closed where nothing stands. Waits for nothing.
    fn in_use(&self, target: &Target, starts: &[Option<&Value>]) {
        let _ = (target, starts);
    }
}

/// Starts agents of one target, finds them again, and ends them. `reference` is what [`Mechanism::start`] gave.
pub trait Mechanism: Send + Sync {
    /// Starts an agent. Repeated with the same id it is the same start. What was begun when the future is dropped is in
    /// doubt, and is ended by [`Mechanism::stop`].
    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<Started, StartFailure>>;

    /// What became of a start that was begun, or may have been.
    fn find<'a>(
        &'a self,
        id: SpinUpId,
        reference: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Found, String>>;

    /// Where what it starts can be seen, if that is not everywhere: recorded with a start, before [`Mechanism::start`].
    fn place(&self) -> Option<String>;

    /// What became of a start without a reference that was recorded at a [`Mechanism::place`]. Elsewhere nobody can say
    /// that it was not begun.
    fn find_recorded<'a>(
        &'a self,
        id: SpinUpId,
        place: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Found, String>>;

    /// Ends an agent and all that it has started: TERM, and KILL for what is left after `grace`.
    fn stop<'a>(
        &'a self,
        id: SpinUpId,
        reference: Option<&'a Value>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, String>>;

    /// Whether an agent could be started, without starting one: what was seen, in words. Ends within `limit`.
    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<String, String>>;

    /// Whether something is kept here of a start, by which it is found again. Asks nobody else.
    fn keeps(&self, id: SpinUpId) -> bool {
        let _ = id;
        false
    }

    /// Removes what is kept of a start that is decided, once nothing of it lives.
    fn forget(&self, id: SpinUpId) -> BoxFuture<'_, ()>;
}

/// One agent to be started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its project.
    pub project: ProjectId,
    /// The start, its target and its need.
    pub operation: SpinUpOperation,
    /// The type of the agent.
    pub agent_type: String,
    /// What it is to offer.
    pub capabilities: Vec<String>,
    /// The boundaries that it is to be in.
    pub boundaries: Vec<String>,
    /// What it registers with.
    pub ticket: BirthTicket,
}

/// An agent that was started, or had been by an earlier start with the same id.
pub struct Started {
    /// Where it is.
    pub reference: Value,
    /// Its end, where this process sees it by itself; else [`Mechanism::find`] is asked.
    pub end: Option<BoxFuture<'static, AgentEnd>>,
    /// What the mechanism said, without secrets; at most 4 KiB.
    pub output: Option<String>,
    /// Why it has not begun to run, as that changes, where this process sees it by itself. None inside once it runs.
    pub waits: Option<watch::Receiver<Option<String>>>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started")
            .field("reference", &self.reference)
            .field("tells_its_end", &self.end.is_some())
            .field("output", &self.output)
            .field("tells_why_it_waits", &self.waits.is_some())
            .finish()
    }
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEnd {
    /// How, in words.
    pub how: String,
    /// Whether it ended as what has done its work does.
    pub success: bool,
    /// The end of what it said, without secrets; at most 4 KiB.
    pub output: Option<String>,
}

/// What is left of a start that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Nothing was started.
    NotStarted,
    /// An agent may have been started.
    InDoubt,
}

/// A start that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// What is left of it.
    pub kind: FailureKind,
    /// Why, as a sentence.
    pub message: String,
    /// The end of what the mechanism said, without secrets; at most 4 KiB.
    pub output: Option<String>,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Something of it lives.
    Running(Value),
    /// It will begin, or may.
    Waiting {
        /// By what it is found again.
        reference: Value,
        /// Why it has not begun to run.
        why: String,
    },
    /// It was started and has ended.
    Ended {
        /// The end of what it said, where that is kept.
        output: Option<String>,
    },
    /// Nothing says that it was ever started, and nothing of it lives.
    Absent,
    /// That can't be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// What it took to end an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing of it lives any more.
    Ended {
        /// The end of what it said, where that is kept.
        output: Option<String>,
    },
    /// This mechanism ends nothing: the agent has to be told by a directive.
    NotPossible {
        /// Why.
        why: String,
    },
}

/// Of a program that starts no agents.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMechanisms;

impl Mechanisms for NoMechanisms {
    fn of(&self, target: &Target) -> Result<Arc<dyn Mechanism>, String> {
        Err(format!(
            "this program starts no agents, by {} or otherwise",
            target.mechanism
        ))
    }
}
