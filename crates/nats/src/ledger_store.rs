//! The bucket behind the ledger: conditional writes with named outcomes, reads, and a replay.
//!
//! It is a KV bucket to anybody who looks, but made raw: with per-message TTL and without limit
//! markers, so that a key that expired can be created again; with deletes allowed, so that the
//! oldest finished records can go.

mod reading;

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, DeleteStatus, DirectGetErrorKind, RawMessageErrorKind};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use loom_protocol::{ProjectId, WorkId, names};

use super::connection::WRITE_TIMEOUT;
pub use super::outcome::WriteError;
use super::outcome::{outcome_of, write_error};
use super::overlap::{is_name_in_use, is_not_found, is_refused, why_not_made};
use super::stamp::{STAMP_KEY, stamp_old};
use super::store_guard::{StoreDenied, StoreGuard};
use super::terms::{self, Looked};
use crate::verdicts::stream_terms::Terms;

/// The key of writes that are meant to be refused, and a sequence that no key has.
const BARRIER: (&str, u64) = ("barrier", u64::MAX >> 1);
/// How long an opening waits for a look at the store.
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// A read or an administrative request that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing} the ledger {bucket}: {source}")]
pub struct StoreError {
    doing: &'static str,
    bucket: String,
    source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
}

/// One record as the bucket holds it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key; `None` where it is no id.
    pub id: Option<WorkId>,
    /// The sequence of its last write.
    pub sequence: u64,
    /// The record; empty where somebody has deleted it.
    pub bytes: Bytes,
}

/// The bucket of one project.
#[derive(Debug, Clone)]
pub struct LedgerStore {
    client: Client,
    jetstream: jetstream::Context,
    stream: stream::Stream,
    bucket: String,
    prefix: String,
    replicas: usize,
    guard: StoreGuard,
}

impl LedgerStore {
    /// Opens the bucket, and makes it where there is none: unless there should be one, as its guard knows.
    pub async fn open(
        jetstream: &jetstream::Context,
        project: &ProjectId,
        replicas: usize,
        guard: &StoreGuard,
    ) -> Result<Self, StoreError> {
        let bucket = names::work_bucket(project);
        let prefix = format!("$KV.{bucket}.");
        let name = format!("KV_{bucket}");
        let denied = |denied: StoreDenied| StoreError::new("opening", &bucket, denied);
        let connects = guard.connects();
        guard.settled_within(OPEN_WITHIN).await.map_err(denied)?;
        let found = match jetstream.get_stream(&name).await {
            Ok(stream) => stream,
            Err(error) if is_not_found(&error) && guard.known().is_some() => {
                guard.suspect();
                return Err(StoreError::new("opening", &bucket, error));
            }
            Err(error) if is_not_found(&error) => {
                let made = jetstream.create_stream(stream::Config {
                    name: name.clone(),
                    description: Some("Loom: the ledger of work items".into()),
                    subjects: vec![format!("{prefix}>")],
                    max_messages_per_subject: 1,
                    discard: stream::DiscardPolicy::New,
                    allow_direct: true,
                    allow_rollup: true,
                    allow_message_ttl: true,
                    num_replicas: replicas,
                    metadata: [(STAMP_KEY.to_owned(), uuid::Uuid::new_v4().to_string())].into(),
                    ..Default::default()
                });
                match made.await {
                    Ok(stream) => stream,
                    // Another coordinator made it at the same moment, with a stamp of its own.
                    Err(error) if is_name_in_use(&error) => jetstream
                        .get_stream(&name)
                        .await
                        .map_err(|source| StoreError::new("opening", &bucket, source))?,
                    Err(error) => {
                        let why = why_not_made(jetstream, &format!("{prefix}>"), &error).await;
                        if is_refused(&error) {
                            guard.note_problem(&name, Some(&why));
                        }
                        let why = std::io::Error::other(why);
                        return Err(StoreError::new("making", &bucket, why));
                    }
                }
            }
            Err(error) => return Err(StoreError::new("opening", &bucket, error)),
        };
        guard.note_problem(&name, None);
        stamp_old(jetstream, found.cached_info()).await;
        let store = Self {
            client: jetstream.client(),
            jetstream: jetstream.clone(),
            stream: found,
            bucket,
            prefix,
            replicas,
            guard: guard.clone(),
        };
        store.check_ttl()?;
        store.keep().await?;
        // What is known stays as it is: it was found to be the same, over the connection that was looked at.
        if guard.known().is_none() {
            guard.adopt(connects, store.stream.cached_info());
        }
        Ok(store)
    }

    /// The bucket as it is found, without making or trusting anything. `None`: there is none.
    ///
    /// # Errors
    /// The server does not say.
    pub async fn find(
        jetstream: &jetstream::Context,
        project: &ProjectId,
    ) -> Result<Option<Self>, StoreError> {
        let bucket = names::work_bucket(project);
        match jetstream.get_stream(format!("KV_{bucket}")).await {
            Ok(stream) => Ok(Some(Self {
                client: jetstream.client(),
                jetstream: jetstream.clone(),
                stream,
                prefix: format!("$KV.{bucket}."),
                bucket,
                replicas: 0,
                guard: StoreGuard::unwatched(),
            })),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(StoreError::new("looking for", &bucket, error)),
        }
    }

    /// Whether the store behind it is the one that is worked with.
    pub const fn guard(&self) -> &StoreGuard {
        &self.guard
    }

    /// Looks whether the store is still the same: something is not there that should be.
    ///
    /// # Errors
    /// It is another one, or that is not known in time.
    pub async fn confirm(&self) -> Result<(), StoreError> {
        self.guard.look().await;
        let known = self.guard.settled_within(WRITE_TIMEOUT).await;
        known.map_err(|denied| self.error("looking at", denied))
    }

