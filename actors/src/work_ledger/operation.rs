//! One operation on one item, from its record to an acknowledged write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loom_protocol::work::WorkStatus;
use loom_protocol::{ProjectId, WorkId, names};
use tokio::time::Instant;

use super::handle::LedgerError;
use super::header::Header;
use super::meters::Meters;
use super::read_error::ReadError;
use super::read_model::{LiveProgress, ReadModel};
use crate::clock::Clock;
use crate::domain::work::{Command, Decision, WorkRecord, WriteId, decode};
use crate::liveness::StallGuard;
use crate::nats::connection::Nats;
use crate::nats::error::{Cause, StoreErrorKind};
use crate::nats::ledger_store::Entry;
use crate::nats::owner::Ownership;

/// How often a decision is made again after a conflict before the item counts as contended.
const MAX_CONFLICTS: usize = 16;
/// How long what an agent says about its progress may stay unwritten.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);
/// The pause before a write in doubt is repeated.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// Something to be done to one item. Cheap to clone, so that a request can be repeated.
#[derive(Debug, Clone)]
pub enum Operation {
    /// (none) → Pending. An item of that id that is there already stays as it is.
    Create(Arc<WorkRecord>),
    /// A transition.
    Apply(WorkId, Arc<Command>),
}

impl Operation {
    /// The item.
    pub fn id(&self) -> WorkId {
        match self {
            Self::Create(record) => record.id,
            Self::Apply(id, _) => *id,
        }
    }

    /// The operation, sent once more because its answer got lost.
    pub(super) fn once_more(&self) -> Self {
        match self {
            Self::Create(record) => Self::Create(record.clone()),
            Self::Apply(id, command) => Self::Apply(*id, Arc::new(command.once_more())),
        }
    }
}

/// An operation that was done, or had been done before.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The record as it is now.
    pub record: Arc<WorkRecord>,
    /// Its revision.
    pub revision: u64,
    /// Where the item stood before; `None` where this operation created it.
    pub before: Option<WorkStatus>,
    /// Whether something was written by this operation.
    pub changed: bool,
    /// What the agent said, where that was not written.
    pub said: Option<LiveProgress>,
    /// Why the item was failed instead of what was asked for: no message carries its record.
    pub overruled: Option<Arc<str>>,
}

impl Applied {
    /// How long the item waited, where this operation was its first claim.
    pub fn first_wait(&self) -> Option<Duration> {
        let record = &*self.record;
        let is_first = self.before == Some(WorkStatus::Pending)
            && record.status.is_leased()
            && record.attempt == 1;
        is_first.then(|| record.updated_at.since(record.offered_at))
    }

    /// A record that is as it should be already.
    pub fn already(record: Arc<WorkRecord>, revision: u64) -> Self {
        Self {
            before: Some(record.status),
            record,
            revision,
            changed: false,
            said: None,
            overruled: None,
        }
    }
}

/// What an operation needs to be carried out.
pub(super) struct Context {
    pub read: Arc<ReadModel>,
    pub nats: Nats,
    pub clock: Clock,
    pub retention: Duration,
    pub ownership: Ownership,
    pub grace: StallGuard,
    pub meters: Meters,
}

/// The record that a decision is made on.
struct Present {
    record: Option<Arc<WorkRecord>>,
    revision: u64,
}

impl Context {
    /// Carries an operation out. Ends when its outcome is known, however long that takes.
    pub async fn carry_out(
        &self,
        operation: &Operation,
        write_id: WriteId,
    ) -> Result<Applied, LedgerError> {
        let id = operation.id();
        let mut present = self.present(operation).await?;
        if let Some(applied) = self.without_a_write(operation, &present)? {
            return Ok(applied);
        }
        let mut too_large = None;
        for _ in 0..MAX_CONFLICTS {
            let Some(next) = self.next(operation, &present, write_id)? else {
                return already(id, present);
            };
            let (next, bytes, overruled) = self.fitted(operation, next, too_large.take())?;
            let sent = Instant::now();
            let written = self.write(&next, present.revision, bytes).await?;
            self.meters.wrote(sent.elapsed());
            match written {
                Written::At(revision) => {
                    return Ok(Applied {
                        overruled: overruled.filter(|_| next.status == WorkStatus::Failed),
                        said: self.said_and_written(operation, &next),
                        record: next.into(),
                        revision,
                        before: present.record.map(|record| record.status),
                        changed: true,
                    });
                }
                Written::Instead(entry) => present = self.overtaken(id, entry)?,
                Written::TooLarge(why) if overruled.is_none() => too_large = Some(why.into()),
                Written::TooLarge(why) => return Err(LedgerError::TooLarge(id, why.into())),
            }
        }
        Err(LedgerError::Contended(id))
    }

