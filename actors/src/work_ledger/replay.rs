//! The bucket, read into the read model: received here, decoded and indexed on a thread beside it,
//! since with many items either takes as long as the other.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ProjectId, WorkId};
use tokio::sync::mpsc;

use super::read_error::ReadError;
use super::read_model::ReadModel;
use crate::nats::error::StoreError;
use crate::nats::ledger_store::{Entry, LedgerStore};

impl ReadModel {
    /// Waits until the bucket was read once; before, nobody can say what there is not. While a later incarnation of
    /// the ledger reads again, what is known stays known.
    ///
    /// # Errors
    /// It was not, within the bound.
    pub async fn ready(&self, within: Duration) -> Result<(), ReadError> {
        let mut loaded = self.loaded.subscribe();
        let waited = tokio::time::timeout(within, loaded.wait_for(|loaded| *loaded)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError::NotLoaded(self.project().clone())),
        }
    }

    /// Whether the bucket was read once.
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// What is said of an item that is not in the index.
    pub(super) fn absent(&self, id: WorkId) -> ReadError {
        if self.is_loaded() {
            ReadError::NotFound(id)
        } else {
            ReadError::NotLoaded(self.project().clone())
        }
    }

    pub(super) fn set_loaded(&self) {
        self.loaded.send_replace(true);
    }
}

/// What a bucket holds, read once; nobody keeps it up to date.
///
/// # Errors
/// The bucket cannot be read.
pub async fn read_of(project: ProjectId, store: LedgerStore) -> Result<Arc<ReadModel>, StoreError> {
    let model = Arc::new(ReadModel::new(project, store));
    replay(&model, 0).await?;
    model.set_loaded();
    Ok(model)
}

/// How many chunks may wait for the decoder.
const CHUNKS_AHEAD: usize = 16;

/// Takes over every record whose last write is `from` or later; gives the sequence up to which all
/// is known then.
///
/// Whoever gives up on it leaves a few entries behind that are still taken over: that does no harm,
/// because the read model keeps what is newer.
pub(super) async fn replay(read: &Arc<ReadModel>, from: u64) -> Result<u64, StoreError> {
    let (chunks, mut received) = mpsc::channel::<Vec<Entry>>(CHUNKS_AHEAD);
    let decoder = read.clone();
    let decoding = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = received.blocking_recv() {
            for entry in &chunk {
                decoder.apply_entry(entry);
            }
        }
    });
    let last = read.store().replay(from, chunks).await;
    if let Err(defect) = decoding.await
        && defect.is_panic()
    {
        std::panic::resume_unwind(defect.into_panic());
    }
    last
}
