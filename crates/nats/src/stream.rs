//! A stream of ours, message by message: writes with a condition and a named outcome, reads from the leader, deletes by
//! sequence. Every resource that is written goes through here.
//!
//! A write asks the [ownership](Ownership) first, then the [guard](StoreGuard) of the store. That narrows; what fences is
//! the condition. Its acknowledgement is held against the stream that it should come from, and against the store that was
//! trusted when it was sent.

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, DeleteStatus, RawMessageError, RawMessageErrorKind};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use tokio::time::timeout;

use super::asking_again::asked_again;
use super::connection::WRITE_TIMEOUT;
use super::error::{Cause, Resource, StoreDenied, StoreError, StoreErrorKind};
use super::outcome::{outcome_of, unanswered};
use super::ownership::Ownership;
use super::store_guard::StoreGuard;

/// A message to be written.
#[derive(Debug)]
pub struct Write {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Write {
    /// To this subject, whatever is there.
    pub fn new(subject: impl Into<String>, payload: Bytes) -> Self {
        Self {
            subject: subject.into(),
            headers: HeaderMap::new(),
            payload,
        }
    }

    /// Only if the last sequence of the subject is this one (0: it has none).
    #[must_use]
    pub fn if_last(self, expected: u64) -> Self {
        self.header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &expected.to_string())
    }

    /// It goes by itself after this time: in whole seconds, and not less than the server's least.
    #[must_use]
    pub fn expires_after(self, ttl: Duration) -> Self {
        self.header(NATS_MESSAGE_TTL, &format!("{}s", ttl.as_secs().max(1)))
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: impl async_nats::header::IntoHeaderName, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// The connection. One for all clones: a client of NATS is hundreds of bytes.
#[derive(Debug)]
struct Link {
    client: Client,
    jetstream: jetstream::Context,
}

/// A stream by its name. It need not be there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stream {
    name: String,
    /// What errors are about.
    resource: Resource,
    link: Arc<Link>,
    ownership: Ownership,
    guard: StoreGuard,
    /// Whether its end is what the guard knows the store by.
    is_tracked: bool,
}

impl Stream {
    /// Of this name, written while `guard` agrees.
    pub fn new(
        jetstream: &jetstream::Context,
        name: impl Into<String>,
        guard: &StoreGuard,
    ) -> Self {
        let name = name.into();
        Self {
            resource: Resource::stream(name.as_str()),
            name,
            link: Arc::new(Link {
                client: jetstream.client(),
                jetstream: jetstream.clone(),
            }),
            ownership: Ownership::alone(),
            guard: guard.clone(),
            is_tracked: false,
        }
    }

    /// The same stream, which errors call by this name.
    #[must_use]
    pub fn called(mut self, resource: &Resource) -> Self {
        self.resource = resource.clone();
        self
    }

    /// The same stream, whose end is what the guard knows the store by.
    #[must_use]
    pub const fn tracked_by_guard(mut self) -> Self {
        self.is_tracked = true;
        self
    }

    /// The same stream, written only while this ownership lasts.
    #[must_use]
    pub fn owned_by(mut self, ownership: &Ownership) -> Self {
        self.ownership = ownership.clone();
        self
    }

    /// The client behind it.
    pub fn client(&self) -> &Client {
        &self.link.client
    }

    /// The JetStream behind it.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.link.jetstream
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes a message; the sequence that it was stored at.
    ///
    /// # Errors
    /// It is not known to be stored, see [`StoreErrorKind`].
    pub async fn write(&self, write: Write) -> Result<u64, StoreError> {
        self.may_change(WRITING)?;
        let mark = self.guard.before_a_write();
        let written = self.send(write).await;
        match &written {
            Ok(sequence) => {
                let believed = if self.is_tracked {
                    self.guard.is_believable(mark, *sequence)
                } else {
                    self.guard.may_write().is_ok()
                };
                // It may have been another server's, which came in between.
                if !believed {
                    let known = self.guard.settled_within(WRITE_TIMEOUT).await;
                    known.map_err(|denied| self.denied(WRITING, &denied))?;
                }
                if self.is_tracked {
                    self.guard.acknowledged(*sequence);
                }
            }
            Err(error) => match error.kind() {
                StoreErrorKind::Conflict | StoreErrorKind::Refused(Cause::TooLarge) => {}
                // Where somebody listens to everything, no answer may mean that there is no stream.
                _ if self.is_tracked => self.guard.suspect(),
                _ => {}
            },
        }
        written
    }