    async fn present(&self, operation: &Operation) -> Result<Present, LedgerError> {
        let known = match operation {
            Operation::Create(record) => self.read.header(record.id).is_some(),
            Operation::Apply(..) => true,
        };
        if !known {
            return Ok(Present {
                record: None,
                revision: 0,
            });
        }
        let known = self.read.header(operation.id());
        let read = self.read.record(operation.id()).await;
        if let (Some(known), Err(ReadError::NotFound(_))) = (known, &read) {
            self.lost(known);
        }
        match read {
            Ok((record, revision)) => Ok(Present {
                record: Some(record),
                revision,
            }),
            // It expired, and has not been forgotten yet.
            Err(ReadError::NotFound(_)) if matches!(operation, Operation::Create(_)) => {
                Ok(Present {
                    record: None,
                    revision: 0,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The leader has no record of an item that was known like this.
    fn lost(&self, known: Header) {
        if self.ownership.is_held() {
            self.read.lose(&[known]);
        }
    }

    /// Progress of a running item is kept in memory, and written only now and then.
    fn without_a_write(
        &self,
        operation: &Operation,
        present: &Present,
    ) -> Result<Option<Applied>, LedgerError> {
        let (Operation::Apply(id, command), Some(record)) = (operation, &present.record) else {
            return Ok(None);
        };
        let Command::Progress {
            by,
            progress,
            message,
            usage,
        } = &**command
        else {
            return Ok(None);
        };
        let now = self.clock.now();
        record.check_lease(by)?;
        let known = self.read.live_progress(*id, record.attempt);
        let persisted_at = known
            .as_ref()
            .map_or(record.updated_at, |live| live.persisted_at);
        let is_news = progress.is_some() || message.is_some() || usage.is_some();
        let is_due = is_news && now.since(persisted_at) >= PROGRESS_EVERY;
        if record.status != WorkStatus::InProgress || is_due {
            return Ok(None);
        }
        let known = known.unwrap_or_default();
        Ok(Some(Applied {
            record: record.clone(),
            revision: present.revision,
            before: Some(record.status),
            changed: false,
            overruled: None,
            said: Some(LiveProgress {
                attempt: record.attempt,
                progress: progress.or(known.progress),
                message: message.clone().or(known.message),
                usage: usage.or(known.usage),
                at: now,
                persisted_at,
            }),
        }))
    }

    /// What is to be kept of progress that was written down: from now on it is this that is shown.
    fn said_and_written(&self, operation: &Operation, next: &WorkRecord) -> Option<LiveProgress> {
        let Operation::Apply(id, command) = operation else {
            return None;
        };
        let Command::Progress {
            progress,
            message,
            usage,
            ..
        } = &**command
        else {
            return None;
        };
        let known = self.read.live_progress(*id, next.attempt);
        let known = known.unwrap_or_default();
        Some(LiveProgress {
            attempt: next.attempt,
            progress: progress.or(known.progress).or(next.progress),
            message: message
                .clone()
                .or(known.message)
                .or_else(|| next.progress_message.clone()),
            usage: usage.or(known.usage).or(next.usage),
            at: next.updated_at,
            persisted_at: next.updated_at,
        })
    }

    fn next(
        &self,
        operation: &Operation,
        present: &Present,
        write_id: WriteId,
    ) -> Result<Option<Box<WorkRecord>>, LedgerError> {
        let mut next = match (operation, &present.record) {
            (Operation::Create(_), Some(_)) => return Ok(None),
            (Operation::Create(record), None) => Box::new((**record).clone()),
            (Operation::Apply(id, _), None) => {
                return Err(LedgerError::Read(ReadError::NotFound(*id)));
            }
            (Operation::Apply(_, command), Some(record)) => {
                match command.decide(&self.as_told(record), self.clock.now())? {
                    Decision::Already => return Ok(None),
                    Decision::Write(mut next) => {
                        next.created = record.created_at_sequence(present.revision);
                        next
                    }
                }
            }
        };
        next.write_id = write_id;
        Ok(Some(next))
    }

    /// The record with what its agent has said since it was written, so that the next write keeps it.
    fn as_told(&self, record: &Arc<WorkRecord>) -> Arc<WorkRecord> {
        let is_leased = record.status.is_leased();
        let live = self.read.live_progress(record.id, record.attempt);
        let Some(live) = live.filter(|_| is_leased) else {
            return record.clone();
        };
        let mut told = (**record).clone();
        told.progress = live.progress.or(told.progress);
        told.progress_message = live.message.or(told.progress_message);
        told.usage = live.usage.or(told.usage);
        told.into()
    }

    /// Writes until it is known whether this write or another one is stored.
    async fn write(
        &self,
        next: &WorkRecord,
        expected: u64,
        bytes: Bytes,
    ) -> Result<Written, LedgerError> {
        let has_no_letter = next.status == WorkStatus::Failed && next.dead_letter.is_none();
        let kept_for_ever = !next.status.is_terminal() || has_no_letter;
        let ttl = (!kept_for_ever).then_some(self.retention);
        let (store, health) = (self.read.store(), &self.nats.store);
        let mut doubted = false;
        loop {
            if !self.ownership.is_held() {
                let why = "that this coordinator owns is not confirmed just now".into();
                return Err(LedgerError::Unavailable(next.id, why));
            }
            let error = match store.put(next.id, expected, bytes.clone(), ttl).await {
                Ok(sequence) => {
                    health.confirmed(|| work_stream(self.read.project()));
                    return Ok(Written::At(sequence));
                }
                Err(error) => error,
            };
            match error.kind() {
                StoreErrorKind::Refused(Cause::TooLarge) => {
                    return Ok(Written::TooLarge(error.why().to_owned()));
                }
                StoreErrorKind::Refused(Cause::OtherStore | Cause::NotOwner) => {
                    return Err(LedgerError::Unavailable(next.id, error.reason()));
                }
                StoreErrorKind::Refused(Cause::StoreInDoubt) => {}
                StoreErrorKind::Refused(_) if !doubted => {
                    if health.refused(&error) {
                        self.grace.reset_all("the store of NATS refuses to write");
                    }
                    return Err(LedgerError::Unavailable(next.id, error.reason()));
                }
                kind @ (StoreErrorKind::Refused(_) | StoreErrorKind::Unknown) => {
                    if kind == StoreErrorKind::Unknown {
                        health.unanswered(&work_stream(self.read.project()));
                    } else {
                        health.refused(&error);
                    }
                    self.grace.reset_all("a write was not answered");
                    if !doubted {
                        tracing::warn!("a write is in doubt and will be repeated: {error}");
                        doubted = true;
                    }
                }
                StoreErrorKind::Conflict => match Box::pin(store.get_from_leader(next.id)).await {
                    Ok(entry) => {
                        let is_behind = entry.as_ref().map_or(0, |e| e.sequence) < expected;
                        if is_behind && let Err(error) = Box::pin(store.confirm()).await {
                            return Err(LedgerError::Unavailable(next.id, error.to_string()));
                        }
                        let stored = entry
                            .as_ref()
                            .and_then(|e| Some((e, decode(&e.bytes).ok()?)));
                        return Ok(match stored {
                            Some((e, record)) if record.write_id == next.write_id => {
                                Written::At(e.sequence)
                            }
                            _ => Written::Instead(entry),
                        });
                    }
                    Err(error) => {
                        tracing::warn!(id = %next.id, "a conflict cannot be looked into yet: {error}");
                        doubted = true;
                    }
                },
            }
            Box::pin(self.wait_for_nats()).await;
        }
    }

    async fn wait_for_nats(&self) {
        tokio::time::sleep(DOUBT_PAUSE).await;
        let mut reconnects = self.nats.reconnects.clone();
        while !self.nats.is_up() {
            let _ = tokio::time::timeout(DOUBT_PAUSE, reconnects.changed()).await;
        }
    }

    /// Another write was stored: it is what counts now.
    fn overtaken(&self, id: WorkId, entry: Option<Entry>) -> Result<Present, LedgerError> {
        let revision = entry.as_ref().map_or(0, |entry| entry.sequence);
        let record = if let Some(entry) = entry.filter(|entry| !entry.bytes.is_empty()) {
            let record = decode(&entry.bytes);
            let record = record.map_err(|why| self.read.note_damage(id, revision, why))?;
            let record = Arc::new(record);
            self.read.apply(&record, revision);
            Some(record)
        } else {
            match self.read.header(id) {
                Some(known) if revision == 0 && known.is_kept() => self.lost(known),
                _ if revision > 0 => self.read.note_deletion(id, revision),
                _ => self.read.forget_id(id),
            }
            None
        };
        Ok(Present { record, revision })
    }
}

/// How a write became known.
enum Written {
    /// Mine is stored, with this sequence.
    At(u64),
    /// Another one, or none, is stored.
    Instead(Option<Entry>),
    /// None is, and mine never will be.
    TooLarge(String),
}

/// The stream behind the bucket of a project's items.
fn work_stream(project: &ProjectId) -> String {
    format!("KV_{}", names::work_bucket(project))
}

fn already(id: WorkId, present: Present) -> Result<Applied, LedgerError> {
    let record = present
        .record
        .ok_or(LedgerError::Read(ReadError::NotFound(id)))?;
    Ok(Applied::already(record, present.revision))
}
