//! A stream of ours, message by message: writes with a condition and a named outcome, reads from the leader, deletes by
//! sequence. Every resource that is written goes through here.
//!
//! A write asks the [ownership](Ownership) first, then the [guard](StoreGuard) of the store. That narrows; what fences is
//! the condition. Its acknowledgement is held against the stream that it should come from, and against the store that was
//! trusted when it was sent.

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DeleteStatus, RawMessageError, RawMessageErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use tokio::time::timeout;

use super::connection::WRITE_TIMEOUT;
use super::outcome::{Cause, NOT_OWNER, WriteError, outcome_of, write_error};
use super::owner::Ownership;
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

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no stream.
    #[error("there is no stream")]
    NoStream,
    /// The server does not say.
    #[error("{0}")]
    Failed(String),
}

/// A stream by its name. It need not be there. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stream {
    name: String,
    client: Client,
    jetstream: jetstream::Context,
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
        Self {
            name: name.into(),
            client: jetstream.client(),
            jetstream: jetstream.clone(),
            ownership: Ownership::alone(),
            guard: guard.clone(),
            is_tracked: false,
        }
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes a message; the sequence that it was stored at.
    ///
    /// # Errors
    /// It is not known to be stored, see [`WriteError`].
    pub async fn write(&self, write: Write) -> Result<u64, WriteError> {
        if !self.ownership.is_held() {
            return Err(WriteError::not_owner());
        }
        self.guard.may_write()?;
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
                    self.guard.settled_within(WRITE_TIMEOUT).await?;
                }
                if self.is_tracked {
                    self.guard.acknowledged(*sequence);
                }
            }
            Err(
                WriteError::Conflict
                | WriteError::Refused {
                    cause: Cause::TooLarge,
                    ..
                },
            ) => {}
            // Where somebody listens to everything, no answer may mean that there is no stream.
            Err(_) if self.is_tracked => self.guard.suspect(),
            Err(_) => {}
        }
        written
    }

    /// Waits until the stream has dealt with every write that was sent before: one with a condition that it must refuse
    /// queues behind them. Nothing is stored, so nobody is asked.
    ///
    /// # Errors
    /// It did not say that it refuses.
    pub async fn settle(&self, subject: impl Into<String>) -> Result<(), String> {
        match self
            .send(Write::new(subject, Bytes::new()).if_last(IMPOSSIBLE))
            .await
        {
            Err(WriteError::Conflict) => Ok(()),
            Ok(sequence) => Err(format!(
                "it took a write with an impossible condition at {sequence}"
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn send(&self, write: Write) -> Result<u64, WriteError> {
        let request = Request::new()
            .headers(write.headers)
            .payload(write.payload)
            .timeout(None);
        let sent = self.client.send_request(write.subject, request);
        match timeout(WRITE_TIMEOUT, sent).await {
            Ok(Ok(answer)) => outcome_of(&answer.payload, &self.name),
            Ok(Err(error)) => Err(write_error(&error)),
            Err(_elapsed) => Err(WriteError::Unknown(format!(
                "no answer within {WRITE_TIMEOUT:?}"
            ))),
        }
    }

    /// The last message of a subject, from the leader; `None`: there is none.
    ///
    /// # Errors
    /// The server does not say, or there is no stream.
    pub async fn last(&self, subject: &str) -> Result<Option<StreamMessage>, ReadError> {
        let read = async {
            let stream = self.jetstream.get_stream_no_info(&self.name).await;
            let stream = stream.map_err(|error| ReadError::Failed(error.to_string()))?;
            found(stream.get_last_raw_message_by_subject(subject).await)
        };
        timeout(WRITE_TIMEOUT, read)
            .await
            .unwrap_or_else(|_| Err(unanswered()))
    }

    /// The message at a sequence, from the leader; `None`: it is gone.
    ///
    /// # Errors
    /// The server does not say, or there is no stream.
    pub async fn at(&self, sequence: u64) -> Result<Option<StreamMessage>, ReadError> {
        let read = async {
            let stream = self.jetstream.get_stream_no_info(&self.name).await;
            let stream = stream.map_err(|error| ReadError::Failed(error.to_string()))?;
            found(stream.get_raw_message(sequence).await)
        };
        timeout(WRITE_TIMEOUT, read)
            .await
            .unwrap_or_else(|_| Err(unanswered()))
    }

    /// Deletes the message at a sequence, and never a later one of the same subject. One that is gone already counts as
    /// deleted.
    ///
    /// # Errors
    /// Why it is not known to be gone.
    pub async fn delete(&self, sequence: u64) -> Result<(), String> {
        if !self.ownership.is_held() {
            return Err(NOT_OWNER.to_owned());
        }
        self.guard
            .may_write()
            .map_err(|denied| denied.to_string())?;
        let subject = format!("STREAM.MSG.DELETE.{}", self.name);
        // To erase is to write noise over it, which makes every other write wait.
        let order = serde_json::json!({"seq": sequence, "no_erase": true});
        let error = match self.jetstream.request(subject, &order).await {
            Ok(Response::<DeleteStatus>::Ok(_)) => return Ok(()),
            Ok(Response::Err { error }) => error.to_string(),
            Err(error) => error.to_string(),
        };
        match self.at(sequence).await {
            Ok(None) => Ok(()),
            _ => Err(error),
        }
    }
}

/// A sequence that no key has.
const IMPOSSIBLE: u64 = u64::MAX >> 1;

fn found(read: Result<StreamMessage, RawMessageError>) -> Result<Option<StreamMessage>, ReadError> {
    match read {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(said)
                if said.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Err(ReadError::NoStream)
            }
            _ => Err(ReadError::Failed(error.to_string())),
        },
    }
}

fn unanswered() -> ReadError {
    ReadError::Failed(format!("no answer within {WRITE_TIMEOUT:?}"))
}
