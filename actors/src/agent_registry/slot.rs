//! What the registry knows about each entry of the bucket, and what there is to do for it.

use std::collections::VecDeque;

use loom_protocol::agent::{Agent, RegisterRequest};
use loom_protocol::{AgentGuid, Timestamp, WireError};

use super::actor::{Reply, answer};

/// The state of one entry of the bucket, as the registry knows it.
#[derive(Default)]
pub(super) struct Slot {
    /// The number of the last write that is known; 0: there is none.
    pub revision: u64,
    /// Whether there may be a later one.
    pub in_doubt: bool,
    /// Whether memory is ahead of the bucket.
    pub dirty: bool,
    /// Whether the bucket holds what cannot be read: it stays until somebody mends it.
    pub quarantined: bool,
    /// Why it has to be read although nothing is to be written.
    pub question: Option<Question>,
    /// The `lastHeartbeat` that the bucket holds.
    pub written_heartbeat: Timestamp,
    /// The `currentTaskCount` that the bucket holds.
    pub written_count: u32,
    pub doing: Option<Doing>,
    pub orders: VecDeque<Order>,
    /// How often in a row a write was in conflict.
    pub tries: u32,
    /// Whether it is in the queue of what nobody waits for.
    pub queued: bool,
}

/// What only a reading of the entry can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Was that registration or removal stored that nobody confirmed?
    Stored,
    /// The bucket was told from its beginning, and this entry not with it: is it gone?
    Gone,
}

/// What is under way for an entry.
pub(super) enum Doing {
    Reading,
    Registering {
        expected: u64,
        agent: Box<Agent>,
    },
    Removing {
        expected: u64,
    },
    Retiring {
        expected: u64,
        agent: Box<Agent>,
    },
    Flushing {
        expected: u64,
        heartbeat: Timestamp,
        count: u32,
    },
}

/// What somebody asked for.
pub(super) enum Order {
    Register {
        request: Box<RegisterRequest>,
        reply: Reply<Agent>,
    },
    Deregister {
        reply: Reply<()>,
    },
    Bury {
        silent_since: Timestamp,
        reply: Reply<bool>,
    },
    /// The agent deleted its own entry: its mark, which would stay for ever, becomes ours.
    TidyUp,
}

impl Order {
    pub fn refuse(self, error: WireError) {
        match self {
            Self::Register { reply, .. } => answer(reply, Err(error)),
            Self::Deregister { reply } => answer(reply, Err(error)),
            Self::Bury { reply, .. } => answer(reply, Err(error)),
            Self::TidyUp => {}
        }
    }
}

/// The entries for which there is something to do.
#[derive(Default)]
pub(super) struct Backlog {
    /// Somebody waits for these.
    pub urgent: VecDeque<AgentGuid>,
    /// Nobody does.
    pub idle: VecDeque<AgentGuid>,
    /// How many reads and writes have not ended.
    pub under_way: usize,
}

impl Slot {
    /// Whether one of our own writes to it is under way.
    pub const fn is_writing(&self) -> bool {
        !matches!(self.doing, None | Some(Doing::Reading))
    }

    /// Whether there is nothing to do for it, or to remember.
    pub fn is_at_rest(&self) -> bool {
        self.doing.is_none()
            && self.orders.is_empty()
            && !self.has_chores()
            && !self.quarantined
            && !self.queued
    }

    /// Whether there is something to do for it that nobody waits for.
    pub const fn has_chores(&self) -> bool {
        self.question.is_some() || (self.dirty && !self.quarantined)
    }
}
