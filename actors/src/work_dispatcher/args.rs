//! What the dispatcher works with, given when it is started.

use std::sync::Arc;

use crate::agent_registry::{AgentDirectory, AgentRegistryHandle};
use crate::clock::Clock;
use crate::liveness::DeliveryBarrier;
use crate::nats::connection::Nats;
use crate::nats::owner::Ownership;
use crate::settings::WorkSettings;
use crate::supervision::Jitter;
use crate::work_ledger::{ReadModel, WorkLedgerHandle};

/// What the dispatcher needs to run.
#[derive(Clone)]
pub struct WorkDispatcherArgs {
    /// The read side of the ledger.
    pub read: Arc<ReadModel>,
    /// The ledger, which writes.
    pub ledger: WorkLedgerHandle,
    /// Who is there.
    pub agents: Arc<AgentDirectory>,
    /// Through which agents are told to stop.
    pub registry: AgentRegistryHandle,
    /// The connection.
    pub nats: Nats,
    /// The clock.
    pub clock: Clock,
    /// Defaults of items.
    pub settings: WorkSettings,
    /// How many copies of the stream NATS keeps.
    pub replicas: usize,
    /// Whether the ownership lasts: asked before a report is dropped for good.
    pub ownership: Ownership,
    /// Which ownership this is: part of the consumers' names.
    pub epoch: u64,
    /// To be passed before a lease is taken back.
    pub barrier: DeliveryBarrier,
    /// Spreads the pauses before a next attempt.
    pub jitter: Jitter,
}
