//! The marks of the projects that sleep, in the bucket of the owner: `LOOM_OWNERS`, `asleep.{project}`.
//!
//! A mark is a hint: it says where the streams of a project stood when it fell asleep, and whoever starts compares. One that is
//! lost or old costs the start of its project, nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_protocol::{ProjectId, names};
use tokio::time::timeout;

use crate::domain::sleep::{DigestedMark, Mark};
use crate::nats::kv::{Bucket, WatchEvent};
use crate::project::Terms;

/// What stands before the project in the key of a mark.
const PREFIX: &str = "asleep.";
/// How long the reading of all may take.
const READ_WITHIN: Duration = Duration::from_secs(3);

/// Where marks are kept.
pub(super) struct Marks {
    bucket: Bucket,
    writer: String,
}

impl Marks {
    pub fn new(terms: &Terms) -> Self {
        let nats = &terms.nats;
        let whole = terms.stores.whole();
        let jetstream = &nats.jetstream;
        let bucket = Bucket::new(jetstream, names::OWNERS_BUCKET, terms.replicas, whole);
        Self {
            bucket: bucket.owned_by(&terms.ownership),
            writer: terms.epoch.to_string(),
        }
    }

    /// All of them, as they are kept in memory. What is no mark is left out.
    ///
    /// # Errors
    /// They cannot be read in time.
    pub async fn all(&self) -> Result<BTreeMap<ProjectId, DigestedMark>, String> {
        let reading = async {
            let mut marks = BTreeMap::new();
            // The configuration of the bucket is the owner's to keep.
            let mut watch = self.bucket.watch_foreign();
            loop {
                match watch.next().await {
                    WatchEvent::Opened { .. } => marks.clear(),
                    WatchEvent::Records(records) => {
                        for record in records {
                            let Some(id) = project_of(&record.key) else {
                                continue;
                            };
                            let mark = record
                                .value
                                .map(|value| serde_json::from_slice::<Mark>(&value));
                            match mark {
                                Some(Ok(mark)) => drop(marks.insert(id, mark.digested())),
                                Some(Err(_)) | None => drop(marks.remove(&id)),
                            }
                        }
                    }
                    WatchEvent::Missing | WatchEvent::Current { .. } => return marks,
                }
            }
        };
        let read = timeout(READ_WITHIN, reading).await;
        read.map_err(|_elapsed| format!("no answer within {READ_WITHIN:?}"))
    }

    /// Keeps the mark of a project instead of an earlier one.
    ///
    /// # Errors
    /// It is not known whether it is kept.
    pub async fn keep(&self, id: &ProjectId, mark: &Mark) -> Result<(), String> {
        let key = key(id);
        let last = self.bucket.last(&key).await;
        let last = last.map_err(|error| error.to_string())?;
        let revision = last.map_or(0, |last| last.revision);
        let value = serde_json::to_vec(mark).map_err(|error| error.to_string())?;
        let written = self
            .bucket
            .write(&key, value.into(), revision, &self.writer);
        written.await.map(drop).map_err(|error| error.to_string())
    }

    /// The project is there no longer.
    pub async fn forget(&self, id: &ProjectId) {
        if let Err(error) = self.bucket.purge(&key(id), &self.writer).await {
            tracing::debug!(project = %id, "its mark is left: {error}");
        }
    }
}

fn key(id: &ProjectId) -> String {
    format!("{PREFIX}{id}")
}

fn project_of(key: &str) -> Option<ProjectId> {
    ProjectId::new(key.strip_prefix(PREFIX)?).ok()
}
