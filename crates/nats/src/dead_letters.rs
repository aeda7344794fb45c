//! The stream of dead letters: one message per item, conditional publishing, reads, deletes.
//!
//! It is made with the first letter: most projects never need one. It is made because the server said, when
//! the letters were read, that there is none; never because nobody answered: where anybody listens to
//! everything, a publish without a stream has no answer at all. What a list is made from stands in a header,
//! so that the stream is read at a start without its bodies.
//!
//! | a publish came back as | then |
//! |---|---|
//! | stored, by this stream | it is a letter |
//! | stored, by a stream of somebody else | no letter; ours is gone, and the letters are read again |
//! | nobody answers, no answer | unknown: the letters are read again, which tells whether there is a stream |
//!
//! A stream that was there and is not any more has lost its letters. What is known of them is forgotten first, since a
//! new stream gives their places out again; then it is made again.
//!
//! Where a stream of somebody else has the subjects, ours cannot be made: that is said in the log, in `/ready` and
//! in the answers about dead letters, and tried again for as long as letters are wanted. A request to make it that was
//! not answered says nothing: the stream may be there, and is looked for.

mod presence;

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::stream::{self, DirectGetErrorKind};
use bytes::Bytes;
use loom_protocol::names::LETTER_HEADER;
use loom_protocol::{ProjectId, Timestamp, WorkId, names};
use parking_lot::Mutex;

use super::asking_again::asked_again;
use super::connection::WRITE_TIMEOUT;
use super::error::{Cause, Resource, StoreError, StoreErrorKind};
use super::listing::FollowedStream;
use super::overlap::{is_not_found, not_made};
use super::ownership::Ownership;
use super::replay::{NEXT_WITHIN, Replay};
use super::store_guard::StoreGuard;
use super::stream::{Stream, Write};
use super::terms;
use crate::verdicts::stream_terms::StreamTerms;

/// The key in the stream's metadata that says whose it is.
const PROJECT_KEY: &str = "loom.project";
/// How long the server knows the id of a message again: a late copy is dropped for so long.
const KNOWN_AGAIN: Duration = Duration::from_mins(2);
/// What is tried, in the words of an error.
const READING: &str = "reading";

/// A letter as the stream holds it.
#[derive(Debug, Clone)]
pub struct StoredLetter {
    /// Whose; `None` where the subject names no item.
    pub id: Option<WorkId>,
    /// Its place in the stream.
    pub sequence: u64,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// What a list is made from.
    pub head: Option<String>,
    /// The letter; empty where only the heads were asked for.
    pub bytes: Bytes,
}

/// A letter to be published.
#[derive(Debug)]
pub struct NewLetter {
    /// Whose.
    pub id: WorkId,
    /// The same when it is published again.
    pub message_id: String,
    /// What a list is made from: one line.
    pub head: String,
    /// The letter.
    pub bytes: Bytes,
}

/// What the server said last.
#[derive(Debug, Default)]
struct Seen {
    /// When the stream that is there was made, in nanoseconds; `None`: there is none.
    made: Option<i128>,
    /// The one whose letters are known was removed: they are to be read again before anything is made.
    removed: bool,
    /// The stream in the list of all streams.
    followed: Option<FollowedStream>,
}

/// The stream of one project.
#[derive(Debug, Clone)]
pub struct LetterStore {
    project: ProjectId,
    stream: String,
    /// What errors are about.
    resource: Resource,
    prefix: String,
    replicas: usize,
    retention: Duration,
    guard: StoreGuard,
    seen: Arc<Mutex<Seen>>,
    ownership: Ownership,
    messages: Stream,
}

impl LetterStore {
    /// The stream of a project; nothing is made yet.
    pub fn new(
        jetstream: &jetstream::Context,
        project: &ProjectId,
        replicas: usize,
        retention: Duration,
        guard: &StoreGuard,
    ) -> Self {
        let all = names::all_dead_letters(project);
        let stream = names::dead_letter_stream(project);
        let resource = Resource::new("the dead letters", stream.as_str());
        Self {
            messages: Stream::new(jetstream, &stream, guard).called(&resource),
            project: project.clone(),
            stream,
            resource,
            prefix: all.trim_end_matches('*').to_owned(),
            replicas,
            retention,
            guard: guard.clone(),
            seen: Arc::default(),
            ownership: Ownership::alone(),
        }
    }

