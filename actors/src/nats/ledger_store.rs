//! The bucket behind the ledger: conditional writes with named outcomes, reads, and a replay.
//!
//! It is a KV bucket to anybody who looks, but made raw: with per-message TTL and without limit
//! markers, so that a key that expired can be created again; with deletes allowed, so that the
//! oldest finished records can go.

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, DeleteStatus, DirectGetErrorKind, RawMessageErrorKind};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use futures_util::StreamExt as _;
use loom_protocol::{ProjectId, WorkId, names};
use tokio::sync::mpsc;

use super::connection::WRITE_TIMEOUT;
use super::lasting::made_lasting;
pub use super::outcome::WriteError;
use super::outcome::{outcome_of, write_error};
use super::overlap::{is_name_in_use, is_not_found, why_not_made};
use super::stamp::{STAMP_KEY, stamp_old};
use super::store_guard::{StoreDenied, StoreGuard};

/// The key of writes that are meant to be refused, and a sequence that no key has.
const BARRIER: (&str, u64) = ("barrier", u64::MAX >> 1);
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an opening waits for a look at the store.
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// How many records of a replay are handed over at a time.
const REPLAY_CHUNK: usize = 128;

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
    /// The record.
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
                        guard.note_problem(&name, Some(&why));
                        let why = std::io::Error::other(why);
                        return Err(StoreError::new("making", &bucket, why));
                    }
                }
            }
            Err(error) => return Err(StoreError::new("opening", &bucket, error)),
        };
        guard.note_problem(&name, None);
        let found = made_lasting(jetstream, found)
            .await
            .map_err(|source| StoreError::new("opening", &bucket, source))?;
        stamp_old(jetstream, found.cached_info()).await;
        let store = Self {
            client: jetstream.client(),
            jetstream: jetstream.clone(),
            stream: found,
            bucket,
            prefix,
            guard: guard.clone(),
        };
        store.check_ttl()?;
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

    /// Sends every record whose last write is `from` or later, in the order of the writes, and
    /// gives the last sequence that the stream had then. What was sent before this is called is
    /// stored by then or never will be, although whoever sent it may have died since.
    ///
    /// # Errors
    /// The server does not answer, or nobody takes the chunks any more.
    pub async fn replay(
        &self,
        from: u64,
        chunks: mpsc::Sender<Vec<Entry>>,
    ) -> Result<u64, StoreError> {
        let known = self.guard.settled_within(REPLAY_TIMEOUT).await;
        known.map_err(|denied| self.error("reading", denied))?;
        self.settle().await?;
        let info = self
            .stream
            .get_info()
            .await
            .map_err(|e| self.error("asking for the state of", e))?;
        let last = info.state.last_sequence;
        if info.state.messages == 0 || last < from {
            return Ok(last);
        }
        let consumer = self
            .stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: from.max(1),
                },
                ..Default::default()
            })
            .await
            .map_err(|e| self.error("replaying", e))?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(last);
        }
        let mut messages = consumer
            .messages()
            .await
            .map_err(|e| self.error("replaying", e))?;
        let mut chunk = Vec::with_capacity(REPLAY_CHUNK);
        loop {
            let message = tokio::time::timeout(REPLAY_TIMEOUT, messages.next())
                .await
                .map_err(|e| self.error("replaying", e))?
                .ok_or_else(|| self.error("replaying", std::io::Error::other("it ended early")))?
                .map_err(|e| self.error("replaying", e))?;
            let (sequence, pending) = message
                .info()
                .map(|info| (info.stream_sequence, info.pending))
                .map_err(|e| self.error("replaying", std::io::Error::other(e)))?;
            if !message.payload.is_empty() {
                chunk.push(Entry {
                    id: self.id_of(&message.subject),
                    sequence,
                    bytes: message.payload.clone(),
                });
            }
            if pending == 0 || chunk.len() == REPLAY_CHUNK {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(REPLAY_CHUNK));
                let sent = chunks.send(full).await;
                sent.map_err(|e| self.error("taking over what was read from", e))?;
            }
            if pending == 0 {
                return Ok(last.max(sequence));
            }
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
