//! Looking for one item in the projects that sleep, without waking any of them.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use loom_protocol::{ProjectId, WireError, WorkId, names};

use super::{Projects, RETRY_AFTER};
use crate::nats::kv::Bucket;
use crate::project::Project;

/// How many are asked at a time: each is one request.
const AT_A_TIME: usize = 64;

impl Projects {
    /// The project that sleeps and has an item of this id: it is woken, and can be read from when it is
    /// [settled](Projects::settled).
    ///
    /// # Errors
    /// `unavailable`: one of them cannot be asked, or the one that has it does not wake; `overloaded`: no more may be awake.
    pub async fn wake_the_one_with(&self, item: WorkId) -> Result<Option<Arc<Project>>, WireError> {
        let asleep = self.0.asleep.each(|_| ()).into_iter();
        let mut asked = stream::iter(asleep)
            .map(|(id, ())| async move {
                let has = self.has(&id, item).await;
                has.map(|has| has.then_some(id))
            })
            .buffer_unordered(AT_A_TIME);
        while let Some(answer) = asked.next().await {
            if let Some(id) = answer? {
                return self.activate(&id).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn has(&self, id: &ProjectId, item: WorkId) -> Result<bool, WireError> {
        let terms = &self.0.terms;
        let (client, jetstream) = (&terms.nats.client, &terms.nats.jetstream);
        let (name, guard) = (names::work_bucket(id), terms.stores.guard(id));
        let bucket = Bucket::new(client, jetstream, &name, terms.replicas, &guard);
        let last = bucket.last(&item.to_string()).await;
        last.map(|record| record.is_some_and(|record| record.value.is_some()))
            .map_err(|error| WireError::unavailable(error.to_string(), RETRY_AFTER))
    }
}
