//! One command on one target, from its record to an acknowledged write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loom_protocol::target::{SpinUpOperation, Target};
use loom_protocol::{ErrorCode, SpinUpId, TargetId, WireError, names};

use super::birth_command::BirthCommand;
use super::birth_step::{BirthStep, BirthStepHook};
use super::bucket::TargetBucket;
use super::command::{Command, Decision, Outcome, contended};
use super::directory::{TargetDirectory, Unreadable, read};
use super::key::TargetKey;
use super::late_ends::{as_it_stands, end_before_unlinking};
use super::{Ended, Record, Reference};
use crate::clock::Clock;
use crate::domain::targets::{Birth, encode, encode_end};
use crate::keyed_writer::{Decided, Found, Transition};
use crate::nats::connection::Nats;
use crate::nats::error::{Cause, StoreError, StoreErrorKind};

/// The pause before a write in doubt is repeated.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);
/// After how long a client should ask again what was refused for the store's sake.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often in a row a decision is made again.
pub(super) const MOST_CONFLICTS: u32 = 15;

/// What a change needs to be carried out. Cheap to clone.
#[derive(Clone)]
pub(super) struct ChangeContext {
    pub directory: Arc<TargetDirectory>,
    pub bucket: TargetBucket,
    pub nats: Nats,
    pub clock: Clock,
    pub epoch: u64,
    pub on_step: BirthStepHook,
}

/// What a change was asked of.
#[derive(Debug, Clone)]
pub struct Request {
    pub(super) key: TargetKey,
    pub(super) name: String,
    pub(super) command: Command,
}

/// A change that has its outcome: what the directory is to take in.
#[derive(Debug)]
pub(super) struct Changed {
    pub outcome: Outcome,
    /// The record that is there now, with its revision; `None`: nothing.
    pub now: Option<(Arc<Record>, u64)>,
    /// The end of an operation that was written before the record.
    pub end: Option<Arc<Ended>>,
    /// The record that was there before.
    pub before: Option<Arc<Record>>,
}

impl Changed {
    /// A start as it is recorded by this, with its record.
    pub fn birth(&self, id: SpinUpId) -> Option<(&Record, &Birth<Reference>)> {
        let (record, _) = self.now.as_ref().filter(|_| self.outcome.changed)?;
        let mut births = record.births.iter();
        let birth = births.find(|birth| birth.operation.operation_id == id)?;
        Some((record, birth))
    }
}

/// A change that is under way. All of its writes have one write id.
pub(super) struct Change {
    context: ChangeContext,
    request: Arc<Request>,
    write_id: String,
}

/// What a decision is made on.
pub(super) struct Present {
    record: Option<Arc<Record>>,
    revision: u64,
}

/// What is on its way to the bucket.
pub(super) struct Next {
    /// `None`: the key is removed.
    record: Option<Arc<Record>>,
    bytes: Option<Bytes>,
    present: Present,
    /// The target as it will be, or as it is before it is removed.
    target: Target,
    /// The end of the operation that is decided by this, with its bytes: it is written first.
    end: Option<(Arc<Ended>, Bytes)>,
    /// Whether that end is all that is written.
    is_end_only: bool,
    /// The operation that it is about.
    operation: Option<Box<SpinUpOperation>>,
}

impl Change {
    pub fn new(context: ChangeContext, request: Arc<Request>) -> Self {
        // Unique among all writes of all owners; the epoch stands first, as everywhere.
        let write_id = format!("{}/{}", context.epoch, TargetId::generate());
        Self {
            context,
            request,
            write_id,
        }
    }

    fn key(&self) -> String {
        names::target_key(&self.request.name)
    }

    /// The step of a birth that is done when this is stored.
    fn step_after(&self, next: &Next) -> Option<BirthStep> {
        match &self.request.command {
            Command::Birth {
                command: BirthCommand::Started { .. },
                ..
            } => Some(BirthStep::Referenced),
            Command::Birth {
                command: BirthCommand::RedeemLate { .. },
                ..
            } => Some(BirthStep::Decided),
            _ => next.end.is_some().then_some(BirthStep::Decided),
        }
    }

