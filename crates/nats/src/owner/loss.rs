//! How an ownership ends.

use std::time::Duration;

use super::{Holder, UnreadableEntry};

/// Why ownership is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossReason {
    /// No renewal got through for as long as the lease may be kept.
    #[error("no renewal of the ownership was acknowledged for {0:?}")]
    Unanswered(Duration),
    /// Another coordinator owns.
    #[error("another coordinator owns now: {0}")]
    TakenBy(Box<Holder>),
    /// Somebody has written what nobody can read.
    #[error("the entry that says who owns was overwritten: {0}")]
    Overwritten(UnreadableEntry),
    /// The entry has gone.
    #[error("the entry that says who owns has gone")]
    Gone,
    /// It was given back.
    #[error("the ownership was given back")]
    Released,
}
