//! What the TargetManager is told: by its handle, by its timers, and by the tasks that its jobs have begun.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::{SpinUpStatus, Target, TargetHealth};
use loom_protocol::{AgentGuid, SpinUpId, WireError};
use loom_supervision::Defect;
use ractor::RpcReplyPort;

use super::change::{Changed, Request};
use super::command::Outcome;
use super::key::TargetKey;
use super::launching::LaunchNews;
use super::trigger::{AgentToEnd, Trigger};
use crate::agent_registry::AgentEntry;

/// The answer to a command.
pub(super) type Reply = RpcReplyPort<Result<Outcome, WireError>>;

/// Answers with what a look has shown.
pub(super) type HealthReply = RpcReplyPort<Result<TargetHealth, WireError>>;

/// What the TargetManager is told.
#[derive(Debug)]
pub enum TargetMsg {
    /// The bucket has been read for the first time, or there is none.
    Loaded(Result<(), Defect>),
    /// Carry this out and answer when it has an outcome.
    CarryOut {
        /// What.
        request: Arc<Request>,
        /// To whom.
        reply: RpcReplyPort<Result<Outcome, WireError>>,
    },
    /// A person asks for an agent; answered when its start is recorded.
    Trigger {
        /// Which.
        trigger: Arc<Trigger>,
        /// To whom.
        reply: RpcReplyPort<Result<Outcome, WireError>>,
    },
    /// An agent is to be ended by its mechanism; answered at once.
    EndAgent {
        /// Which.
        order: AgentToEnd,
        /// To whom.
        reply: RpcReplyPort<Result<(), WireError>>,
    },
    /// Remove what cannot be read under this name; answered when it is gone.
    Discard {
        /// Which.
        name: String,
        /// To whom.
        reply: RpcReplyPort<Result<(), WireError>>,
    },
    /// Something about looks whether agents could be started.
    Health(HealthMsg),
    /// A command of the actor's own, once more.
    Order {
        /// What.
        request: Arc<Request>,
    },
    /// The first request of this name has its outcome.
    Done(DoneMsg),
    /// A start has come to something.
    Launch {
        /// Which.
        id: SpinUpId,
        /// To what.
        news: LaunchNews,
    },
    /// A start that never began looks for a place once more, to be begun again.
    PlaceWanted {
        /// Which.
        id: SpinUpId,
    },
    /// What was begun by a start has ended, or could not be ended.
    EndedWhatWasStarted {
        /// Which start.
        id: SpinUpId,
        /// Why it is given up.
        why: GivenUp,
        /// Whether something of it may live still.
        may_live: bool,
    },
    /// It is known whether somebody whose time is over could be heard.
    Crossed {
        /// Which start.
        id: SpinUpId,
        /// Whether.
        could_hear: bool,
    },
    /// Timer: a start has taken too long. Ignored when `epoch` is stale.
    BirthsDue {
        /// Which timer.
        epoch: u64,
    },
    /// Timer: starts have taken their places for as long as they may. Ignored when `epoch` is stale.
    PlacesDue {
        /// Which timer.
        epoch: u64,
    },
    /// Timer: an agent had the time to be there. Ignored when `epoch` is stale.
    AbsentDue {
        /// Which timer.
        epoch: u64,
    },
    /// It is known whether an agent that is not there after its time could be heard.
    AbsentCrossed {
        /// Which agent.
        guid: AgentGuid,
        /// Whether.
        could_hear: bool,
    },
    /// An agent is offline.
    AgentOffline(AgentGuid),
    /// An agent is gone: its entry as it was last.
    AgentGone(Arc<AgentEntry>),
    /// An agent that is offline does not run any more, as far as its mechanism knows.
    Departed {
        /// Which.
        guid: AgentGuid,
        /// The start that was asked after; the agent may have been born by another one since.
        born_by: SpinUpId,
    },
    /// Something changed by which somebody may be missing.
    LookWanted,
    /// Timer: it is looked who is missing. Ignored when `epoch` is stale.
    LookDue {
        /// Which timer.
        epoch: u64,
    },
    /// NATS has connected anew: what is in the bucket may be something else.
    ReloadDue,
    /// The bucket has been read again: whether anything is otherwise than was known; `None`: it could not be.
    Reloaded(Option<bool>),
    /// Take nothing new; answer when nothing is under way.
    Drain(RpcReplyPort<()>),
}

/// What a task tells the actor at its end.
#[derive(Debug)]
pub struct DoneMsg {
    pub(super) key: TargetKey,
    pub(super) outcome: Box<Result<Changed, WireError>>,
}

/// Why a start is given up.
#[derive(Debug)]
pub struct GivenUp {
    /// Failed or Timeout.
    pub(super) status: SpinUpStatus,
    pub(super) error: String,
    /// The end of what it said, without secrets.
    pub(super) output: Option<String>,
}

/// What is said about looks.
#[derive(Debug)]
pub enum HealthMsg {
    /// A person asks.
    Test {
        /// Which target.
        target: Box<Target>,
        /// To whom what was seen is told.
        reply: RpcReplyPort<Result<TargetHealth, WireError>>,
    },
    /// A look has ended.
    Looked {
        /// Which.
        look: u64,
        /// How long it took.
        took: Duration,
        /// What was seen.
        seen: Seen,
    },
    /// Timer: a look is due. Ignored when `epoch` is stale.
    Due {
        /// Which timer.
        epoch: u64,
    },
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An agent could be started.
    Well(String),
    /// None could.
    Ill(String),
    /// Nobody knows: this program cannot look.
    Nothing(String),
}
