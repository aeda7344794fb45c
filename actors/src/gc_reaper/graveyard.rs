//! The graves of a project, in their bucket and, by guid, in memory.

use std::collections::HashSet;
use std::time::Duration;

use loom_protocol::gc::Grave;
use loom_protocol::{AgentGuid, ProjectId, names};

use crate::domain::agent::guid_of_key;
use crate::nats::connection::Nats;
use crate::nats::error::StoreError;
use crate::nats::kv::{Bucket, WatchEvent};
use crate::nats::owner::Ownership;
use crate::nats::store_guard::StoreGuard;

/// How often it is looked at whether the bucket keeps what it is given.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The bucket. It is made with the first grave. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Graveyard {
    bucket: Bucket,
    writer: String,
    retention: Duration,
}

/// Why a grave is not known to be there.
#[derive(Debug, thiserror::Error)]
pub(super) enum GraveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Graveyard {
    pub fn of(
        nats: &Nats,
        project: &ProjectId,
        replicas: usize,
        (epoch, ownership): (u64, &Ownership),
        retention: Duration,
        guard: &StoreGuard,
    ) -> Self {
        let name = names::graveyard_bucket(project);
        Self {
            bucket: Bucket::new(&nats.jetstream, &name, replicas, guard)
                .ours_alone()
                .owned_by(ownership),
            writer: epoch.to_string(),
            retention,
        }
    }

    /// Sets the bucket back to what keeps the graves, for as long as this is polled.
    pub async fn keep(self) {
        let lookout = self.bucket.lookout();
        loop {
            // What is rarely done is kept apart, for the memory of the task.
            match Box::pin(self.bucket.keep()).await {
                Ok(kept) => lookout.note(kept),
                Err(error) => {
                    lookout.forget();
                    tracing::debug!("{error}");
                }
            }
            lookout.until_due(KEEP_EVERY).await;
        }
    }

    /// Whose graves there are.
    pub async fn read(&self) -> Result<Vec<AgentGuid>, StoreError> {
        let mut graves = HashSet::new();
        if self.bucket.info().await?.is_none() {
            return Ok(Vec::new());
        }
        let mut watch = self.bucket.watch();
        loop {
            match watch.next().await {
                WatchEvent::Missing => return Ok(Vec::new()),
                WatchEvent::Opened { .. } => graves.clear(),
                WatchEvent::Records(records) => {
                    let filled = records.iter().filter(|record| record.value.is_some());
                    graves.extend(filled.filter_map(|record| guid_of_key(&record.key).ok()));
                }
                WatchEvent::Current { .. } => return Ok(graves.into_iter().collect()),
            }
        }
    }

    /// Lays a grave, or changes the one that is there. It expires by itself.
    pub async fn put(&self, grave: &Grave) -> Result<(), GraveError> {
        self.bucket.ensure().await?;
        let value = serde_json::to_vec(grave)?.into();
        let key = grave.guid.to_string();
        self.bucket
            .put(&key, value, self.retention, &self.writer)
            .await?;
        Ok(())
    }

    /// Clears a grave: its agent lives.
    pub async fn clear(&self, guid: AgentGuid) -> Result<(), GraveError> {
        self.bucket.purge(&guid.to_string(), &self.writer).await?;
        Ok(())
    }
}
