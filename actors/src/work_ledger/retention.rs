//! Which finished records go, and when.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use loom_protocol::Timestamp;

use super::header::Header;
use super::read_model::ReadModel;

/// How often finished records are looked over.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How many are looked up at a time.
const BATCH: usize = 4_096;
/// How many removals are under way at a time.
const REMOVALS_IN_FLIGHT: usize = 16;

/// Forgets finished items that the server has let expire, and removes the oldest of those that are
/// too many. Gives the number that went.
pub(super) async fn sweep(
    read: Arc<ReadModel>,
    keep: usize,
    retention: Duration,
    now: Timestamp,
) -> usize {
    let expired = now.before(retention);
    let mut total = 0;
    loop {
        let headers = read.to_forget(keep, expired, BATCH);
        let is_last = headers.len() < BATCH;
        let gone = forget(&read, headers, expired).await;
        total += gone;
        // Where the server removes nothing, the next sweep tries again.
        if is_last || gone == 0 {
            return total;
        }
    }
}

async fn forget(read: &Arc<ReadModel>, headers: Vec<Header>, expired: Timestamp) -> usize {
    let gone: Vec<Header> = stream::iter(headers)
        .map(|header| {
            let store = read.store().clone();
            async move {
                if header.updated_at < expired {
                    return Some(header);
                }
                match store.remove(header.revision).await {
                    Ok(()) => Some(header),
                    Err(error) => {
                        tracing::debug!(id = %header.id, "{error}");
                        None
                    }
                }
            }
        })
        .buffer_unordered(REMOVALS_IN_FLIGHT)
        .filter_map(|gone| async move { gone })
        .collect()
        .await;
    for header in &gone {
        read.forget(header);
    }
    gone.len()
}
