//! A key-value bucket, raw: compare-and-set with headers, and a watch that knows who wrote.
//!
//! The client's own key-value store has no headers and drops per-message TTLs, so this speaks to
//! the stream behind the bucket. What other clients read and write through their key-value store
//! is the same bucket.
//!
//! | outcome of a write | means | do |
//! |---|---|---|
//! | `Ok(revision)` | stored | |
//! | [`WriteError::Conflict`] | somebody wrote in between; nothing stored | read again, decide again |
//! | [`WriteError::Unknown`] | no answer: may be stored, now or at the next reconnect | read again before writing |
//! | [`WriteError::Refused`] | the server says no; nothing stored | tell somebody |
//! | [`WriteError::NotOwner`] | the ownership may be over; nothing was sent | keep it in mind, do nothing |

mod making;
mod watch;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_nats::jetstream::{self, context, message::PublishMessage, stream};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use loom_protocol::Timestamp;
use loom_protocol::names::WRITER_HEADER;
use tokio::time::timeout;

use super::overlap::{is_not_found, is_wrong_sequence, taken_by};
use super::server_clock::ServerClock;
use super::store_guard::{StoreDenied, StoreGuard};
use crate::clock::Clock;

pub use watch::{Watch, WatchEvent};

use super::owner::Ownership;

/// How long an answer of the server is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the mark of a removed key stays.
const MARK_TTL: Duration = Duration::from_hours(1);
/// The header that tells a removal from a value.
const OPERATION: &str = "KV-Operation";
/// The reason in the server's mark of a key that went by its age.
const EXPIRED: &str = "MaxAge";

/// The state of one key, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: String,
    /// The value; `None` where the key was deleted, purged or has expired.
    pub value: Option<Bytes>,
    /// The number of the write in the bucket.
    pub revision: u64,
    /// Who wrote it, if it says so (`Loom-Writer`).
    pub writer: Option<String>,
    /// When the server stored it, by our clock.
    pub stored_at: Timestamp,
    /// Whether it went by its age: nobody has removed it.
    pub expired: bool,
}

impl Record {
    /// The ownership that wrote it; `None` where that was no coordinator.
    pub fn epoch(&self) -> Option<u64> {
        self.writer.as_ref()?.split('/').next()?.parse().ok()
    }
}

/// Why a write is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The key has another revision than expected.
    #[error("somebody else wrote in between")]
    Conflict,
    /// No answer came: it may be stored, now or later.
    #[error("NATS did not confirm the write: {0}")]
    Unknown(String),
    /// The server refused it.
    #[error("NATS refused the write: {0}")]
    Refused(String),
    /// Nothing was sent: whoever owns now has the say.
    #[error("another coordinator may own the projects by now")]
    NotOwner,
}

/// Why a bucket cannot be used or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bucket {bucket}: {problem}")]
pub struct BucketError {
    bucket: String,
    problem: String,
}

impl BucketError {
    /// The task that asked has ended without an answer.
    pub fn unanswered(bucket: &str, problem: String) -> Self {
        Self {
            bucket: bucket.to_owned(),
            problem,
        }
    }
}

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: String,
    prefix: String,
    config: stream::Config,
    client: Client,
    jetstream: jetstream::Context,
    guard: StoreGuard,
    ownership: Ownership,
    server_clock: ServerClock,
    /// That its settings are somebody else's was said.
    is_warned: Arc<AtomicBool>,
}