    fn refusal(&self, why: &str) -> WireError {
        let text = format!("target {} is not changed: {why}", self.request.name);
        WireError::unavailable(text, ASK_AGAIN)
    }

    fn unwritten(target: Target, present: Present, removed: bool) -> Changed {
        Changed {
            outcome: Outcome {
                before: (!removed).then_some(target.status),
                target,
                changed: false,
                removed,
                operation: None,
            },
            end: None,
            before: present.record.clone(),
            now: present.record.map(|record| (record, present.revision)),
        }
    }
}

impl Next {
    fn of(name: &str, record: Record, present: Present) -> Result<Self, WireError> {
        let bytes = encode(&record).map_err(|error| not_written(name, &error))?;
        Ok(Self {
            target: record.target.clone(),
            record: Some(Arc::new(record)),
            bytes: Some(bytes.into()),
            present,
            end: None,
            is_end_only: false,
            operation: None,
        })
    }

    /// The end of an operation, without a change of the record.
    fn end_only(
        name: &str,
        target: Target,
        end: Box<Ended>,
        present: Present,
    ) -> Result<Self, WireError> {
        let bytes = encode_end(&end).map_err(|error| not_written(name, &error))?;
        Ok(Self {
            record: present.record.clone(),
            bytes: None,
            present,
            target,
            end: Some((end.into(), bytes.into())),
            is_end_only: true,
            operation: None,
        })
    }
}

fn not_written(name: &str, error: &serde_json::Error) -> WireError {
    let text = format!("target {name} cannot be written as JSON: {error}");
    WireError::new(ErrorCode::Internal, text)
}

impl Transition for Change {
    type Present = Present;
    type Next = Next;
    type Done = Changed;
    type Error = WireError;

    const MOST_CONFLICTS: u32 = MOST_CONFLICTS;

    async fn read(&mut self) -> Result<Present, WireError> {
        let (directory, name) = (&self.context.directory, &self.request.name);
        if let Some(error) = directory.unreadable_now(name) {
            return Err(error);
        }
        let known = self.context.directory.known(self.request.key);
        Ok(match known {
            Some(known) => Present {
                record: Some(known.record),
                revision: known.revision,
            },
            None => Present {
                record: None,
                revision: 0,
            },
        })
    }

    fn decide(&mut self, present: Present) -> Result<Decided<Next, Changed>, WireError> {
        let Request { name, command, .. } = &*self.request;
        let now = self.context.clock.now();
        let command = as_it_stands(&self.context.directory, command);
        let next = match command.decide(name, present.record.as_ref(), now)? {
            Decision::Already(target) => {
                return Ok(Decided::Done(Self::unwritten(*target, present, false)));
            }
            Decision::AlreadyBorn(target, operation) => {
                let mut already = Self::unwritten(*target, present, false);
                already.outcome.operation = operation;
                return Ok(Decided::Done(already));
            }
            Decision::Gone(target) => {
                return Ok(Decided::Done(Self::unwritten(*target, present, true)));
            }
            Decision::Remove(target) => Next {
                record: None,
                bytes: None,
                present,
                target: *target,
                end: None,
                is_end_only: false,
                operation: None,
            },
            Decision::WriteEnd(target, end) => Next::end_only(name, *target, end, present)?,
            Decision::Write(record) => Next::of(name, *record, present)?,
            Decision::WriteBirth {
                record,
                end,
                operation,
            } => {
                let directory = &self.context.directory;
                let there = present.record.as_deref();
                let end = end.or_else(|| end_before_unlinking(directory, there?, &command));
                let mut next = Next::of(name, *record, present)?;
                next.operation = operation;
                if let Some(end) = end {
                    let bytes = encode_end(&end).map_err(|error| not_written(name, &error))?;
                    next.end = Some((end.into(), bytes.into()));
                }
                next
            }
        };
        Ok(Decided::Write(next))
    }

