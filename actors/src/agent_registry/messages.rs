//! What the actor is told, and how it answers.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::{Agent, Directive, HeartbeatRequest, RegisterRequest};
use loom_protocol::event::ShutdownReason;
use loom_protocol::{AgentGuid, TargetId, Timestamp, WireError};
use ractor::RpcReplyPort;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::shared_news::{SharedNews, SharedRefusal};
use crate::liveness::Marker;
use crate::nats::error::StoreError;
use crate::nats::kv::{Record, WatchEvent};

/// What a refused client is told to wait.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The answer to a request.
pub(super) type Reply<T> = RpcReplyPort<Result<T, WireError>>;

/// Answers a port whose caller may have given up.
pub(super) fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}

/// A registration by request, and what is known beside it.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    /// What the agent says. Without its ticket, which is nobody's business from here on.
    pub request: RegisterRequest,
    /// The target from which it was born.
    pub born_from: Option<TargetId>,
}

/// An order to end, with everything decided.
#[derive(Debug, Clone)]
pub(super) struct ShutdownCommand {
    pub graceful: bool,
    pub grace: Duration,
    pub reason: String,
    /// What for: `idle-timeout` or `manual`.
    pub cause: ShutdownReason,
}

/// What the actor can be told.
pub(super) enum Msg {
    /// Answered when the bucket has been read.
    Ready { reply: RpcReplyPort<()> },
    /// Answered when it is durable.
    Register {
        guid: AgentGuid,
        registration: Box<Registration>,
        reply: Reply<Agent>,
    },
    /// Answered when it is durable.
    Deregister { guid: AgentGuid, reply: Reply<()> },
    /// A heartbeat that the directory could not apply by itself.
    Heartbeat {
        heartbeat: HeartbeatRequest,
        reply: Reply<Vec<Directive>>,
    },
    /// The same, published instead of requested; the permit bounds how many wait here.
    PublishedHeartbeat {
        heartbeat: HeartbeatRequest,
        _permit: OwnedSemaphorePermit,
    },
    /// Every heartbeat that was published before this marker has come before it.
    Marker(Marker),
    /// A request named an agent that is offline.
    SignOfLife { guid: AgentGuid, reply: Reply<()> },
    /// Answered when the order is given, not when it is obeyed.
    Shutdown {
        guid: AgentGuid,
        order: ShutdownCommand,
        reply: Reply<Agent>,
    },
    /// As [`Msg::Shutdown`], of one that has nothing to do: whether the order is given. Not where it has an item, and
    /// not from `before` on: until then nothing is offered to it.
    SendHome {
        guid: AgentGuid,
        order: ShutdownCommand,
        before: Instant,
        reply: Reply<bool>,
    },
    /// Whether the agent is offline now: not if it was heard of after `silent_since`.
    MarkOffline {
        guid: AgentGuid,
        silent_since: Timestamp,
        reply: Reply<bool>,
    },
    /// Whether the entry is gone now: not if the agent was heard of after `silent_since`. Answered
    /// when it is durable.
    Bury {
        guid: AgentGuid,
        silent_since: Timestamp,
        reply: Reply<bool>,
    },
    /// Nothing is offered before `until` to the agent and all who share its limit.
    Pause {
        guid: AgentGuid,
        until: Timestamp,
        reason: String,
        reply: Option<Reply<()>>,
    },
    /// The agent is taken out.
    Quarantine { guid: AgentGuid, reason: String },
    /// It is paused and quarantined no more.
    ReleaseFromQuarantine {
        guid: AgentGuid,
        reply: Reply<Agent>,
    },
    /// Timer. Ignored when `epoch` is stale.
    PauseOver { epoch: u64 },
    /// Publishes an order and repeats it until it is cleared.
    AddDirective {
        guid: AgentGuid,
        directive: Directive,
        reply: Reply<()>,
    },
    /// An order was obeyed or is void.
    ClearDirective {
        guid: AgentGuid,
        directive: Directive,
        reply: Reply<()>,
    },
    /// The watch has something; the permit bounds how much of it waits here.
    Bucket {
        event: WatchEvent,
        _permit: OwnedSemaphorePermit,
    },
    /// The bucket of all projects has something about agents of this one; answered with what could
    /// not be taken.
    Shared {
        news: Arc<[SharedNews]>,
        reply: RpcReplyPort<Vec<SharedRefusal>>,
    },
    /// Some agents have another number of items than was told.
    Recounted,
    /// Timer: that is told.
    CountsDue,
    /// A write that this actor began has ended.
    WriteEnded {
        guid: AgentGuid,
        outcome: Result<u64, StoreError>,
    },
    /// A reading that this actor began has ended.
    ReadEnded {
        guid: AgentGuid,
        outcome: Result<Option<Record>, StoreError>,
    },
    /// Timer.
    SweepDue,
    /// A task that must not end has ended.
    HelperEnded { helper: &'static str },
    /// Ends what is in flight, then answers.
    Drain { reply: RpcReplyPort<()> },
}
