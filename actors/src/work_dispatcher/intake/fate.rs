//! What becomes of a published message, by how its operation ended.

use crate::work_ledger::{LedgerError, ReadError};

/// How often a message is tried whose record cannot be written or read.
const MOST_DELIVERIES: i64 = 5;

/// What becomes of a message.
pub(super) enum Fate {
    /// It is dealt with.
    Ack,
    /// Not possible just now.
    Later,
    /// Never possible, for this reason.
    GiveUp(String),
}

pub(super) fn fate_of(error: &LedgerError, subject: &str, delivered: i64) -> Fate {
    match error {
        LedgerError::Refused(refusal) => {
            tracing::info!(subject, "a published report changes nothing: {refusal}");
            Fate::Ack
        }
        LedgerError::Read(ReadError::NotFound(id)) => {
            tracing::info!(subject, %id, "a published report is about an unknown item");
            Fate::Ack
        }
        LedgerError::TooLarge(..) => Fate::GiveUp(error.to_string()),
        error if is_hopeless(error) && delivered >= MOST_DELIVERIES => {
            Fate::GiveUp(error.to_string())
        }
        error if is_hopeless(error) => {
            tracing::warn!(subject, "a published message cannot be dealt with: {error}");
            Fate::Later
        }
        _ => Fate::Later,
    }
}

/// Whether an operation fails for a reason that time does not mend.
pub(super) const fn is_hopeless(error: &LedgerError) -> bool {
    matches!(
        error,
        LedgerError::Record(..)
            | LedgerError::Lost(_)
            | LedgerError::Read(ReadError::Damaged { .. })
    )
}
