//! What was known of a project, held against the store that is there.

use std::sync::Arc;

use async_nats::jetstream;
use loom_protocol::ProjectId;
use loom_protocol::store::LostItem;

use super::Stores;
use crate::nats::error::StoreError;
use crate::nats::ledger_store::LedgerStore;
use crate::nats::store_guard::StoreGuard;
use crate::work_ledger::{ReadModel, read_of};

/// The items that were known and are not in the store that is there, or in an older state: unfinished ones first, each
/// in the order of their creation.
async fn compare(
    jetstream: &jetstream::Context,
    known: &Arc<ReadModel>,
) -> Result<Vec<LostItem>, StoreError> {
    let found = match LedgerStore::find(jetstream, known.project()).await? {
        Some(store) => Some(read_of(known.project().clone(), store).await?),
        None => None,
    };
    let mut lost = Vec::new();
    known.for_each(|header| {
        let there = found.as_ref().and_then(|found| found.header(header.id));
        if there
            .as_ref()
            .is_some_and(|there| there.revision >= header.revision)
        {
            return;
        }
        lost.push(LostItem {
            project_id: known.project().to_string(),
            id: header.id,
            task_id: header.task_id().into_owned(),
            capability: header.needs.capability.to_string(),
            status: header.status,
            in_store: there.map(|there| there.status),
        });
    });
    lost.sort_by_key(|item| item.status.is_terminal());
    Ok(lost)
}

impl Stores {
    /// What was known of a project and is not in the store that is there; or, where another store was accepted, was not
    /// in that one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn lost(&self, project: &ProjectId) -> Result<Arc<[LostItem]>, StoreError> {
        let (read, lost) = match self.0.projects.get(project) {
            Some(kept) => (kept.read.clone(), kept.lost.clone()),
            None => return Ok(Arc::default()),
        };
        match read {
            Some(read) if self.foreign(project).is_some() => {
                compare(&self.0.jetstream, &read).await.map(Into::into)
            }
            _ => Ok(lost),
        }
    }

    /// A server has come since items of a project were found missing: perhaps it has them.
    pub(super) async fn compare_again(&self, guard: &StoreGuard) {
        let connects = guard.connects();
        let kept = self.0.projects.iter().find(|kept| kept.guard.is(guard));
        let Some(read) = kept.and_then(|kept| kept.read.clone()) else {
            return;
        };
        match compare(&self.0.jetstream, &read).await {
            Ok(lost) => {
                let unfinished = lost.iter().filter(|item| !item.status.is_terminal());
                guard.compared(connects, unfinished.count());
            }
            Err(error) => tracing::debug!("what is missing cannot be compared yet: {error}"),
        }
    }
}
