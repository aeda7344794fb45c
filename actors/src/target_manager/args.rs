//! What the TargetManager needs to run.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ProjectId, Timestamp};
use tokio::time::Instant;

use super::directory::TargetDirectory;
use super::terms::BirthTerms;
use crate::agent_registry::AgentDirectory;
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