    /// Looks at the stream, and sets back what would let records go. To be called by the owner.
    pub async fn keep(&self) -> Result<Looked, StoreError> {
        let terms = Terms::of_bucket(self.replicas);
        let name = self.stream_name();
        let kept = terms::keep(&self.jetstream, name, &terms, &self.guard).await;
        let missing = || "it is not there".to_owned();
        kept.and_then(|looked| looked.ok_or_else(missing))
            .map_err(|why| self.error("looking at", std::io::Error::other(why)))
    }

    /// The stream behind the bucket.
    pub fn stream_name(&self) -> &str {
        &self.stream.cached_info().config.name
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The client behind it.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    fn check_ttl(&self) -> Result<(), StoreError> {
        if !self.stream.cached_info().config.allow_message_ttl {
            let why = "it was made without per-message TTL; move it away and start again";
            return Err(self.error("opening", std::io::Error::other(why)));
        }
        Ok(())
    }

    /// Writes a record if the last sequence of its key is `expected` (0: there is none).
    pub async fn put(
        &self,
        id: WorkId,
        expected: u64,
        bytes: Bytes,
        ttl: Option<Duration>,
    ) -> Result<u64, WriteError> {
        self.guard.may_write()?;
        let mark = self.guard.before_a_write();
        let written = self.put_at(self.subject(id), expected, bytes, ttl).await;
        match written {
            Ok(sequence) => {
                if !self.guard.is_believable(mark, sequence) {
                    self.guard.settled_within(WRITE_TIMEOUT).await?;
                }
                self.guard.acknowledged(sequence);
            }
            Err(WriteError::Conflict | WriteError::TooLarge(_) | WriteError::Denied(_)) => {}
            // Where somebody listens to everything, no answer may mean that there is no stream.
            Err(WriteError::Unknown(_) | WriteError::Refused(_)) => self.guard.suspect(),
        }
        written
    }

    async fn put_at(
        &self,
        subject: String,
        expected: u64,
        bytes: Bytes,
        ttl: Option<Duration>,
    ) -> Result<u64, WriteError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        if let Some(ttl) = ttl {
            headers.insert(NATS_MESSAGE_TTL, format!("{}s", ttl.as_secs().max(1)));
        }
        let request = Request::new()
            .headers(headers)
            .payload(bytes)
            .timeout(Some(WRITE_TIMEOUT));
        let answer = self.client.send_request(subject, request).await;
        let answer = answer.map_err(|e| write_error(&e))?;
        outcome_of(&answer.payload, &self.stream.cached_info().config.name)
    }

    /// Reads a record from whichever replica answers.
    pub async fn get(&self, id: WorkId) -> Result<Option<Entry>, StoreError> {
        match self
            .stream
            .direct_get_last_for_subject(self.subject(id))
            .await
        {
            Ok(message) => Ok(Some(self.entry(&message))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("reading", error)),
        }
    }

    /// Reads a record from the leader: what a conflict was about.
    pub async fn get_from_leader(&self, id: WorkId) -> Result<Option<Entry>, StoreError> {
        match self
            .stream
            .get_last_raw_message_by_subject(&self.subject(id))
            .await
        {
            Ok(message) => Ok(Some(self.entry(&message))),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.error("reading", error)),
        }
    }

    /// Removes the message with this sequence; a key that was written since stays. One that is gone
    /// already counts as removed.
    pub async fn remove(&self, sequence: u64) -> Result<(), StoreError> {
        let doing = "removing an old record from";
        self.guard
            .may_write()
            .map_err(|denied| self.error(doing, denied))?;
        let subject = format!("STREAM.MSG.DELETE.KV_{}", self.bucket);
        // To erase is to write noise over it, which makes every other write wait.
        let order = serde_json::json!({"seq": sequence, "no_erase": true});
        let error = match self.jetstream.request(subject, &order).await {
            Ok(Response::<DeleteStatus>::Ok(_)) => return Ok(()),
            Ok(Response::Err { error }) => self.error(doing, error),
            Err(error) => self.error(doing, error),
        };
        match self.stream.get_raw_message(sequence).await {
            Err(gone) if gone.kind() == RawMessageErrorKind::NoMessageFound => Ok(()),
            _ => Err(error),
        }
    }

    /// Waits until the stream has dealt with every write that was sent before: a write that it must
    /// refuse queues behind them.
    async fn settle(&self) -> Result<(), StoreError> {
        let (key, impossible) = BARRIER;
        let subject = format!("{}{key}", self.prefix);
        match self.put_at(subject, impossible, Bytes::new(), None).await {
            Err(WriteError::Conflict) => Ok(()),
            Ok(sequence) => {
                let why = format!("it took a write with an impossible condition at {sequence}");
                Err(self.error("settling the writes of", std::io::Error::other(why)))
            }
            Err(error) => Err(self.error("settling the writes of", error)),
        }
    }

    fn subject(&self, id: WorkId) -> String {
        format!("{}{id}", self.prefix)
    }

    fn id_of(&self, subject: &str) -> Option<WorkId> {
        subject.strip_prefix(&self.prefix)?.parse().ok()
    }

    fn entry(&self, message: &jetstream::message::StreamMessage) -> Entry {
        Entry {
            id: self.id_of(&message.subject),
            sequence: message.sequence,
            bytes: message.payload.clone(),
        }
    }

    fn error(
        &self,
        doing: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> StoreError {
        StoreError::new(doing, &self.bucket, source)
    }
}

impl StoreError {
    fn new(
        doing: &'static str,
        bucket: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            doing,
            bucket: bucket.into(),
            source: std::sync::Arc::new(source),
        }
    }
}
