//! What was known of a project, held against the store that is there.

use std::sync::Arc;

use async_nats::jetstream;
use loom_protocol::store::LostItem;

use crate::nats::ledger_store::{LedgerStore, StoreError};
use crate::work_ledger::ReadModel;

/// The items that were known and are not in the store that is there, or in an older state: unfinished ones first, each
/// in the order of their creation.
pub(super) async fn compare(
    jetstream: &jetstream::Context,
    known: &Arc<ReadModel>,
) -> Result<Vec<LostItem>, StoreError> {
    let found = match LedgerStore::find(jetstream, known.project()).await? {
        Some(store) => Some(ReadModel::read_of(known.project().clone(), store).await?),
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
