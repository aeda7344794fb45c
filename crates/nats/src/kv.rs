//! A key-value bucket, raw: compare-and-set with headers, and a watch that knows who wrote.
//!
//! The client's own key-value store has no headers and drops per-message TTLs, so this speaks to
//! the stream behind the bucket. What other clients read and write through their key-value store
//! is the same bucket.
//!
//! A bucket waits until its store is known to be the right one, and what nobody answers because there is no stream is
//! an outcome that is unknown: another client may make the bucket at any moment.

mod making;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use loom_protocol::Timestamp;
use loom_protocol::names::WRITER_HEADER;

use super::error::{Cause, Resource, StoreDenied, StoreError, StoreErrorKind};
use super::inbox::SharedInbox;
use super::overlap::is_not_found;
use super::raw_bucket;
use super::server_clock::ServerClock;
use super::store_guard::StoreGuard;
use super::stream::{Stream, Write};
use crate::clock::Clock;
use crate::verdicts::stream_terms::StreamTerms;

pub use making::Standing;
pub use watch::{Watch, WatchEvent};

use super::ownership::Ownership;

/// How long an answer of the server is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the mark of a removed key stays.
const MARK_TTL: Duration = Duration::from_hours(1);
/// The key of a write that is always refused.
const BARRIER: &str = "barrier";
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

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: String,
    /// What errors are about.
    resource: Resource,
    prefix: String,
    config: Arc<stream::Config>,
    guard: StoreGuard,
    ownership: Ownership,
    messages: Stream,
    server_clock: ServerClock,
    terms: StreamTerms,
    /// Through which watches hear, where the guard knows of none.
    inbox: Option<SharedInbox>,
}

impl Bucket {
    /// The bucket of this name, without asking whether it exists. `replicas` is for its creation. Nothing is
    /// written or made while `guard` does not agree. Where a client has made it, single keys are let expire, and nothing
    /// else goes by its age or because there is too much; what else that client configured stays.
    pub fn new(
        jetstream: &jetstream::Context,
        name: &str,
        replicas: usize,
        guard: &StoreGuard,
    ) -> Self {
        let mut jetstream = jetstream.clone();
        jetstream.set_timeout(ANSWER_WITHIN);
        let prefix = format!("$KV.{name}.");
        let config = stream::Config {
            deny_delete: true,
            ..raw_bucket::config(name, replicas)
        };
        let resource = Resource::bucket(name);
        let messages = Stream::new(&jetstream, format!("KV_{name}"), guard);
        Self {
            name: name.to_owned(),
            messages: messages.called(&resource),
            resource,
            prefix,
            config: Arc::new(config),
            guard: guard.clone(),
            ownership: Ownership::alone(),
            server_clock: ServerClock::default(),
            terms: StreamTerms::of_shared_bucket(),
            inbox: guard.listing().map(|listing| listing.inbox().clone()),
        }
    }

    /// The same bucket, which nobody but Loom makes: all of its configuration is kept.
    #[must_use]
    pub fn ours_alone(mut self) -> Self {
        self.terms = StreamTerms::of_bucket(self.config.num_replicas);
        self
    }

    /// The same bucket, with the times of its records by this clock, as far as the server's is known: from a watch
    /// that has opened.
    #[must_use]
    pub fn timed_by(mut self, clock: &Clock) -> Self {
        self.server_clock = ServerClock::of(clock);
        self
    }

    /// The same bucket, whose watches hear through this inbox; otherwise through that of the store that the guard watches, or
    /// each through one of its own.
    #[must_use]
    pub fn heard_through(mut self, inbox: &SharedInbox) -> Self {
        self.inbox = Some(inbox.clone());
        self
    }

    /// The same bucket, written only while this ownership lasts: each write asks it first.
    #[must_use]
    pub fn owned_by(mut self, ownership: &Ownership) -> Self {
        self.ownership = ownership.clone();
        self.messages = self.messages.owned_by(ownership);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What errors call it.
    pub const fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The client behind it.
    pub fn client(&self) -> &Client {
        self.messages.client()
    }

    /// The stream behind the bucket; `None` where it does not exist.
    pub async fn info(&self) -> Result<Option<stream::Info>, StoreError> {
        match self
            .messages
            .jetstream()
            .get_stream(&self.config.name)
            .await
        {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(StoreError::of("looking at", &self.resource, &error)),
        }
    }

    /// Stores a value if the key's last revision is `expected` (0: none), in `writer`'s name.
    pub async fn write(
        &self,
        key: &str,
        value: Bytes,
        expected: u64,
        writer: &str,
    ) -> Result<u64, StoreError> {
        let write = self.to(key, value, writer);
        self.publish(key, write.if_last(expected)).await
    }

    /// Stores a value whatever the key holds, in `writer`'s name; it expires after `ttl`. For a
    /// bucket with one writer.
    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        ttl: Duration,
        writer: &str,
    ) -> Result<u64, StoreError> {
        let write = self.to(key, value, writer).expires_after(ttl);
        self.publish(key, write).await
    }

