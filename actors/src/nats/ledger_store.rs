//! The bucket behind the ledger: conditional writes with named outcomes, reads, and a replay.
//!
//! It is a KV bucket to anybody who looks, but made raw: with per-message TTL and without limit
//! markers, so that a key that expired can be created again; with deletes allowed, so that the
//! oldest finished records can go.

use std::time::Duration;

use async_nats::client::{RequestError, RequestErrorKind};
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, DeleteStatus, DirectGetErrorKind, RawMessageErrorKind};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use futures_util::StreamExt as _;
use loom_protocol::{ProjectId, WorkId, names};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::connection::WRITE_TIMEOUT;

/// A wrong expected sequence, as one server says it or another.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10_071, 10_164];
/// More than a message of the stream may have.
const TOO_LARGE: u64 = 10_054;
/// The key of writes that are meant to be refused, and a sequence that no key has.
const BARRIER: (&str, u64) = ("barrier", u64::MAX >> 1);
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many records of a replay are handed over at a time.
const REPLAY_CHUNK: usize = 128;

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
    /// The server refuses it for good: no message carries so much.
    #[error("the record is too large for the server: {0}")]
    TooLarge(String),
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
    client: Client,
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
            client: jetstream.client(),
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
        self.put_at(self.subject(id), expected, bytes, ttl).await
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
        outcome_of(&answer.map_err(|e| write_error(&e))?.payload)
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

/// What the server says to a write. Read by hand: the client's own reading tries one kind of
/// answer after the other, which costs a twentieth of a submit.
#[derive(Deserialize)]
struct Acknowledgement {
    seq: Option<u64>,
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    err_code: u64,
    description: String,
}

pub(super) fn outcome_of(answer: &[u8]) -> Result<u64, WriteError> {
    let acknowledgement: Acknowledgement = serde_json::from_slice(answer)
        .map_err(|error| WriteError::Unknown(format!("the answer cannot be read: {error}")))?;
    match (acknowledgement.error, acknowledgement.seq) {
        (None, Some(sequence)) => Ok(sequence),
        (None, None) => Err(WriteError::Unknown("the answer has no sequence".into())),
        (Some(error), _) if WRONG_LAST_SEQUENCE.contains(&error.err_code) => {
            Err(WriteError::Conflict)
        }
        (Some(error), _) if error.err_code == TOO_LARGE => {
            Err(WriteError::TooLarge(error.description))
        }
        (Some(error), _) => Err(WriteError::Refused(error.description)),
    }
}

pub(super) fn write_error(error: &RequestError) -> WriteError {
    let text = error.to_string();
    match error.kind() {
        RequestErrorKind::MaxPayloadExceeded => WriteError::TooLarge(text),
        RequestErrorKind::NoResponders | RequestErrorKind::InvalidSubject => {
            WriteError::Refused(text)
        }
        RequestErrorKind::TimedOut | RequestErrorKind::Other => WriteError::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_server_has_one_outcome() {
        let refused = |code| {
            format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"no"}},"seq":0}}"#)
        };
        let cases = [
            (r#"{"stream":"KV_x","seq":7}"#.to_owned(), Ok(7)),
            (refused(10_071), Err(WriteError::Conflict)),
            (refused(10_164), Err(WriteError::Conflict)),
            (refused(10_054), Err(WriteError::TooLarge("no".into()))),
            (refused(10_077), Err(WriteError::Refused("no".into()))),
        ];
        for (answer, outcome) in cases {
            assert_eq!(outcome_of(answer.as_bytes()), outcome, "{answer}");
        }
        for unknown in ["", "{}", r#"{"seq":"#] {
            let outcome = outcome_of(unknown.as_bytes());
            assert!(matches!(outcome, Err(WriteError::Unknown(_))), "{unknown}");
        }
    }
}
