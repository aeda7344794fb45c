//! The bucket behind the ledger: conditional writes with named outcomes, reads, and a replay.
//!
//! It is a KV bucket to anybody who looks, but made raw: with per-message TTL and without limit
//! markers, so that a key that expired can be created again; with deletes allowed, so that the
//! oldest finished records can go.

mod reading;

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::stream::{self, DirectGetErrorKind};
use bytes::Bytes;
use loom_protocol::{ProjectId, WorkId, names};

use super::asking_again::asked_again;
use super::connection::WRITE_TIMEOUT;
use super::error::{Cause, Resource, StoreDenied, StoreError};
use super::inspection::Looked;
use super::overlap::is_not_found;
use super::ownership::Ownership;
use super::raw_bucket;
use super::stamp::{STAMP_KEY, stamp_old};
use super::store_guard::StoreGuard;
use super::stream::{Stream, Write};
use super::terms;
use crate::verdicts::stream_terms::StreamTerms;

/// The key of writes that are meant to be refused.
const BARRIER: &str = "barrier";
/// How long an opening waits for a look at the store.
const OPEN_WITHIN: Duration = Duration::from_secs(3);
/// What is tried, in the words of an error.
const LOOKING: &str = "looking at";

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
    stream: stream::Stream,
    bucket: String,
    /// What errors are about.
    resource: Resource,
    prefix: String,
    replicas: usize,
    guard: StoreGuard,
    messages: Stream,
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
        let resource = resource_of(&bucket);
        let denied = |denied: StoreDenied| StoreError::denied("opening", &resource, &denied);
        let connects = guard.connects();
        guard.settled_within(OPEN_WITHIN).await.map_err(denied)?;
        let found = match jetstream.get_stream(&name).await {
            Ok(stream) => stream,
            Err(error) if is_not_found(&error) && guard.known().is_none() => {
                let config = stream::Config {
                    description: Some("Loom: the ledger of work items".into()),
                    metadata: [(STAMP_KEY.to_owned(), uuid::Uuid::new_v4().to_string())].into(),
                    ..raw_bucket::config(&bucket, replicas)
                };
                raw_bucket::make(jetstream, config, &resource, guard).await?
            }
            Err(error) => {
                if is_not_found(&error) {
                    guard.suspect();
                }
                return Err(StoreError::of("opening", &resource, &error));
            }
        };
        guard.note_problem(&name, None);
        // One of which the stamp is known is none of an older version.
        if guard.known().is_none() {
            stamp_old(jetstream, found.cached_info()).await;
        }
        let store = Self {
            messages: Stream::new(jetstream, &name, guard)
                .called(&resource)
                .tracked_by_guard(),
            stream: found,
            bucket,
            resource,
            prefix,
            replicas,
            guard: guard.clone(),
        };
        store.check_ttl()?;
        guard.opened_as(store.keep().await?.identity);
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
        let name = format!("KV_{bucket}");
        let resource = resource_of(&bucket);
        let guard = StoreGuard::unwatched();
        match jetstream.get_stream(&name).await {
            Ok(stream) => Ok(Some(Self {
                messages: Stream::new(jetstream, &name, &guard)
                    .called(&resource)
                    .owned_by(&Ownership::none()),
                stream,
                prefix: format!("$KV.{bucket}."),
                bucket,
                resource,
                replicas: 0,
                guard,
            })),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(StoreError::of("looking for", &resource, &error)),
        }
    }

    /// The same ledger, written only while this ownership lasts: each write asks it first.
    #[must_use]
    pub fn owned_by(mut self, ownership: &Ownership) -> Self {
        self.messages = self.messages.owned_by(ownership);
        self
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
        known.map_err(|denied| StoreError::denied(LOOKING, &self.resource, &denied))
    }

    /// Looks at the stream, and sets back what would let records go; what it holds. To be called by the owner.
    pub async fn keep(&self) -> Result<Looked, StoreError> {
        let terms = StreamTerms::of_bucket(self.replicas);
        let name = self.stream_name();
        let kept = terms::keep(self.messages.jetstream(), name, &terms, &self.guard).await?;
        kept.ok_or_else(|| {
            self.guard.suspect();
            StoreError::refused(Cause::NoStream, LOOKING, &self.resource, "it is not there")
        })
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
    pub fn client(&self) -> &Client {
        self.messages.client()
    }

    fn check_ttl(&self) -> Result<(), StoreError> {
        if !self.stream.cached_info().config.allow_message_ttl {
            let why = "it was made without per-message TTL; move it away and start again";
            return Err(StoreError::refused(
                Cause::Unsuited,
                "opening",
                &self.resource,
                why,
            ));
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
    ) -> Result<u64, StoreError> {
        let mut write = Write::new(self.subject(id), bytes).if_last(expected);
        if let Some(ttl) = ttl {
            write = write.expires_after(ttl);
        }
        let written = self.messages.write(write).await;
        written.map_err(|error| error.at(id))
    }

    /// Reads a record from whichever replica answers.
    pub async fn get(&self, id: WorkId) -> Result<Option<Entry>, StoreError> {
        let subject = self.subject(id);
        let ask = || self.stream.direct_get_last_for_subject(&*subject);
        match asked_again(ask).await {
            Ok(message) => Ok(Some(self.entry(&message))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::unknown("reading", &self.resource, error).at(id)),
        }
    }

    /// Reads a record from the leader: what a conflict was about.
    pub async fn get_from_leader(&self, id: WorkId) -> Result<Option<Entry>, StoreError> {
        let last = self.messages.last(&self.subject(id)).await;
        let last = last.map_err(|error| error.at(id))?;
        Ok(last.map(|message| self.entry(&message)))
    }

    /// Removes the message with this sequence; a key that was written since stays. One that is gone
    /// already counts as removed.
    pub async fn remove(&self, sequence: u64) -> Result<(), StoreError> {
        self.messages.delete(sequence).await
    }

    /// Waits until the stream has dealt with every write that was sent before.
    async fn settle(&self) -> Result<(), StoreError> {
        let subject = format!("{}{BARRIER}", self.prefix);
        self.messages.settle(subject).await
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
}

fn resource_of(bucket: &str) -> Resource {
    Resource::new("the ledger", bucket)
}