    /// Removes a key whatever it holds. For a bucket with one writer.
    pub async fn purge(&self, key: &str, writer: &str) -> Result<u64, StoreError> {
        self.publish(key, self.removal(key, writer)).await
    }

    /// Removes a key if its last revision is `expected`, in `writer`'s name. The mark that is left
    /// in its place goes after an hour.
    pub async fn remove(&self, key: &str, expected: u64, writer: &str) -> Result<u64, StoreError> {
        let write = self.removal(key, writer);
        self.publish(key, write.if_last(expected)).await
    }

    /// Takes a key away that was written last at this revision, without a mark in its place: that takes no room, where
    /// the store is full. Whether it did; what was written since stays.
    pub async fn drop_last(&self, key: &str, revision: u64) -> Result<bool, StoreError> {
        if !self.ownership.is_held() {
            return Err(StoreError::not_owner("purging", &self.resource).at(key));
        }
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        known.map_err(|denied| self.denied("purging", &denied))?;
        let stream = self
            .messages
            .jetstream()
            .get_stream_no_info(&self.config.name)
            .await;
        let stream = stream.map_err(|error| StoreError::of("purging", &self.resource, &error))?;
        // Up to, and without, this sequence.
        let purge = stream.purge().filter(format!("{}{key}", self.prefix));
        let purged = purge.sequence(revision + 1).await;
        let purged = purged.map_err(|error| StoreError::of("purging", &self.resource, &error))?;
        Ok(purged.purged > 0)
    }

    /// The last record of a key, from the leader; `None` where there is not even a mark.
    pub async fn last(&self, key: &str) -> Result<Option<Record>, StoreError> {
        match self.messages.last(&format!("{}{key}", self.prefix)).await {
            Ok(message) => Ok(message.map(|message| {
                let stored_at = self.stored_at(message.time.unix_timestamp_nanos());
                let headers = Some(&message.headers);
                let (payload, sequence) = (message.payload, message.sequence);
                record(key.to_owned(), headers, payload, sequence, stored_at)
            })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.at(key)),
        }
    }

    /// Waits until the stream has dealt with every write that was sent before.
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.messages
            .settle(format!("{}{BARRIER}", self.prefix))
            .await
    }

    /// Deletes a key of a bucket that is not ours, if its last revision is `expected`; the mark is
    /// that of any other client, and says who left it.
    pub async fn delete_foreign(
        &self,
        key: &str,
        expected: u64,
        writer: &str,
    ) -> Result<u64, StoreError> {
        let write = self.to(key, Bytes::new(), writer).header(OPERATION, "DEL");
        self.publish(key, write.if_last(expected)).await
    }

    /// Watches all keys, from their present records on. A bucket that is missing is not made.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone(), false)
    }

    /// As [`Bucket::watch`], of a bucket that is not ours: its configuration stays as it is.
    pub fn watch_foreign(&self) -> Watch {
        Watch::new(self.clone(), true)
    }

    fn to(&self, key: &str, value: Bytes, writer: &str) -> Write {
        Write::new(format!("{}{key}", self.prefix), value).header(WRITER_HEADER, writer)
    }

    fn removal(&self, key: &str, writer: &str) -> Write {
        self.to(key, Bytes::new(), writer)
            .header(OPERATION, "PURGE")
            .header("Nats-Rollup", "sub")
            .expires_after(MARK_TTL)
    }

    async fn publish(&self, key: &str, write: Write) -> Result<u64, StoreError> {
        if !self.ownership.is_held() {
            return Err(StoreError::not_owner("writing", &self.resource).at(key));
        }
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        let written = match known {
            Ok(()) => self.messages.write(write).await,
            Err(denied) => Err(self.denied("writing", &denied)),
        };
        written.map_err(|error| match error.kind() {
            StoreErrorKind::Refused(Cause::NoStream | Cause::NotNow | Cause::StoreInDoubt) => {
                error.in_doubt().at(key)
            }
            _ => error.at(key),
        })
    }

    /// A time of the server, by our clock.
    fn stored_at(&self, nanos: i128) -> Timestamp {
        let millis = i64::try_from(nanos / 1_000_000).unwrap_or_default();
        self.server_clock.to_ours(Timestamp::from_millis(millis))
    }

    fn denied(&self, doing: &'static str, denied: &StoreDenied) -> StoreError {
        StoreError::denied(doing, &self.resource, denied)
    }
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
