//! The entry that says who owns: one key, conditional writes with a time to live, reads from the leader.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::group::GroupNote;
use super::{Holder, OwnerError, OwnerOptions, UnreadableEntry, format};
use crate::overlap::{is_name_in_use, is_not_found, is_wrong_sequence, taken_by, why_not_made};
use crate::stamp::{STAMP_KEY, stamp_old};
use crate::store::StoreHealth;
use crate::store_guard::{StoreDenied, StoreGuard};
use crate::terms;
use crate::verdicts::stream_terms::Terms;

const BUCKET: &str = "LOOM_OWNERS";
const SUBJECT: &str = "$KV.LOOM_OWNERS.coordinator";
const NOTE_SUBJECT: &str = "$KV.LOOM_OWNERS.queue-group";
/// How long a request may stay without an answer before its outcome counts as unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked at whether the bucket keeps the entry.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// What the entry says.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nobody owns. `sequence` is what a first write must expect.
    Free { sequence: u64 },
    /// Somebody does.
    Held { sequence: u64, holder: Box<Holder> },
    /// Nobody can read who does.
    Unreadable(UnreadableEntry),
}

/// Why a write did not go through.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// Another write came first.
    Conflict,
    /// It may have been stored, or may be stored later.
    Unknown(String),
}

#[derive(Debug, Clone)]
pub(super) struct OwnerStore {
    jetstream: jetstream::Context,
    health: StoreHealth,
    stream: stream::Stream<()>,
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
            Err(denied) => return Err(unavailable("opening", &denied)),
        }
        let opened = timeout(ANSWER_WITHIN, jetstream.get_stream(&name)).await;
        let found = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if is_not_found(&error) && guard.known().is_some() => {
                guard.suspect();
                return Err(unavailable("opening", &error));
            }
            Ok(Err(error)) if is_not_found(&error) => make(jetstream, options.replicas).await?,
            Ok(Err(error)) => return Err(unavailable("opening", &error)),
            Err(_elapsed) => return Err(unanswered("opening")),
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
            health: options.health.clone(),
            stream: stream.map_err(|error| unavailable("opening", &error))?,
        })
    }

    /// The entry in whatever store there is, without trusting it or making anything; `None`: there is none.
    pub(super) async fn peek(jetstream: &jetstream::Context) -> Option<Entry> {
        let stream = jetstream.get_stream_no_info(&stream_name()).await.ok()?;
        let store = Self {
            jetstream: jetstream.clone(),
            health: StoreHealth::default(),
            stream,
        };
        store.read().await.ok()
    }

    /// Sets the bucket back to what keeps the entry, for as long as this is polled. To be called by the owner.
    pub(super) async fn keep(self, replicas: usize, guard: StoreGuard) {
        let terms = Terms::of_bucket(replicas);
        let name = stream_name();
        loop {
            if guard.settled().await.is_err() {
                return;
            }
            let kept = terms::keep(&self.jetstream, &name, &terms, &guard);
            if let Ok(Err(why)) = timeout(ANSWER_WITHIN, kept).await {
                tracing::debug!("the bucket of the owner cannot be looked at: {why}");
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
        let info = asked.map_err(|_| unanswered("reading"))?;
        let info = info.map_err(|error| unavailable("reading", &error))?;
        // A store of this format stays as it is, also where it has no number.
        let Some(noted) = format::noted(info.config)? else {
            return Ok(());
        };
        let updated = timeout(ANSWER_WITHIN, self.jetstream.update_stream(noted)).await;
        let updated = updated.map_err(|_| unanswered("writing"))?;
        updated.map_err(|error| unavailable("writing", &error))?;
        Ok(())
    }

    /// What the leader has.
    pub(super) async fn read(&self) -> Result<Entry, OwnerError> {
        let asked = self.stream.get_last_raw_message_by_subject(SUBJECT);
        match timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(message)) => Ok(entry(message.sequence, &message.payload)),
            Ok(Err(error)) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                Ok(Entry::Free { sequence: 0 })
            }
            Ok(Err(error)) => Err(unavailable("reading", &error)),
            Err(_elapsed) => Err(unanswered("reading")),
        }
    }

    /// Says that `holder` owns, if the last write was `expected`. Returns the sequence of the write.
    pub(super) async fn write(
        &self,
        expected: u64,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<u64, WriteFailure> {
        let payload = serde_json::to_vec(holder);
        let payload = payload.map_err(|error| WriteFailure::Unknown(error.to_string()))?;
        let message = PublishMessage::build().payload(payload.into());
        let message = message.header(async_nats::header::NATS_MESSAGE_TTL, ttl_text(ttl));
        self.publish(SUBJECT, expected, message).await
    }

    /// Says that nobody owns, if the last write was `expected`.
    pub(super) async fn free(&self, expected: u64, ttl: Duration) -> Result<u64, WriteFailure> {
        let message = PublishMessage::build()
            .payload(Bytes::new())
            .header("KV-Operation", "DEL")
            .header(async_nats::header::NATS_MESSAGE_TTL, ttl_text(ttl));
        self.publish(SUBJECT, expected, message).await
    }

    /// Which queue group was in use last, and the sequence of the note.
    pub(super) async fn read_note(&self) -> Result<(u64, Option<GroupNote>), OwnerError> {
        let asked = self.stream.get_last_raw_message_by_subject(NOTE_SUBJECT);
        match timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(message)) => {
                let note = serde_json::from_slice(&message.payload);
                let note = note.unwrap_or_else(|_| GroupNote::unreadable());
                Ok((message.sequence, Some(note)))
            }
            Ok(Err(error)) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                Ok((0, None))
            }
            Ok(Err(error)) => Err(unavailable("reading", &error)),
            Err(_elapsed) => Err(unanswered("reading")),
        }
    }

    /// Says which queue group is in use, if the last note was `expected`. It stays for ever.
    pub(super) async fn write_note(
        &self,
        expected: u64,
        note: &GroupNote,
    ) -> Result<u64, WriteFailure> {
        let payload = serde_json::to_vec(note);
        let payload = payload.map_err(|error| WriteFailure::Unknown(error.to_string()))?;
        let message = PublishMessage::build().payload(payload.into());
        self.publish(NOTE_SUBJECT, expected, message).await
    }

    async fn publish(
        &self,
        subject: &'static str,
        expected: u64,
        message: PublishMessage,
    ) -> Result<u64, WriteFailure> {
        let message = message.expected_last_subject_sequence(expected);
        let stored = async {
            let sent = self.jetstream.send_publish(subject, message).await?;
            sent.await
        };
        match timeout(ANSWER_WITHIN, stored).await {
            Ok(Ok(stored)) if stored.stream != stream_name() => Err(WriteFailure::Unknown(
                taken_by(&stored.stream, &stream_name()),
            )),
            Ok(Ok(stored)) => {
                self.health.confirmed(stream_name);
                Ok(stored.sequence)
            }
            Ok(Err(error)) if is_conflict(&error) => Err(WriteFailure::Conflict),
            Ok(Err(error)) => {
                let text = error.to_string();
                if error.kind() == PublishErrorKind::TimedOut {
                    self.health.unanswered(&stream_name());
                } else {
                    self.health.refused(&text);
                }
                Err(WriteFailure::Unknown(text))
            }
            Err(_elapsed) => {
                self.health.unanswered(&stream_name());
                Err(WriteFailure::Unknown("no answer in time".to_owned()))
            }
        }
    }
}