    /// How many bytes a message may have, and so a letter with its headers.
    pub fn max_payload(&self) -> usize {
        self.messages.client().max_payload()
    }

    /// The same stream, written only while this ownership lasts: each write asks it first.
    #[must_use]
    pub fn owned_by(mut self, ownership: &Ownership) -> Self {
        self.ownership = ownership.clone();
        self.messages = self.messages.owned_by(ownership);
        self
    }

    /// How long a letter is kept.
    pub const fn retention(&self) -> Duration {
        self.retention
    }

    /// What keeps the stream from being made, if anything does.
    pub fn problem(&self) -> Option<String> {
        self.guard.problem_of(&self.stream)
    }

    /// Publishes a letter if the last one of its item is `expected` (0: there is none). The stream must have been
    /// [made ready](Self::prepare).
    pub async fn publish(&self, letter: &NewLetter, expected: u64) -> Result<u64, StoreError> {
        let subject = names::dead_letter(&self.project, letter.id);
        let write = Write::new(subject, letter.bytes.clone())
            .if_last(expected)
            .header(NATS_MESSAGE_ID, &letter.message_id)
            .header(LETTER_HEADER, &letter.head);
        let error = match self.messages.write(write).await {
            Ok(sequence) => return Ok(sequence),
            Err(error) => error.at(letter.id),
        };
        match error.kind() {
            StoreErrorKind::Refused(Cause::NoStream) => Err(error.in_doubt()),
            // Another stream took it, perhaps, because ours is gone: then all letters are read again.
            StoreErrorKind::Refused(
                Cause::OtherStream | Cause::Server | Cause::Full(_) | Cause::NotNow,
            ) if matches!(self.open().await, Ok(None)) => Err(error.in_doubt()),
            _ => Err(error),
        }
    }

    /// Opens the stream and brings its retention up to date. `None`: there is none.
    pub async fn open(&self) -> Result<Option<stream::Stream>, StoreError> {
        let opened = match self.messages.jetstream().get_stream(&self.stream).await {
            Ok(stream) => stream,
            Err(error) if is_not_found(&error) => {
                self.seen_now(None);
                self.note(None);
                return Ok(None);
            }
            Err(error) => return Err(StoreError::of("opening", &self.resource, &error)),
        };
        self.seen_now(Some(&opened));
        if self.ownership.is_held() {
            let terms = StreamTerms {
                per_subject: Some(1),
                max_age: self.retention,
                is_queue: false,
                is_bucket: false,
                is_shared: false,
                replicas: self.replicas,
            };
            let kept =
                terms::keep(self.messages.jetstream(), &self.stream, &terms, &self.guard).await?;
            self.note(kept.map(|kept| kept.identity));
        }
        Ok(Some(opened))
    }

