//! The bucket behind the ledger: conditional writes with named outcomes, reads, and a replay.
//!
//! It is a KV bucket to anybody who looks, but made raw: with per-message TTL and without limit
//! markers, so that a key that expired can be created again; with deletes allowed, so that the
//! oldest finished records can go.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, DirectGetErrorKind, RawMessageErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use loom_protocol::{ProjectId, WorkId, names};

/// A wrong expected sequence, as some servers say it.
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10_164;
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// How a conditional write ended, when it did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The key's last sequence is another one.
    #[error("the record was changed by somebody else")]
    Conflict,
    /// No answer: it may be stored, or may be stored later.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The server refuses it and has not stored it.
    #[error("the server refuses the write: {0}")]
    Refused(String),
}

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
    jetstream: jetstream::Context,
    stream: stream::Stream,
    bucket: String,
    prefix: String,
}

impl LedgerStore {
    /// Opens the bucket, and makes it where there is none.
    pub async fn open(
        jetstream: &jetstream::Context,
        project: &ProjectId,
        replicas: usize,
    ) -> Result<Self, StoreError> {
        let bucket = names::work_bucket(project);
        let prefix = format!("$KV.{bucket}.");
        let stream = jetstream
            .get_or_create_stream(stream::Config {
                name: format!("KV_{bucket}"),
                description: Some("Loom: the ledger of work items".into()),
                subjects: vec![format!("{prefix}>")],
                max_messages_per_subject: 1,
                discard: stream::DiscardPolicy::New,
                allow_direct: true,
                allow_rollup: true,
                allow_message_ttl: true,
                num_replicas: replicas,
                ..Default::default()
            })
            .await
            .map_err(|source| StoreError::new("opening", &bucket, source))?;
        if !stream.cached_info().config.allow_message_ttl {
            let why = "it was made without per-message TTL; move it away and start again";
            return Err(StoreError::new(
                "opening",
                &bucket,
                std::io::Error::other(why),
            ));
        }
        Ok(Self {
            jetstream: jetstream.clone(),
            stream,
            bucket,
            prefix,
        })
    }

    /// Writes a record if the last sequence of its key is `expected` (0: there is none).
    pub async fn put(
        &self,
        id: WorkId,
        expected: u64,
        bytes: Bytes,
        ttl: Option<Duration>,
    ) -> Result<u64, WriteError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        if let Some(ttl) = ttl {
            headers.insert(NATS_MESSAGE_TTL, format!("{}s", ttl.as_secs().max(1)));
        }
        let message = PublishMessage::build().payload(bytes).headers(headers);
        self.jetstream
            .send_publish(self.subject(id), message)
            .await
            .map_err(|e| write_error(&e))?
            .await
            .map(|ack| ack.sequence)
            .map_err(|e| write_error(&e))
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
        let Err(error) = self.stream.delete_message(sequence).await else {
            return Ok(());
        };
        match self.stream.get_raw_message(sequence).await {
            Err(gone) if gone.kind() == RawMessageErrorKind::NoMessageFound => Ok(()),
            _ => Err(self.error("removing an old record from", error)),
        }
    }

    /// Reads every record whose last write is `from` or later, in the order of the writes, and
    /// gives the last sequence that the stream had then.
    pub async fn replay(
        &self,
        from: u64,
        mut each: impl FnMut(Entry) + Send,
    ) -> Result<u64, StoreError> {
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
                each(Entry {
                    id: self.id_of(&message.subject),
                    sequence,
                    bytes: message.payload.clone(),
                });
            }
            if pending == 0 {
                return Ok(last.max(sequence));
            }
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

fn write_error(error: &PublishError) -> WriteError {
    let text =
        || std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match error.kind() {
        PublishErrorKind::WrongLastSequence => WriteError::Conflict,
        PublishErrorKind::MaxPayloadExceeded
        | PublishErrorKind::StreamNotFound
        | PublishErrorKind::MaxAckPending => WriteError::Refused(text()),
        PublishErrorKind::Other => match jetstream_error(error) {
            Some(code) if code == WRONG_LAST_SEQUENCE_CONSTANT => WriteError::Conflict,
            Some(code) if code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE.0 => WriteError::Conflict,
            Some(_) => WriteError::Refused(text()),
            None => WriteError::Unknown(text()),
        },
        _ => WriteError::Unknown(text()),
    }
}

fn jetstream_error(error: &PublishError) -> Option<u64> {
    std::error::Error::source(error)?
        .downcast_ref::<jetstream::Error>()
        .map(|error| error.error_code().0)
}
