//! What an operation on an item came to, and why it was not done.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError, WorkId};

use super::operation::Applied;
use super::read_error::ReadError;
use crate::domain::work::Refusal;
use crate::supervision::CallError;
use crate::unavailable::not_reached;

/// After what time a caller is to try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why an operation was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The item's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The item cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// NATS cannot take it just now.
    #[error("the ledger cannot write work item {0} just now: {1}; try again")]
    Unavailable(WorkId, String),
    /// Too much is under way.
    #[error("the ledger has too many operations under way; try again")]
    Overloaded,
    /// Others change the item all the time.
    #[error("work item {0} is being changed by others all the time; try again")]
    Contended(WorkId),
    /// No message of NATS carries it. One that was there has failed.
    #[error("work item {0} is too large: {1}")]
    TooLarge(WorkId, Arc<str>),
    /// Its record cannot be written or read.
    #[error("the record of work item {0}: {1}")]
    Record(WorkId, String),
    /// A defect of ours.
    #[error("the operation on work item {0} was lost in the ledger; please report this")]
    Lost(WorkId),
    /// The actor did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<LedgerError> for WireError {
    fn from(error: LedgerError) -> Self {
        let text = error.to_string();
        match error {
            LedgerError::Refused(refusal) => refusal.into(),
            LedgerError::Read(error) => error.into(),
            LedgerError::Call(error) => not_reached(&error),
            LedgerError::Unavailable(..) | LedgerError::Contended(_) => {
                Self::unavailable(text, RETRY_AFTER)
            }
            LedgerError::Overloaded => Self::overloaded(text, RETRY_AFTER),
            LedgerError::TooLarge(..) => Self::new(ErrorCode::TooLarge, text),
            LedgerError::Record(..) | LedgerError::Lost(_) => Self::new(ErrorCode::Internal, text),
        }
    }
}

/// What one operation of a batch came to.
pub type Outcome = Result<Applied, LedgerError>;
