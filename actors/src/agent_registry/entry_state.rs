//! What the registry knows about each entry of the bucket, and what there is to do for it.

use bytes::Bytes;
use loom_protocol::agent::Agent;
use loom_protocol::{AgentGuid, Timestamp, WireError};
use tokio::time::Instant;

use super::entry::SharedPlace;
use super::messages::{Registration, Reply, answer};
use crate::domain::agent::Verdict;
use crate::keyed_writer::Conflicts;

/// Who keeps an agent's entry fresh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Keeper {
    /// It registered by request: we do.
    #[default]
    Registry,
    /// It put the entry by itself: it does, and we write into it only what has to be seen.
    Client,
    /// It has an entry in the bucket of all projects, which is not ours; here stands only what must
    /// outlast us, while there is such.
    Shared,
}

/// What stands behind the epoch in the header of a write into an entry that is not wholly ours.
const OF_A_CLIENT: &str = "/client";
const OF_A_SHARED: &str = "/shared";

impl Keeper {
    /// The keeper of an entry with this writer in its header.
    pub fn of(writer: Option<&str>) -> Self {
        match writer {
            None => Self::Client,
            Some(writer) if writer.ends_with(OF_A_CLIENT) => Self::Client,
            Some(writer) if writer.ends_with(OF_A_SHARED) => Self::Shared,
            Some(_) => Self::Registry,
        }
    }

    /// The writer of this epoch for such an entry.
    pub fn writer(self, epoch: &str) -> String {
        let behind = match self {
            Self::Registry => "",
            Self::Client => OF_A_CLIENT,
            Self::Shared => OF_A_SHARED,
        };
        format!("{epoch}{behind}")
    }
}

/// The state of one entry of the bucket, as the registry knows it.
#[derive(Default)]
pub(super) struct EntryState {
    /// The key, where it is not the usual form of the guid.
    pub key: Option<String>,
    /// Who keeps the entry.
    pub keeper: Keeper,
    /// Whether the bucket has a value under the key.
    pub holds: bool,
    /// What that value shows of our verdict, if it is not wholly ours.
    pub shown: Verdict,
    /// Whether we wrote it, into a client's entry.
    pub shown_by_us: bool,
    /// That value, where it was read in order to write our verdict into it.
    pub raw: Option<Bytes>,
    /// Whether the next reading is for that.
    pub wants_raw: bool,
    /// The number of the last write that is known; 0: there is none.
    pub revision: u64,
    /// Whether there may be a later one.
    pub in_doubt: bool,
    /// Whether memory is ahead of the bucket.
    pub dirty: bool,
    /// Whether the bucket holds what cannot be read: it stays until somebody mends it.
    pub quarantined: bool,
    /// Why it has to be read although nothing is to be written.
    pub question: Option<RecheckReason>,
    /// The `lastHeartbeat` that the bucket holds.
    pub written_heartbeat: Timestamp,
    /// The `currentTaskCount` that the bucket holds.
    pub written_count: u32,
    /// When we last wrote it; none: not in this life.
    pub written_at: Option<Instant>,
    /// How often in a row a write was in conflict.
    pub conflicts: Conflicts,
}

/// What only a reading of the entry can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecheckReason {
    /// Was that registration or removal stored that nobody confirmed?
    Stored,
    /// The bucket was told from its beginning, and this entry not with it: is it gone?
    Gone,
}

/// What is under way for an entry.
pub(super) enum InFlightWrite {
    Reading,
    Registering {
        expected: u64,
        agent: Box<Agent>,
    },
    Removing {
        expected: u64,
        /// What is removed from the bucket of all projects.
        shared: Option<SharedPlace>,
    },
    Retiring {
        expected: u64,
        shared: Option<SharedPlace>,
        agent: Box<Agent>,
    },
    Flushing {
        expected: u64,
        heartbeat: Timestamp,
        count: u32,
    },
    /// Our verdict is written into a client's entry.
    Showing {
        expected: u64,
        shown: Verdict,
    },
    /// What must outlast us is written beside an entry in the bucket of all projects.
    Remembering {
        expected: u64,
        shown: Verdict,
    },
    /// It is not needed any more.
    Forgetting {
        expected: u64,
    },
}

impl InFlightWrite {
    /// Whether it takes the agent out, and the watch told of a later write before its answer came: the agent has put
    /// its entry again meanwhile, in whichever bucket.
    pub fn is_removal_overtaken(&self, by_own: bool, shared_now: Option<&SharedPlace>) -> bool {
        let (Self::Removing { shared, .. } | Self::Retiring { shared, .. }) = self else {
            return false;
        };
        by_own || shared_now.is_some_and(|now| shared.as_ref() != Some(now))
    }

    /// Whether nobody waits for it.
    pub const fn is_chore(&self) -> bool {
        matches!(
            self,
            Self::Reading
                | Self::Flushing { .. }
                | Self::Showing { .. }
                | Self::Remembering { .. }
                | Self::Forgetting { .. }
        )
    }
}

/// What somebody asked for.
pub(super) enum PendingRequest {
    Register {
        registration: Box<Registration>,
        reply: Reply<Agent>,
    },
    Deregister {
        reply: Reply<()>,
    },
    Bury {
        silent_since: Timestamp,
        reply: Reply<bool>,
    },
    /// The agent is gone, and something of ours is left under its key.
    TidyUp,
}

impl PendingRequest {
    pub fn refuse(self, error: WireError) {
        match self {
            Self::Register { reply, .. } => answer(reply, Err(error)),
            Self::Deregister { reply } => answer(reply, Err(error)),
            Self::Bury { reply, .. } => answer(reply, Err(error)),
            Self::TidyUp => {}
        }
    }
}

impl EntryState {
    /// Its key in the bucket.
    pub fn key(&self, guid: AgentGuid) -> String {
        self.key.clone().unwrap_or_else(|| guid.to_string())
    }

    /// The bucket is not there: nothing is known of what it held.
    pub fn lose(&mut self) {
        self.revision = 0;
        self.holds = false;
        self.in_doubt = false;
        self.dirty = false;
        self.quarantined = false;
        self.question = None;
        self.shown = Verdict::default();
        self.shown_by_us = false;
        self.raw = None;
        self.wants_raw = false;
        self.key = None;
    }

    /// Whether there is something to do for it that nobody waits for.
    pub const fn has_chores(&self) -> bool {
        self.question.is_some() || (self.dirty && !self.quarantined)
    }
}