    /// Waits until the stream has dealt with every write that was sent before: one with a condition that it must refuse
    /// queues behind them. Nothing is stored, so nobody is asked.
    ///
    /// # Errors
    /// It did not say that it refuses.
    pub async fn settle(&self, subject: impl Into<String>) -> Result<(), StoreError> {
        let write = Write::new(subject, Bytes::new()).if_last(IMPOSSIBLE);
        match self.send(write).await {
            Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(()),
            Ok(sequence) => {
                let why = format!("it took a write with an impossible condition at {sequence}");
                let doing = "settling the writes of";
                Err(StoreError::refused(
                    Cause::Unsuited,
                    doing,
                    &self.resource,
                    why,
                ))
            }
            Err(error) => Err(error),
        }
    }

    async fn send(&self, write: Write) -> Result<u64, StoreError> {
        let request = Request::new()
            .headers(write.headers)
            .payload(write.payload)
            .timeout(None);
        let sent = self.client().send_request(write.subject, request);
        match timeout(WRITE_TIMEOUT, sent).await {
            Ok(Ok(answer)) => outcome_of(&answer.payload, &self.name, &self.resource),
            Ok(Err(error)) => Err(unanswered(&error, &self.resource)),
            Err(_elapsed) => Err(self.no_answer(WRITING)),
        }
    }

    /// The last message of a subject, from the leader; `None`: there is none.
    ///
    /// # Errors
    /// The server does not say, or there is no stream ([`StoreError::is_missing`]).
    pub async fn last(&self, subject: &str) -> Result<Option<StreamMessage>, StoreError> {
        let read = async {
            let stream = self.opened().await?;
            let ask = || stream.get_last_raw_message_by_subject(subject);
            self.found(asked_again(ask).await)
        };
        let read = timeout(WRITE_TIMEOUT, read).await;
        read.unwrap_or_else(|_| Err(self.no_answer(READING)))
    }

    /// The message at a sequence, from the leader; `None`: it is gone.
    ///
    /// # Errors
    /// The server does not say, or there is no stream ([`StoreError::is_missing`]).
    pub async fn at(&self, sequence: u64) -> Result<Option<StreamMessage>, StoreError> {
        let read = async {
            let stream = self.opened().await?;
            self.found(asked_again(|| stream.get_raw_message(sequence)).await)
        };
        let read = timeout(WRITE_TIMEOUT, read).await;
        read.unwrap_or_else(|_| Err(self.no_answer(READING)))
    }

    /// Deletes the message at a sequence, and never a later one of the same subject. One that is gone already counts as
    /// deleted.
    ///
    /// # Errors
    /// Why it is not known to be gone.
    pub async fn delete(&self, sequence: u64) -> Result<(), StoreError> {
        self.may_change(DELETING)?;
        let subject = format!("STREAM.MSG.DELETE.{}", self.name);
        // To erase is to write noise over it, which makes every other write wait.
        let order = serde_json::json!({"seq": sequence, "no_erase": true});
        let error = match self.jetstream().request(subject, &order).await {
            Ok(Response::<DeleteStatus>::Ok(_)) => return Ok(()),
            Ok(Response::Err { error }) => StoreError::of(DELETING, &self.resource, &error),
            Err(error) => StoreError::unknown(DELETING, &self.resource, error),
        };
        match self.at(sequence).await {
            Ok(None) => Ok(()),
            _ => Err(error),
        }
    }

    /// Whether anything may be changed at this moment.
    fn may_change(&self, doing: &'static str) -> Result<(), StoreError> {
        if !self.ownership.is_held() {
            return Err(StoreError::not_owner(doing, &self.resource));
        }
        let known = self.guard.may_write();
        known.map_err(|denied| self.denied(doing, &denied))
    }

    async fn opened(&self) -> Result<stream::Stream<()>, StoreError> {
        let stream = self.jetstream().get_stream_no_info(&self.name).await;
        stream.map_err(|error| StoreError::of(READING, &self.resource, &error))
    }

    fn found(
        &self,
        read: Result<StreamMessage, RawMessageError>,
    ) -> Result<Option<StreamMessage>, StoreError> {
        match read {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(StoreError::of(READING, &self.resource, &error)),
        }
    }

    fn denied(&self, doing: &'static str, denied: &StoreDenied) -> StoreError {
        StoreError::denied(doing, &self.resource, denied)
    }

    fn no_answer(&self, doing: &'static str) -> StoreError {
        StoreError::unanswered(doing, &self.resource, WRITE_TIMEOUT)
    }
}

/// What is tried, in the words of an error.
const WRITING: &str = "writing";
const READING: &str = "reading";
const DELETING: &str = "deleting from";
/// A sequence that no key has.
const IMPOSSIBLE: u64 = u64::MAX >> 1;
