//! What the TargetManager needs to run, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{AgentGuid, ProjectId, SpinUpId, Timestamp, WireError};
use loom_supervision::Defect;
use ractor::RpcReplyPort;
use tokio::time::Instant;

use super::change::{Changed, Request};
use super::command::Outcome;
use super::directory::TargetDirectory;
use super::health::HealthMsg;
use super::key::TargetKey;
use super::launching::LaunchNews;
use super::terms::BirthTerms;
use super::trigger::{AgentToEnd, Trigger};
use super::under_way::EndOf;
use crate::agent_registry::{AgentChange, AgentDirectory};
use crate::clock::Clock;
use crate::events::EventHub;
use crate::liveness::DeliveryBarrier;
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::nats::store_guard::StoreGuard;
use crate::supervision::Jitter;
use crate::work_ledger::ReadModel;

/// What the TargetManager needs to run.
#[derive(Clone)]
pub struct TargetManagerArgs {
    /// The project.
    pub project: ProjectId,
    /// The read side, which survives the actor.
    pub directory: Arc<TargetDirectory>,
    /// The connection.
    pub nats: Nats,
    /// How many copies of the bucket NATS keeps.
    pub replicas: usize,
    /// The clock.
    pub clock: Clock,
    /// Where events go.
    pub events: EventHub,
    /// Which ownership writes: part of every write id.
    pub epoch: u64,
    /// Whether it lasts.
    pub ownership: Ownership,
    /// Whether the store is the right one.
    pub guard: StoreGuard,
    /// How agents are started.
    pub births: BirthTerms,
    /// Who is there.
    pub agents: Arc<AgentDirectory>,
    /// What waits.
    pub work: Arc<ReadModel>,
    /// To be passed before a start is late.
    pub barrier: DeliveryBarrier,
    /// Spreads the looks at targets.
    pub jitter: Jitter,
    /// How long an agent may be silent.
    pub stale_after: Duration,
    /// `agents.idle_grace`: how long an agent that has left may take to end by itself.
    pub idle_grace: Duration,
    /// When the ownership began, by the time of day: who was heard of since lives.
    pub begun_at: Timestamp,
    /// When the project was opened.
    pub opened_at: Instant,
}

/// The answer to a command.
pub(super) type Reply = RpcReplyPort<Result<Outcome, WireError>>;

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
    /// What was begun by a start has ended, or could not be ended.
    EndedWhatWasStarted {
        /// Which start.
        id: SpinUpId,
        /// How that went.
        end: EndOf,
    },
    /// It is known whether somebody whose time is over could be heard.
    Crossed {
        /// Which start.
        id: SpinUpId,
        /// Whether.
        could_hear: bool,
    },
    /// Timer: somebody's time is over. Ignored when `epoch` is stale.
    BirthsDue {
        /// Which timer.
        epoch: u64,
    },
    /// An agent is offline or gone.
    AgentLeft {
        /// Which.
        guid: AgentGuid,
        /// What became of it.
        change: AgentChange,
    },
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
