//! What the root and its trees tell each other, and what the root is asked.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, RpcReplyPort};
use tokio::time::Instant;

use super::spec::TreeSpec;

/// What the root is told.
pub(super) enum RootMsg {
    /// Start a tree, or try a parked one at once. Answered at once; whether it comes up shows on the board.
    Start {
        spec: Arc<TreeSpec>,
        reply: RpcReplyPort<StartAnswer>,
    },
    /// Drain a tree and forget it. Answered with the actors that did not finish, when it is gone.
    Stop {
        name: Arc<str>,
        deadline: Duration,
        reply: RpcReplyPort<Unfinished>,
    },
    /// Drain all trees, then stop. Answered like `Stop`.
    Shutdown {
        deadline: Duration,
        reply: RpcReplyPort<Unfinished>,
    },
    /// Fault injection: kill the actor of a tree.
    Kill {
        name: Arc<str>,
        reply: RpcReplyPort<bool>,
    },
    /// From a tree: an actor of it went up or down.
    TreeChanged {
        name: Arc<str>,
        generation: u64,
        running: bool,
        last_failure: Option<Arc<str>>,
    },
    /// From a tree: all below it has ended; it waits to be stopped.
    TreeDrained {
        name: Arc<str>,
        generation: u64,
        unfinished: Vec<Arc<str>>,
    },
    /// Timer: the pause of a tree is over.
    RestartDue { name: Arc<str>, attempt: u64 },
    /// Timer: a tree that was to stop has not.
    StopOverdue { name: Arc<str>, generation: u64 },
}

/// Names of actors, as `tree/actor`.
pub(super) type Unfinished = Vec<String>;

/// What the root says to a request to start.
#[derive(Debug)]
pub(super) enum StartAnswer {
    /// It starts, or has started before.
    Accepted,
    /// A tree of that name is being stopped: ask again when it is gone.
    Stopping,
    /// The specification contradicts itself.
    Invalid(String),
    /// The root is being shut down.
    ShuttingDown,
}

/// What a tree is told. `attempt` is the number of the pause or start that an outcome belongs to.
pub(super) enum TreeMsg {
    /// A pause is over. `former_ended`: no earlier incarnation is left.
    StartDue {
        child: usize,
        attempt: u64,
        former_ended: bool,
    },
    /// `pre_start` has ended, or took too long and was killed.
    StartEnded {
        child: usize,
        attempt: u64,
        outcome: Result<(), String>,
    },
    /// An actor that loads after its start has loaded.
    Loaded { id: ActorId },
    /// It could not load, and tries again.
    NotLoaded { id: ActorId, why: Arc<str> },
    /// By request of the root: drain, stop, end.
    Drain { deadline: Instant },
    /// All actors have ended after [`TreeMsg::Drain`].
    Drained { unfinished: Vec<Arc<str>> },
    /// All actors have ended after an exhaustion.
    GaveUp { reason: Arc<str> },
}
