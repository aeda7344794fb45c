//! The births of a project that are under way, as the actor holds them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::{BirthTicket, SpinUpStatus};
use loom_protocol::{AgentGuid, SpinUpId, TargetId};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Reference;
use super::key::TargetKey;
use super::mechanism::Mechanism;
use super::terms::StartPermit;
use crate::deadline_queue::DeadlineQueue;
use crate::domain::targets::{Need, TargetProfile, TicketDigest};

/// What has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Due {
    /// A start whose agent has not registered.
    Birth(SpinUpId),
    /// An agent that was born and that the registry does not have.
    Absent(AgentGuid),
}

/// All that are under way.
#[derive(Default)]
pub(super) struct Births {
    /// Decided, and not known to be recorded.
    pub planned: HashMap<SpinUpId, Planned>,
    /// Recorded, and not decided.
    pub running: HashMap<SpinUpId, Running>,
    pub due: DeadlineQueue<Due>,
    /// Linked agents that are offline: asked after.
    pub departed: HashMap<AgentGuid, AbortOnDropHandle<()>>,
    /// Ends what is given up, and removes what is kept of it.
    pub tasks: JoinSet<()>,
}

/// A start that is on its way to the bucket.
pub(super) struct Planned {
    pub key: TargetKey,
    pub need: Option<Need>,
    pub profile: TargetProfile,
    pub ticket: BirthTicket,
    pub permit: StartPermit,
}

/// A start that is recorded.
pub(super) struct Running {
    pub key: TargetKey,
    pub name: String,
    pub target: TargetId,
    pub mechanism: Option<Arc<dyn Mechanism>>,
    pub digest: TicketDigest,
    /// The ticket of one that is begun again.
    pub ticket: Option<BirthTicket>,
    pub reference: Option<Reference>,
    pub phase: Phase,
    pub since: Instant,
    pub timeout: Duration,
    /// What goes on for it; ended when it is replaced.
    pub task: Option<AbortOnDropHandle<()>>,
    pub _permit: StartPermit,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is begun, or watched.
    Launched,
    /// Its time is over; whether we could hear is found out.
    Suspected,
    /// What was started is ended; then it is given up.
    Ending,
    /// Its agent is born, and the mechanism has not said yet by what it is found.
    Born,
}

/// How the end of what was started went.
#[derive(Debug)]
pub struct EndOf {
    pub(super) status: SpinUpStatus,
    pub(super) error: String,
    pub(super) output: Option<String>,
    /// Whether something of it may live still.
    pub(super) may_live: bool,
}

impl Running {
    /// When its time is over, if we could hear all the while.
    pub fn until(&self) -> Instant {
        self.since + self.timeout
    }
}