impl Bucket {
    /// The bucket of this name, without asking whether it exists. `replicas` is for its creation. Nothing is
    /// written or made while `guard` does not agree.
    pub fn new(
        client: &Client,
        jetstream: &jetstream::Context,
        name: &str,
        replicas: usize,
        guard: &StoreGuard,
    ) -> Self {
        let mut jetstream = jetstream.clone();
        jetstream.set_timeout(ANSWER_WITHIN);
        let prefix = format!("$KV.{name}.");
        let config = stream::Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("{prefix}>")],
            max_messages_per_subject: 1,
            storage: stream::StorageType::File,
            num_replicas: replicas.max(1),
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            allow_message_ttl: true,
            ..Default::default()
        };
        Self {
            name: name.to_owned(),
            prefix,
            config,
            client: client.clone(),
            jetstream,
            guard: guard.clone(),
            ownership: Ownership::alone(),
            server_clock: ServerClock::default(),
            is_warned: Arc::default(),
        }
    }

    /// The same bucket, with the times of its records by this clock, as far as the server's is known: from a watch
    /// that has opened.
    #[must_use]
    pub fn timed_by(mut self, clock: &Clock) -> Self {
        self.server_clock = ServerClock::of(clock);
        self
    }

    /// The same bucket, written only while this ownership lasts: each write asks it first.
    #[must_use]
    pub fn owned_by(mut self, ownership: &Ownership) -> Self {
        self.ownership = ownership.clone();
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client behind it.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The stream behind the bucket; `None` where it does not exist.
    pub async fn info(&self) -> Result<Option<stream::Info>, BucketError> {
        match self.jetstream.get_stream(&self.config.name).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.problem(format!("cannot be looked at: {error}"))),
        }
    }

    /// Stores a value if the key's last revision is `expected` (0: none), in `writer`'s name.
    pub async fn write(
        &self,
        key: &str,
        value: Bytes,
        expected: u64,
        writer: &str,
    ) -> Result<u64, WriteError> {
        let message = PublishMessage::build()
            .payload(value)
            .header(WRITER_HEADER, writer);
        self.publish(key, message.expected_last_subject_sequence(expected))
            .await
    }

    /// Stores a value whatever the key holds, in `writer`'s name; it expires after `ttl`. For a
    /// bucket with one writer.
    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        writer: &str,
    ) -> Result<u64, WriteError> {
        let message = PublishMessage::build()
            .payload(value)
            .header(WRITER_HEADER, writer)
            .ttl(ttl);
        self.publish(key, message).await
    }

    /// Removes a key whatever it holds. For a bucket with one writer.
    pub async fn purge(&self, key: &str, writer: &str) -> Result<u64, WriteError> {
        self.publish(key, removal(writer)).await
    }

    /// Removes a key if its last revision is `expected`, in `writer`'s name. The mark that is left
    /// in its place goes after an hour.
    pub async fn remove(&self, key: &str, expected: u64, writer: &str) -> Result<u64, WriteError> {
        let message = removal(writer).expected_last_subject_sequence(expected);
        self.publish(key, message).await
    }

    /// The last record of a key, from the leader; `None` where there is not even a mark.
    pub async fn last(&self, key: &str) -> Result<Option<Record>, BucketError> {
        let subject = format!("{}{key}", self.prefix);
        let read = async {
            let stream = self
                .jetstream
                .get_stream_no_info(&self.config.name)
                .await
                .map_err(|e| self.problem(format!("cannot be read: {e}")))?;
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => Ok(Some(record(
                    key.to_owned(),
                    Some(&message.headers),
                    message.payload,
                    message.sequence,
                    self.stored_at(message.time.unix_timestamp_nanos()),
                ))),
                Err(error) if is_nothing_there(&error) => Ok(None),
                Err(error) => Err(self.problem(format!("cannot be read: {error}"))),
            }
        };
        timeout(ANSWER_WITHIN, read)
            .await
            .unwrap_or_else(|_| Err(self.problem("did not answer in time")))
    }

    /// Deletes a key of a bucket that is not ours, if its last revision is `expected`; the mark is
    /// that of any other client, and says who left it.
    pub async fn delete_foreign(
        &self,
        key: &str,
        expected: u64,
        writer: &str,
    ) -> Result<u64, WriteError> {
        let message = PublishMessage::build()
            .header(WRITER_HEADER, writer)
            .header(OPERATION, "DEL")
            .expected_last_subject_sequence(expected);
        self.publish(key, message).await
    }

    /// Watches all keys, from their present records on. A bucket that is missing is not made.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone(), false)
    }

    /// As [`Bucket::watch`], of a bucket that is not ours: its configuration stays as it is.
    pub fn watch_foreign(&self) -> Watch {
        Watch::new(self.clone(), true)
    }

    async fn publish(&self, key: &str, message: PublishMessage) -> Result<u64, WriteError> {
        if !self.ownership.is_held() {
            return Err(WriteError::NotOwner);
        }
        let subject = format!("{}{key}", self.prefix);
        self.agreed().await?;
        let stored = async { self.jetstream.send_publish(subject, message).await?.await };
        match timeout(ANSWER_WITHIN, stored).await {
            Ok(Ok(acknowledged)) if acknowledged.stream != self.config.name => Err(
                WriteError::Refused(taken_by(&acknowledged.stream, &self.config.name)),
            ),
            Ok(Ok(acknowledged)) => {
                // It may have been another server's, which came in between.
                self.agreed().await?;
                Ok(acknowledged.sequence)
            }
            Ok(Err(error)) => Err(write_error(&error)),
            Err(_) => Err(WriteError::Unknown(format!(
                "no answer within {ANSWER_WITHIN:?}"
            ))),
        }
    }

    /// Waits until it is known that the store is the one that is worked with.
    async fn agreed(&self) -> Result<(), WriteError> {
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        known.map_err(|denied| match denied {
            StoreDenied::InDoubt(_) => WriteError::Unknown(denied.to_string()),
            StoreDenied::Foreign(_) => WriteError::Refused(denied.to_string()),
        })
    }

    /// A time of the server, by our clock.
    fn stored_at(&self, nanos: i128) -> Timestamp {
        let millis = i64::try_from(nanos / 1_000_000).unwrap_or_default();
        self.server_clock.to_ours(Timestamp::from_millis(millis))
    }

    fn problem(&self, problem: impl Into<String>) -> BucketError {
        BucketError {
            bucket: self.name.clone(),
            problem: problem.into(),
        }
    }
}

