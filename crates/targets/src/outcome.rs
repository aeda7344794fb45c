//! What came of an order.

use tokio::sync::watch;

use crate::reference::Reference;

/// An agent that was started, or had been by an earlier order with the same id.
#[derive(Debug, Clone)]
pub struct Started {
    /// Where it is: to be stored before anything else is done.
    pub reference: Reference,
    /// Whether an earlier order had started it.
    pub existing: bool,
    /// Its end, where this coordinator sees it by itself; else it is asked for by
    /// [`Launcher::find`](crate::Launcher::find).
    pub end: Option<watch::Receiver<Option<AgentEnd>>>,
    /// What the mechanism said, without secrets; at most 4 KiB.
    pub output: Option<String>,
    /// Why it has not begun to run, as that changes, where this coordinator sees it by itself; without secrets, at most
    /// 4 KiB. None inside once it runs.
    pub waits: Option<watch::Receiver<Option<String>>>,
}

/// How an agent's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEnd {
    /// Whether it ended by itself and with 0.
    pub success: bool,
    /// How, in words.
    pub how: String,
    /// The end of what it said, without secrets; at most 4 KiB.
    pub output: String,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Something of it lives.
    Running(Reference),
    /// It will begin, or may: it is by the same reference that it is found when it runs.
    Waiting {
        /// By what it is found again.
        reference: Reference,
        /// Why it has not begun to run, without secrets; at most 4 KiB.
        why: String,
    },
    /// It was started and has ended.
    Ended {
        /// The end of what it said, where that is kept; at most 4 KiB.
        output: Option<String>,
    },
    /// Nothing of it lives, and nothing says that it was ever started.
    Absent,
    /// That can't be told; its birth tells, or the end of its time.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Found {
    /// By what a start is found again that goes on, or will.
    pub const fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Running(reference) | Self::Waiting { reference, .. } => Some(reference),
            Self::Ended { .. } | Self::Absent | Self::Unknown { .. } => None,
        }
    }
}

/// What it took to end an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Nothing of it lives any more.
    Ended {
        /// How many processes there were; 0 where all had ended before.
        processes: usize,
        /// How many of them did not obey TERM.
        killed: usize,
        /// The end of what it said, where that is kept; at most 4 KiB.
        output: Option<String>,
    },
    /// This mechanism ends nothing: the agent has to be told by a directive.
    NotPossible {
        /// Why.
        why: String,
    },
}

/// A target by which an agent could be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What was seen, in words.
    pub seen: String,
}
