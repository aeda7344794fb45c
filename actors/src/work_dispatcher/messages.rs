//! What the dispatcher is told: by its handle, by its timers, and by the tasks that its jobs have begun.

use std::sync::Arc;

use loom_protocol::{AgentGuid, WorkId};
use ractor::RpcReplyPort;
use tokio::time::Instant;

use super::claims::{Claim, ClaimOutcome};
use crate::liveness::BarrierOutcome;
use crate::work_ledger::{Applied, Header, ItemChange, LedgerError};

/// What the dispatcher is told.
#[derive(Debug)]
pub enum DispatcherMsg {
    /// An agent wants work. Answered when there is some, or when its wait is over.
    Claim {
        /// What it wants.
        order: Arc<Claim>,
        /// To whom.
        reply: RpcReplyPort<ClaimOutcome>,
    },
    /// The read model has taken a write over.
    ItemChanged(Arc<ItemChange>),
    /// An agent came, went or changed.
    AgentChanged(AgentGuid),
    /// An agent has stopped a cancelled item: its slot is free.
    Stopped {
        /// The agent.
        guid: AgentGuid,
        /// The item.
        id: WorkId,
    },
    /// Assignments have their outcomes; `None` where the ledger died and is up again.
    Assigned {
        /// For which claim.
        claim: u64,
        /// Of which agent.
        guid: AgentGuid,
        /// Which items.
        ids: Vec<WorkId>,
        /// What came of them, in the same order.
        outcomes: Option<Vec<Result<Applied, LedgerError>>>,
    },
    /// A claim is to be answered with leases that are there already: the ledger knows them all now, or is away.
    LedgerIsUp {
        /// Which claim.
        claim: u64,
        /// Whether it is up.
        outcome: Result<(), LedgerError>,
    },
    /// What stands between this pending item and an agent?
    QueuePosition {
        /// The item.
        header: Box<Header>,
        /// To whom.
        reply: RpcReplyPort<QueuePosition>,
    },
    /// Offer this agent nothing for a moment, so that it may be told to go: until when that has to be done; `None` where
    /// it has something to do, or may have.
    Withhold {
        /// The agent.
        guid: AgentGuid,
        /// To whom.
        reply: RpcReplyPort<Option<Instant>>,
    },
    /// The barrier for leases that were found out of time has been passed, or not.
    BarrierEnded(BarrierOutcome),
    /// A timer has fired. Changes nothing when `epoch` is stale.
    TimerDue {
        /// Which timer.
        timer: DispatcherTimer,
        /// Which arming of it.
        epoch: u64,
        /// When it was to fire.
        due_at: Instant,
    },
    /// Answer every waiting claim, take no more, and answer when those being filled are answered.
    Drain(RpcReplyPort<()>),
}

/// The timers of the dispatcher: each has a queue of deadlines, and is armed for the earliest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DispatcherTimer {
    /// Of what claims and agents wait for.
    Waits,
    /// Of items that are not to be offered before their time.
    DelayedItems,
    /// Of the clocks of leases.
    LeaseClocks,
    /// Of the deadlines of items.
    ItemDeadlines,
}

/// What stands between a pending item and an agent.
#[derive(Debug, Clone, Default)]
pub struct QueuePosition {
    /// How many pending items with the same needs are served before it; 10,000 at the most.
    pub ahead: usize,
    /// The agents that gave it back a moment ago and do not get it just now.
    pub cooling_down: Vec<AgentGuid>,
    /// Slots that are taken although no lease shows it: items that are being assigned, and cancelled
    /// ones that their agent has not stopped yet.
    pub taken: Vec<(AgentGuid, u32)>,
}