    /// Makes the stream if there is none, as the server said when the letters were read last.
    ///
    /// # Errors
    /// It cannot be made; that is logged once, and told by [`problem`](Self::problem).
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let (made, removed) = {
            let seen = self.seen.lock();
            (seen.made, seen.removed)
        };
        if removed {
            let why = "they were removed, and are read again first";
            let gone = Cause::NoStream;
            return Err(StoreError::refused(gone, "writing", &self.resource, why));
        }
        if made.is_some() {
            return Ok(());
        }
        let known = self.guard.settled_within(WRITE_TIMEOUT).await;
        known.map_err(|denied| StoreError::denied("making", &self.resource, &denied))?;
        let made = self
            .messages
            .jetstream()
            .get_or_create_stream(stream::Config {
                name: self.stream.clone(),
                description: Some("Loom: dead letters".into()),
                subjects: vec![names::all_dead_letters(&self.project)],
                max_messages_per_subject: 1,
                max_age: self.retention,
                duplicate_window: self.known_again(),
                allow_direct: true,
                num_replicas: self.replicas,
                metadata: [(PROJECT_KEY.to_owned(), self.project.to_string())].into(),
                ..Default::default()
            })
            .await;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                let subjects = [names::all_dead_letters(&self.project)];
                let error =
                    not_made(self.messages.jetstream(), &self.resource, &subjects, &error).await;
                if error.is_of_the_stream() {
                    self.guard.note_problem(&self.stream, Some(&error.reason()));
                }
                return Err(error);
            }
        };
        self.guard.note_problem(&self.stream, None);
        self.seen_now(Some(&made));
        Ok(())
    }

    fn known_again(&self) -> Duration {
        KNOWN_AGAIN.min(self.retention)
    }

    /// Reads the heads of all letters, in the order of the stream. True where the stream whose letters were known was
    /// removed, and there is none.
    pub async fn heads(
        &self,
        mut each: impl FnMut(StoredLetter) + Send,
    ) -> Result<bool, StoreError> {
        let known = self.guard.settled_within(NEXT_WITHIN).await;
        known.map_err(|denied| StoreError::denied(READING, &self.resource, &denied))?;
        let opened = self.open().await?;
        let was_removed = std::mem::take(&mut self.seen.lock().removed);
        let Some(stream) = opened else {
            return Ok(was_removed);
        };
        let Some(mut replay) = Replay::open(&stream, &self.resource, 1, true).await? else {
            return Ok(false);
        };
        loop {
            let next = replay.next().await?;
            each(StoredLetter {
                id: self.id_of(&next.message.subject),
                sequence: next.sequence,
                stored_at: instant(next.published),
                head: head_of(next.message.headers.as_ref()),
                bytes: Bytes::new(),
            });
            if next.is_last {
                return Ok(false);
            }
        }
    }

    /// Reads the letter at a place; `None`: it is gone.
    pub async fn get(&self, sequence: u64) -> Result<Option<StoredLetter>, StoreError> {
        let stream = self.stream().await?;
        match asked_again(|| stream.direct_get(sequence)).await {
            Ok(message) => return Ok(Some(self.stored(&message))),
            // A replica may lag behind what was acknowledged.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
            Err(_) if self.is_gone().await => return Ok(None),
            Err(error) => return Err(self.unread(error)),
        }
        self.read(self.messages.at(sequence).await)
    }

    /// Reads the letter of an item from the leader: what a conflict was about.
    pub async fn last_of(&self, id: WorkId) -> Result<Option<StoredLetter>, StoreError> {
        let subject = names::dead_letter(&self.project, id);
        let last = self.messages.last(&subject).await;
        self.read(last.map_err(|error| error.at(id)))
    }

    /// What was read of the stream; where that is gone, the letter is.
    fn read(
        &self,
        found: Result<Option<jetstream::message::StreamMessage>, StoreError>,
    ) -> Result<Option<StoredLetter>, StoreError> {
        match found {
            Ok(message) => Ok(message.map(|message| self.stored(&message))),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the letter at a place, and never a later one of the same item. One that is gone
    /// already counts as deleted.
    pub async fn delete(&self, sequence: u64) -> Result<(), StoreError> {
        let deleted = self.messages.delete(sequence).await;
        match deleted {
            // The ownership and the store were asked: where the stream is gone, so is the letter.
            Err(_) if self.may_delete() && self.is_gone().await => Ok(()),
            deleted => deleted,
        }
    }

    fn may_delete(&self) -> bool {
        self.ownership.is_held() && self.guard.may_write().is_ok()
    }

    /// The stream, of which a letter is known.
    async fn stream(&self) -> Result<stream::Stream<()>, StoreError> {
        self.messages
            .jetstream()
            .get_stream_no_info(&self.stream)
            .await
            .map_err(|e| StoreError::of("opening", &self.resource, &e))
    }

    fn stored(&self, message: &jetstream::message::StreamMessage) -> StoredLetter {
        StoredLetter {
            id: self.id_of(&message.subject),
            sequence: message.sequence,
            stored_at: instant(message.time.unix_timestamp_nanos()),
            head: head_of(Some(&message.headers)),
            bytes: message.payload.clone(),
        }
    }

    fn id_of(&self, subject: &str) -> Option<WorkId> {
        subject.strip_prefix(&self.prefix)?.parse().ok()
    }

    fn unread(&self, why: impl std::fmt::Display) -> StoreError {
        StoreError::unknown(READING, &self.resource, why)
    }
}

fn head_of(headers: Option<&HeaderMap>) -> Option<String> {
    let head = headers?.get(LETTER_HEADER)?;
    Some(head.as_str().to_owned())
}

fn instant(nanos: i128) -> Timestamp {
    Timestamp::from_millis(i64::try_from(nanos / 1_000_000).unwrap_or_default())
}
