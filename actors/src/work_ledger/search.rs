//! Looking through the headers: pages of a listing, and the items of a taskId.

use loom_protocol::WorkId;

use super::header::task_digest;
use super::page::{Filter, HeaderPage, Start};
use super::read_error::ReadError;
use super::read_model::ReadModel;

/// How often one page of a rare filter looks further.
const PAGE_LOOKS: usize = 10;
/// How many headers are looked at for a taskId while the index is locked.
const TASK_LOOK: usize = 20_000;

impl ReadModel {
    /// One page of headers after a creation sequence, oldest first.
    pub fn page(&self, filter: &Filter, after: u64, limit: usize) -> HeaderPage {
        self.index.read().page(filter, Start::After(after), limit)
    }

    /// One page of headers from a place on, filled from further on where the filter is rare: at
    /// most `PAGE_LOOKS` times as much is looked at as the lock is held for.
    pub async fn filled_page(&self, filter: &Filter, start: Start, limit: usize) -> HeaderPage {
        let mut page = self.index.read().page(filter, start, limit);
        page.previous = self.index.read().previous(filter, start, limit);
        for _ in 1..PAGE_LOOKS {
            let missing = limit.saturating_sub(page.headers.len());
            let Some(next) = page.next.filter(|_| missing > 0) else {
                break;
            };
            tokio::task::yield_now().await;
            let more = self
                .index
                .read()
                .page(filter, start.moved_to(next), missing);
            page.headers.extend(more.headers);
            page.next = more.next;
        }
        page
    }

    /// Items that have this taskId, at most `limit` of them, in the order of creation. They are
    /// looked for among all headers, a part at a time, one search at a time: no index is kept.
    pub async fn items_of_task(
        &self,
        task_id: &str,
        limit: usize,
    ) -> Result<Vec<WorkId>, ReadError> {
        let digest = task_digest(task_id);
        let (mut found, mut from) = (Vec::new(), Some(0));
        let _one_at_a_time = self.searches.acquire().await;
        while let Some(place) = from {
            let (ids, next) = self.index.read().ids_of_task(digest, place, TASK_LOOK);
            for id in ids {
                match self.record(id).await {
                    Ok((record, _)) if record.task_id == task_id => {
                        found.push((record.created, id));
                    }
                    Ok(_) | Err(ReadError::NotFound(_) | ReadError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
                if found.len() >= limit {
                    from = None;
                    break;
                }
            }
            if from.is_some() {
                from = next;
                tokio::task::yield_now().await;
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }
}
