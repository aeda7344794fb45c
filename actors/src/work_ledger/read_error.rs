//! Why a read of the ledger fails.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ErrorCode, ProjectId, WireError, WorkId};

use crate::domain::work::RecordError;
use crate::nats::error::StoreError;

/// Why an item cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("there is no work item {0}; it may have expired, see `loom work list`")]
    NotFound(WorkId),
    /// What there is has not been read since the start.
    #[error("the work items of project {0} are still being read; try again in a moment")]
    NotLoaded(ProjectId),
    /// The bucket does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be read.
    #[error(
        "the record of work item {id} cannot be read (key {id} of bucket {bucket}, revision {revision}): {source}; \
         put back what it held, or give the item up by `nats kv purge {bucket} {id}`"
    )]
    Damaged {
        /// Which item.
        id: WorkId,
        /// The bucket.
        bucket: Arc<str>,
        /// The sequence of the write that cannot be read.
        revision: u64,
        /// Why.
        source: Arc<RecordError>,
    },
}

impl From<ReadError> for WireError {
    fn from(error: ReadError) -> Self {
        let text = error.to_string();
        match error {
            ReadError::NotFound(_) => Self::new(ErrorCode::NotFound, text),
            ReadError::NotLoaded(_) => Self::unavailable(text, Duration::from_secs(1)),
            ReadError::Store(error) => error.into(),
            ReadError::Damaged { .. } => Self::new(ErrorCode::Internal, text),
        }
    }
}
