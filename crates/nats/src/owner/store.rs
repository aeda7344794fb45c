//! The entry that says who owns: one key, conditional writes with a time to live, reads from the leader.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream;
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::{Holder, OwnerError, OwnerOptions, UnreadableEntry, format};
use crate::error::{Resource, StoreDenied, StoreError, StoreErrorKind};
use crate::overlap::is_not_found;
use crate::raw_bucket;
use crate::stamp::{STAMP_KEY, stamp_old};
use crate::store::StoreHealth;
use crate::store_guard::StoreGuard;
use crate::stream::{Stream, Write};
use crate::terms;
use crate::verdicts::stream_terms::StreamTerms;

const BUCKET: &str = "LOOM_OWNERS";
const SUBJECT: &str = "$KV.LOOM_OWNERS.coordinator";
const KEY: &str = "coordinator";
/// What is tried, in the words of an error.
const OPENING: &str = "opening";
/// How long a request may stay without an answer before its outcome counts as unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the making of the bucket may take: a request, and one more where it is there or cannot be made.
const MADE_WITHIN: Duration = Duration::from_secs(4);

/// How often it is looked at whether the bucket keeps the entry.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// What the entry says.
#[derive(Debug)]
pub(super) enum OwnerEntry {
    /// Nobody owns. `sequence` is what a first write must expect.
    Free { sequence: u64 },
    /// Somebody does.
    Held { sequence: u64, holder: Box<Holder> },
    /// Nobody can read who does.
    Unreadable(UnreadableEntry),
}

#[derive(Debug, Clone)]
pub(super) struct OwnerStore {
    jetstream: jetstream::Context,
    health: StoreHealth,
    stream: stream::Stream<()>,
    messages: Stream,
}

impl OwnerStore {
    /// Opens the bucket, and makes it where there is none.
    pub(super) async fn open(
        jetstream: &jetstream::Context,
        options: &OwnerOptions,
    ) -> Result<Self, OwnerError> {
        let (name, guard) = (stream_name(), &options.guard);
        let connects = guard.connects();
        match guard.settled_within(ANSWER_WITHIN).await {
            Ok(()) => {}
            Err(StoreDenied::Foreign(why)) => return Err(OwnerError::OtherStore(why)),
            Err(denied) => return Err(StoreError::denied(OPENING, &resource(), &denied).into()),
        }
        let opened = timeout(ANSWER_WITHIN, jetstream.get_stream(&name)).await;
        let found = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_not_found(&error) && guard.known().is_none() => {
                make(jetstream, options.replicas).await?
            }
            Ok(Err(error)) => {
                if is_not_found(&error) {
                    guard.suspect();
                }
                return Err(StoreError::of(OPENING, &resource(), &error).into());
            }
            Err(_elapsed) => return Err(unanswered(OPENING).into()),
        };
        format::check(&found.cached_info().config)?;
        // A server drops what it does not know, and without it a dead owner would own for ever.
        if !found.cached_info().config.allow_message_ttl {
            return Err(OwnerError::NoTtl { bucket: BUCKET });
        }
        if guard.known().is_none() {
            guard.adopt(connects, found.cached_info());
        }
        let stream = jetstream.get_stream_no_info(&name).await;
        Ok(Self {
            jetstream: jetstream.clone(),
            messages: messages(jetstream),
            health: options.health.clone(),
            stream: stream.map_err(|error| StoreError::of(OPENING, &resource(), &error))?,
        })
    }

    /// The entry in whatever store there is, without trusting it or making anything; `None`: there is none.
    pub(super) async fn peek(jetstream: &jetstream::Context) -> Option<OwnerEntry> {
        let stream = jetstream.get_stream_no_info(&stream_name()).await.ok()?;
        let store = Self {
            jetstream: jetstream.clone(),
            messages: messages(jetstream),
            health: StoreHealth::default(),
            stream,
        };
        store.read().await.ok()
    }

    /// Sets the bucket back to what keeps the entry, for as long as this is polled. To be called by the owner.
    pub(super) async fn keep(self, replicas: usize, guard: StoreGuard) {
        let terms = StreamTerms::of_bucket(replicas);
        let name = stream_name();
        loop {
            if guard.settled().await.is_err() {
                return;
            }
            let kept = terms::keep(&self.jetstream, &name, &terms, &guard);
            if let Ok(Err(error)) = timeout(ANSWER_WITHIN, kept).await {
                tracing::debug!("{error}");
            }
            sleep(KEEP_EVERY).await;
        }
    }

    /// Gives a store of an older version its stamp. To be called by the owner.
    pub(super) async fn stamp(&self) {
        if let Ok(Ok(stream)) =
            timeout(ANSWER_WITHIN, self.jetstream.get_stream(&stream_name())).await
        {
            let stamped = stamp_old(&self.jetstream, stream.cached_info());
            let _ = timeout(ANSWER_WITHIN, stamped).await;
        }
    }

    /// Notes the format that this program writes, where the store has an older one or none; refuses where a later
    /// program has noted its own meanwhile. To be called by the owner, before it reads or writes anything else.
    pub(super) async fn note_format(&self) -> Result<(), OwnerError> {
        let asked = timeout(ANSWER_WITHIN, self.stream.get_info()).await;
        let info = asked.map_err(|_| unanswered("looking at"))?;
        let info = info.map_err(|e| StoreError::unknown("looking at", &resource(), e))?;
        // A store of this format stays as it is, also where it has no number.
        let Some(noted) = format::noted(info.config)? else {
            return Ok(());
        };
        let updated = timeout(ANSWER_WITHIN, self.jetstream.update_stream(noted)).await;
        let updated = updated.map_err(|_| unanswered("changing"))?;
        updated.map_err(|error| StoreError::of("changing", &resource(), &error))?;
        Ok(())
    }

    /// What the leader has.
    pub(super) async fn read(&self) -> Result<OwnerEntry, OwnerError> {
        match self.messages.last(SUBJECT).await {
            Ok(Some(message)) => Ok(entry(message.sequence, &message.payload)),
            Ok(None) => Ok(OwnerEntry::Free { sequence: 0 }),
            Err(error) => Err(error.at(KEY).into()),
        }
    }

    /// Says that `holder` owns, if the last write was `expected`. Returns the sequence of the write.
    pub(super) async fn write(
        &self,
        expected: u64,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<u64, StoreError> {
        let payload = serde_json::to_vec(holder);
        let payload = payload.map_err(|e| StoreError::unknown("writing", &resource(), e))?;
        let write = Write::new(SUBJECT, payload.into()).expires_after(ttl);
        self.publish(write, expected).await
    }

    /// Says that nobody owns, if the last write was `expected`.
    pub(super) async fn free(&self, expected: u64, ttl: Duration) -> Result<u64, StoreError> {
        let write = Write::new(SUBJECT, Bytes::new())
            .header("KV-Operation", "DEL")
            .expires_after(ttl);
        self.publish(write, expected).await
    }

    async fn publish(&self, write: Write, expected: u64) -> Result<u64, StoreError> {
        let error = match self.messages.write(write.if_last(expected)).await {
            Ok(sequence) => {
                self.health.confirmed(stream_name);
                return Ok(sequence);
            }
            Err(error) => error,
        };
        match error.kind() {
            StoreErrorKind::Conflict => {}
            StoreErrorKind::Unknown => self.health.unanswered(&stream_name()),
            StoreErrorKind::Refused(_) => drop(self.health.refused(&error)),
        }
        Err(error.at(KEY))
    }
}

