//! Why a read of the ledger fails.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, WireError, WorkId};

use crate::domain::work::RecordError;
use crate::nats::ledger_store::StoreError;

/// Why an item cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("there is no work item {0}; it may have expired, see `loom work list`")]
    NotFound(WorkId),
    /// The bucket does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be read.
    #[error("the record of work item {id} cannot be read: {source}")]
    Damaged {
        /// Which item.
        id: WorkId,
        /// Why.
        source: Arc<RecordError>,
    },
}

impl From<ReadError> for WireError {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::NotFound(_) => Self::new(ErrorCode::NotFound, error.to_string()),
            ReadError::Store(_) => Self::unavailable(error.to_string(), Duration::from_secs(1)),
            ReadError::Damaged { .. } => Self::new(ErrorCode::Internal, error.to_string()),
        }
    }
}