fn removal(writer: &str) -> PublishMessage {
    PublishMessage::build()
        .header(WRITER_HEADER, writer)
        .header(OPERATION, "PURGE")
        .header("Nats-Rollup", "sub")
        .ttl(MARK_TTL)
}

/// A message of the stream as the record of a key.
fn record(
    key: String,
    headers: Option<&HeaderMap>,
    payload: Bytes,
    revision: u64,
    stored_at: Timestamp,
) -> Record {
    let header = |name: &str| headers.and_then(|headers| headers.get_last(name));
    // The server marks a key that expired or was deleted by a limit with a reason of its own.
    let reason = header("Nats-Marker-Reason");
    let removed = reason.is_some()
        || header(OPERATION).is_some_and(|value| matches!(value.as_str(), "DEL" | "PURGE"));
    Record {
        key,
        value: (!removed).then_some(payload),
        revision,
        writer: header(WRITER_HEADER).map(|value| value.as_str().to_owned()),
        stored_at,
        expired: reason.is_some_and(|reason| reason.as_str() == EXPIRED),
    }
}

/// When a stream was made: its identity.
pub fn identity(info: &stream::Info) -> i128 {
    info.created.unix_timestamp_nanos()
}

/// Neither the key nor, perhaps, the bucket.
fn is_nothing_there(error: &stream::LastRawMessageError) -> bool {
    match error.kind() {
        stream::LastRawMessageErrorKind::NoMessageFound => true,
        stream::LastRawMessageErrorKind::JetStream(error) => {
            error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
        }
        _ => false,
    }
}

fn write_error(error: &context::PublishError) -> WriteError {
    use context::PublishErrorKind as Kind;
    let code = error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    match (error.kind(), code) {
        (Kind::WrongLastSequence, _) => WriteError::Conflict,
        (_, Some(code)) if is_wrong_sequence(code.0) => WriteError::Conflict,
        (Kind::MaxPayloadExceeded, _) => WriteError::Refused(error.to_string()),
        // The server is there and has decided, except where it says that it cannot just now.
        (Kind::Other, Some(code)) if code != jetstream::ErrorCode::CLUSTER_NOT_AVAILABLE => {
            WriteError::Refused(error.to_string())
        }
        _ => WriteError::Unknown(error.to_string()),
    }
}