async fn make(
    jetstream: &jetstream::Context,
    replicas: usize,
) -> Result<stream::Stream, OwnerError> {
    let stamp = (STAMP_KEY.to_owned(), uuid::Uuid::new_v4().to_string());
    let config = stream::Config {
        description: Some("Loom: which coordinator owns".to_owned()),
        metadata: format::ours().into_iter().chain([stamp]).collect(),
        ..raw_bucket::config(BUCKET, replicas)
    };
    let (resource, guard) = (resource(), StoreGuard::unwatched());
    let made = raw_bucket::make(jetstream, config, &resource, &guard);
    let made = timeout(MADE_WITHIN, made).await;
    let made = made.map_err(|_| StoreError::unanswered("making", &resource, MADE_WITHIN))?;
    Ok(made?)
}

/// A released entry is empty; one that can't be read is somebody's.
fn entry(sequence: u64, payload: &[u8]) -> OwnerEntry {
    if payload.is_empty() {
        return OwnerEntry::Free { sequence };
    }
    match serde_json::from_slice(payload) {
        Ok(holder) => OwnerEntry::Held {
            sequence,
            holder: Box::new(holder),
        },
        Err(_) => OwnerEntry::Unreadable(UnreadableEntry { revision: sequence }),
    }
}

/// It is what tells who owns, and is opened only where the store is the right one: nobody is asked at its writes.
fn messages(jetstream: &jetstream::Context) -> Stream {
    Stream::new(jetstream, stream_name(), &StoreGuard::unwatched()).called(&resource())
}

fn stream_name() -> String {
    format!("KV_{BUCKET}")
}

fn resource() -> Resource {
    Resource::bucket(BUCKET)
}

fn unanswered(doing: &'static str) -> StoreError {
    StoreError::unanswered(doing, &resource(), ANSWER_WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_belongs_to_somebody() {
        assert!(matches!(entry(7, b""), OwnerEntry::Free { sequence: 7 }));
        for payload in [&b"{\"of\":\"another version\"}"[..], b"garbage"] {
            let OwnerEntry::Unreadable(found) = entry(8, payload) else {
                panic!("an entry of another version is not free");
            };
            assert_eq!(found.revision, 8);
        }
    }
}
