//! The bucket of a project's targets. It is made with the first of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use loom_protocol::{ProjectId, SpinUpId, names};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::directory::{Content, TargetDirectory};
use crate::nats::connection::Nats;
use crate::nats::error::{Cause, StoreError, StoreErrorKind};
use crate::nats::kv::{Bucket, Record, Standing, WatchEvent};
use crate::nats::owner::Ownership;
use crate::nats::store_guard::StoreGuard;

/// How long the reading of all targets may take.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Why the targets have not been read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the targets were not read within {READ_WITHIN:?}")]
    Slow,
    #[error("the targets were changed while they were read")]
    Changed,
}

/// The bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct TargetBucket {
    bucket: Bucket,
    is_there: Arc<AtomicBool>,
    /// How it was when it was read or made, and when that was.
    seen: Arc<Mutex<(Option<Standing>, Instant)>>,
    /// How long the end of an operation is kept.
    keep: Duration,
}

impl TargetBucket {
    pub fn of(
        nats: &Nats,
        project: &ProjectId,
        replicas: usize,
        ownership: &Ownership,
        guard: &StoreGuard,
        keep: Duration,
    ) -> Self {
        let name = names::targets_bucket(project);
        let bucket = Bucket::new(&nats.jetstream, &name, replicas, guard);
        Self {
            bucket: bucket.ours_alone().owned_by(ownership),
            is_there: Arc::new(AtomicBool::new(false)),
            seen: Arc::new(Mutex::new((None, Instant::now()))),
            keep,
        }
    }

    /// Whether it was there when it was last used.
    pub fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Acquire)
    }

    /// How it was when it was read, or made, and when that was; `None`: it was not there.
    pub fn seen(&self) -> (Option<Standing>, Instant) {
        *self.seen.lock()
    }

    /// How it is now; `None`: it is not there.
    pub async fn look(&self) -> Result<Option<Standing>, StoreError> {
        self.bucket.look().await
    }

    /// The name of the stream behind it.
    pub fn stream(&self) -> String {
        format!("KV_{}", self.bucket.name())
    }

    /// Reads it into the directory. Where there is none, that is asked for once, and there is nothing to read. Whether
    /// anything is otherwise than was known.
    pub async fn read_into(&self, directory: &TargetDirectory) -> Result<bool, ReadError> {
        let changes = directory.changes();
        let found = self.bucket.look().await?;
        self.saw(found);
        let content = if found.is_some() {
            // What an incarnation before sent is stored by then, or never will be.
            self.bucket.settle().await?;
            let read = timeout(READ_WITHIN, self.read()).await;
            read.map_err(|_elapsed| ReadError::Slow)?
        } else {
            Content::default()
        };
        let replaced = directory.replace(content, changes);
        replaced.ok_or(ReadError::Changed)
    }

    async fn read(&self) -> Content {
        let mut content = Content::default();
        let mut watch = self.bucket.watch();
        loop {
            match watch.next().await {
                WatchEvent::Opened { .. } => content = Content::default(),
                WatchEvent::Records(records) => records.iter().for_each(|r| content.add(r)),
                WatchEvent::Missing | WatchEvent::Current { .. } => return content,
            }
        }
    }

    /// The last record of a key, from the leader.
    pub async fn last(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.bucket.last(key).await
    }

    /// Stores the end of an operation, which goes by itself after a while. The same end again is the same.
    pub async fn write_end(
        &self,
        id: SpinUpId,
        value: Bytes,
        write_id: &str,
    ) -> Result<u64, StoreError> {
        let key = names::spin_up_key(id);
        self.ensured().await?;
        let written = self.bucket.put(&key, value, self.keep, write_id).await;
        self.noted(written)
    }

    /// Stores a value, or removes the key, if its last revision is `expected` (0: none).
    pub async fn write(
        &self,
        key: &str,
        value: Option<Bytes>,
        expected: u64,
        write_id: &str,
    ) -> Result<u64, StoreError> {
        self.ensured().await?;
        let written = match value {
            Some(value) => self.bucket.write(key, value, expected, write_id).await,
            None => self.remove(key, expected, write_id).await,
        };
        self.noted(written)
    }

    /// The bucket is made where it is not known to be there: before every write.
    async fn ensured(&self) -> Result<(), StoreError> {
        if !self.is_there() {
            self.bucket.ensure().await?;
            self.saw(self.bucket.look().await?);
        }
        Ok(())
    }

    /// After every write: one that failed did so perhaps because the bucket is gone, which is looked for before the next.
    fn noted(&self, written: Result<u64, StoreError>) -> Result<u64, StoreError> {
        if written.is_err() {
            self.is_there.store(false, Ordering::Release);
        }
        written
    }

    /// Removes the key. A store that is full has no room for the mark that it was removed, and gets room where it goes
    /// without one.
    async fn remove(&self, key: &str, expected: u64, write_id: &str) -> Result<u64, StoreError> {
        let removed = self.bucket.remove(key, expected, write_id).await;
        match removed {
            Err(error) if matches!(error.kind(), StoreErrorKind::Refused(Cause::Full(_))) => {
                match self.bucket.drop_last(key, expected).await {
                    Ok(true) => Ok(expected),
                    // Somebody has changed it, or it has gone: the write would have conflicted.
                    Ok(false) => self.bucket.remove(key, expected, write_id).await,
                    Err(_) => Err(error),
                }
            }
            removed => removed,
        }
    }

    fn saw(&self, found: Option<Standing>) {
        *self.seen.lock() = (found, Instant::now());
        self.is_there.store(found.is_some(), Ordering::Release);
    }
}