    /// The ownership and the store are asked by the write itself.
    fn may_write(&self, _next: &Next) -> Result<(), WireError> {
        Ok(())
    }

    async fn put(&self, next: &Next) -> Result<u64, StoreError> {
        let (key, bytes) = (self.key(), next.bytes.clone());
        let context = &self.context;
        let bucket = &context.bucket;
        if let Some((end, bytes)) = &next.end {
            let id = end.operation.operation_id;
            bucket.write_end(id, bytes.clone(), &self.write_id).await?;
            context.on_step.reached(BirthStep::EndWritten).await;
        }
        if next.is_end_only {
            return Ok(next.present.revision);
        }
        let stored = bucket.write(&key, bytes, next.present.revision, &self.write_id);
        let stored = stored.await;
        if stored.is_ok() {
            context.nats.store.confirmed(|| bucket.stream());
            if let Some(step) = self.step_after(next) {
                context.on_step.reached(step).await;
            }
        }
        stored
    }

    async fn look(&mut self, _next: &Next) -> Result<Found<Present>, WireError> {
        let key = self.key();
        let last = match self.context.bucket.last(&key).await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(key, "a conflict cannot be looked into yet: {error}");
                return Ok(Found::NotKnown);
            }
        };
        let directory = &self.context.directory;
        let Some(last) = last else {
            directory.missed(self.request.key);
            return Ok(Found::Instead(Present {
                record: None,
                revision: 0,
            }));
        };
        if last.writer.as_deref() == Some(&self.write_id) {
            return Ok(Found::Mine(last.revision));
        }
        let Some(value) = last.value else {
            directory.missed(self.request.key);
            return Ok(Found::Instead(Present {
                record: None,
                revision: last.revision,
            }));
        };
        let record = match read(&key, &value) {
            Ok(record) => record,
            Err(why) => {
                let (name, revision) = (&self.request.name, last.revision);
                directory.note_unreadable(self.request.key, name, Unreadable { why, revision });
                let error = directory.unreadable_now(name);
                return Err(error.unwrap_or_else(|| contended(name)));
            }
        };
        let record = Arc::new(record);
        directory.found(self.request.key, &record, last.revision);
        Ok(Found::Instead(Present {
            record: Some(record),
            revision: last.revision,
        }))
    }

    fn stored(&mut self, next: Next, revision: u64) -> Changed {
        let before = next.present.record;
        Changed {
            outcome: Outcome {
                target: next.target,
                before: before.as_ref().map(|record| record.target.status),
                changed: !next.is_end_only,
                removed: next.record.is_none(),
                operation: next.operation,
            },
            end: next.end.map(|(end, _)| end),
            before,
            now: next.record.map(|record| (record, revision)),
        }
    }

    fn refused(&mut self, _next: Next, error: StoreError) -> Result<Present, WireError> {
        self.context.nats.store.refused(&error);
        Err(match error.kind() {
            StoreErrorKind::Refused(Cause::TooLarge) => {
                let text = format!(
                    "target {} is larger than a message of NATS may be; shorten its configuration",
                    self.request.name
                );
                WireError::new(ErrorCode::TooLarge, text)
            }
            _ => self.refusal(&error.reason()),
        })
    }

    fn in_doubt(&self, _next: &Next, error: &StoreError, is_news: bool) {
        let health = &self.context.nats.store;
        if error.kind() == StoreErrorKind::Unknown {
            health.unanswered(&self.context.bucket.stream());
        } else {
            health.refused(error);
        }
        if is_news {
            tracing::warn!("a write is in doubt and will be repeated: {error}");
        }
    }

    async fn pause(&self) {
        let nats = &self.context.nats;
        tokio::time::sleep(DOUBT_PAUSE).await;
        let mut reconnects = nats.reconnects.clone();
        while !nats.is_up() {
            let _ = tokio::time::timeout(DOUBT_PAUSE, reconnects.changed()).await;
        }
    }

    fn contended(&self) -> WireError {
        contended(&self.request.name)
    }
}