async fn make(
    jetstream: &jetstream::Context,
    replicas: usize,
) -> Result<stream::Stream, OwnerError> {
    let created = timeout(ANSWER_WITHIN, jetstream.create_stream(config(replicas)));
    let error = match created.await.map_err(|_| unanswered("making"))? {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    // Another coordinator made it at the same moment, with a stamp of its own.
    if is_name_in_use(&error) {
        let name = stream_name();
        let opened = timeout(ANSWER_WITHIN, jetstream.get_stream(&name));
        let opened = opened.await.map_err(|_| unanswered("opening"))?;
        return opened.map_err(|error| unavailable("opening", &error));
    }
    let subject = format!("$KV.{BUCKET}.>");
    Err(OwnerError::Unavailable {
        doing: "making",
        why: why_not_made(jetstream, &subject, &error).await,
    })
}

/// Raw, because a bucket made as a key-value store with markers would hold an expired key for ever.
fn config(replicas: usize) -> stream::Config {
    stream::Config {
        name: format!("KV_{BUCKET}"),
        description: Some("Loom: which coordinator owns".to_owned()),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_direct: true,
        allow_rollup: true,
        allow_message_ttl: true,
        num_replicas: replicas,
        metadata: format::ours()
            .into_iter()
            .chain([(STAMP_KEY.to_owned(), uuid::Uuid::new_v4().to_string())])
            .collect(),
        ..Default::default()
    }
}

/// Whole seconds, and not less than the server's least.
fn ttl_text(ttl: Duration) -> String {
    format!("{}s", ttl.as_secs().max(1))
}

/// A released entry is empty; one that can't be read is somebody's.
fn entry(sequence: u64, payload: &[u8]) -> Entry {
    if payload.is_empty() {
        return Entry::Free { sequence };
    }
    match serde_json::from_slice(payload) {
        Ok(holder) => Entry::Held {
            sequence,
            holder: Box::new(holder),
        },
        Err(_) => Entry::Unreadable(UnreadableEntry { revision: sequence }),
    }
}

fn stream_name() -> String {
    format!("KV_{BUCKET}")
}

fn is_conflict(error: &PublishError) -> bool {
    let source = std::error::Error::source(error);
    let code = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
    let code = code.map(|error| error.error_code().0);
    error.kind() == PublishErrorKind::WrongLastSequence || code.is_some_and(is_wrong_sequence)
}

fn unavailable(doing: &'static str, error: &dyn std::error::Error) -> OwnerError {
    OwnerError::Unavailable {
        doing,
        why: error.to_string(),
    }
}

fn unanswered(doing: &'static str) -> OwnerError {
    OwnerError::Unavailable {
        doing,
        why: format!("no answer within {ANSWER_WITHIN:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_belongs_to_somebody() {
        assert!(matches!(entry(7, b""), Entry::Free { sequence: 7 }));
        for payload in [&b"{\"of\":\"another version\"}"[..], b"garbage"] {
            let Entry::Unreadable(found) = entry(8, payload) else {
                panic!("an entry of another version is not free");
            };
            assert_eq!(found.revision, 8);
        }
    }
}
