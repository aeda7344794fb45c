//! Looking for one item in the projects that sleep, without waking any of them.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use loom_protocol::{ProjectId, WireError, WorkId, names};
use tokio::time::timeout;

use super::{Projects, RETRY_AFTER};
use crate::nats::kv::Bucket;

/// How many are asked at a time: each is one request.
const AT_A_TIME: usize = 16;
/// How many look for an item at a time: each asks as many questions as there are projects that sleep.
pub(super) const SEARCHES: usize = 2;
/// How long the others wait.
const PLACE_WITHIN: Duration = Duration::from_secs(5);

impl Projects {
    /// The projects that sleep, by id.
    pub fn all_asleep(&self) -> Vec<ProjectId> {
        let asleep = self.0.asleep.each(|_| ()).into_iter();
        asleep.map(|(id, ())| id).collect()
    }

    /// Which of these projects has an item of this id, whether it still sleeps or not.
    ///
    /// # Errors
    /// `unavailable`: one of them cannot be asked; `overloaded`: too many ask.
    pub async fn the_one_with(
        &self,
        item: WorkId,
        among: Vec<ProjectId>,
    ) -> Result<Option<ProjectId>, WireError> {
        let Ok(Ok(_place)) = timeout(PLACE_WITHIN, self.0.searches.acquire()).await else {
            let text = "too many items are looked for in projects that sleep; name the project";
            return Err(WireError::overloaded(text, RETRY_AFTER));
        };
        let mut asked = stream::iter(among)
            .map(|id| async move {
                let has = self.has(&id, item).await;
                has.map(|has| has.then_some(id))
            })
            .buffer_unordered(AT_A_TIME);
        while let Some(answer) = asked.next().await {
            if let Some(id) = answer? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    async fn has(&self, id: &ProjectId, item: WorkId) -> Result<bool, WireError> {
        let terms = &self.0.terms;
        let jetstream = &terms.nats.jetstream;
        let (name, guard) = (names::work_bucket(id), terms.stores.guard(id));
        let bucket = Bucket::new(jetstream, &name, terms.replicas, &guard);
        let last = bucket.last(&item.to_string()).await;
        last.map(|record| record.is_some_and(|record| record.value.is_some()))
            .map_err(|error| WireError::unavailable(error.to_string(), RETRY_AFTER))
    }
}
