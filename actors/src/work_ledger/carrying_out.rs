//! One operation on one item, from its record to an acknowledged write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loom_protocol::work::WorkStatus;
use tokio::time::Instant;

use super::ledger_error::LedgerError;
use super::operation::{Applied, Operation};
use super::read_error::ReadError;
use super::write_context::{Present, WriteContext, work_stream};
use crate::domain::work::{WorkRecord, WriteId, decode};
use crate::keyed_writer::{Decided, Found, Transition};
use crate::nats::error::{Cause, StoreError, StoreErrorKind};

/// An operation that is under way. All of its writes have one write id.
pub(super) struct CarryingOut {
    context: Arc<WriteContext>,
    operation: Operation,
    write_id: WriteId,
    is_first: bool,
    /// Why no message carries the record that was decided on last.
    too_large: Option<Arc<str>>,
}

/// A record on its way to the bucket.
pub(super) struct Next {
    record: Box<WorkRecord>,
    bytes: Bytes,
    /// How long the bucket keeps it, where it has ended.
    ttl: Option<Duration>,
    /// Why the item has failed instead of what was asked for.
    overruled: Option<Arc<str>>,
    /// What it was decided on.
    present: Present,
    since: Instant,
}

impl CarryingOut {
    /// One that begins.
    pub const fn new(context: Arc<WriteContext>, operation: Operation, write_id: WriteId) -> Self {
        Self {
            context,
            operation,
            write_id,
            is_first: true,
            too_large: None,
        }
    }

    fn unavailable(&self, why: String) -> LedgerError {
        LedgerError::Unavailable(self.operation.id(), why)
    }

    fn already(&self, present: Present) -> Result<Applied, LedgerError> {
        let not_found = || LedgerError::Read(ReadError::NotFound(self.operation.id()));
        let record = present.record.ok_or_else(not_found)?;
        Ok(Applied::already(record, present.revision))
    }
}

impl Transition for CarryingOut {
    type Present = Present;
    type Next = Next;
    type Done = Applied;
    type Error = LedgerError;

    /// A decision is made 16 times before the item counts as contended.
    const MOST_CONFLICTS: u32 = 15;

    async fn read(&mut self) -> Result<Present, LedgerError> {
        self.context.present(&self.operation).await
    }

    fn decide(&mut self, present: Present) -> Result<Decided<Next, Applied>, LedgerError> {
        let context = &self.context;
        if std::mem::take(&mut self.is_first)
            && let Some(applied) = context.without_a_write(&self.operation, &present)?
        {
            return Ok(Decided::Done(applied));
        }
        let Some(next) = context.next(&self.operation, &present, self.write_id)? else {
            return self.already(present).map(Decided::Done);
        };
        let (record, bytes, overruled) =
            context.fitted(&self.operation, next, self.too_large.take())?;
        let has_no_letter = record.status == WorkStatus::Failed && record.dead_letter.is_none();
        let is_kept_for_ever = !record.status.is_terminal() || has_no_letter;
        Ok(Decided::Write(Next {
            ttl: (!is_kept_for_ever).then_some(context.retention),
            record,
            bytes,
            overruled,
            present,
            since: Instant::now(),
        }))
    }

    fn may_write(&self, _next: &Next) -> Result<(), LedgerError> {
        if self.context.ownership.is_held() {
            return Ok(());
        }
        let why = "that this coordinator owns is not confirmed just now";
        Err(self.unavailable(why.into()))
    }

    async fn put(&self, next: &Next) -> Result<u64, StoreError> {
        let (context, expected) = (&self.context, next.present.revision);
        let store = context.read.store();
        let stored = store.put(next.record.id, expected, next.bytes.clone(), next.ttl);
        let stored = stored.await;
        if stored.is_ok() {
            let stream = || work_stream(context.read.project());
            context.nats.store.confirmed(stream);
        }
        stored
    }

    async fn look(&mut self, next: &Next) -> Result<Found<Present>, LedgerError> {
        let (id, store) = (next.record.id, self.context.read.store());
        let entry = match store.get_from_leader(id).await {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%id, "a conflict cannot be looked into yet: {error}");
                return Ok(Found::NotKnown);
            }
        };
        let sequence = entry.as_ref().map_or(0, |entry| entry.sequence);
        if sequence < next.present.revision
            && let Err(error) = store.confirm().await
        {
            return Err(self.unavailable(error.to_string()));
        }
        let stored = entry.as_ref().and_then(|entry| decode(&entry.bytes).ok());
        if stored.is_some_and(|record| record.write_id == next.record.write_id) {
            return Ok(Found::Mine(sequence));
        }
        self.context.meters.wrote(next.since.elapsed());
        self.context.overtaken(id, entry).map(Found::Instead)
    }

    fn stored(&mut self, next: Next, revision: u64) -> Applied {
        let Next {
            record,
            overruled,
            present,
            since,
            ..
        } = next;
        self.context.meters.wrote(since.elapsed());
        Applied {
            overruled: overruled.filter(|_| record.status == WorkStatus::Failed),
            progress: self.context.written_progress(&self.operation, &record),
            record: record.into(),
            revision,
            before: present.record.map(|record| record.status),
            changed: true,
        }
    }

    fn refused(&mut self, next: Next, error: StoreError) -> Result<Present, LedgerError> {
        match error.kind() {
            StoreErrorKind::Refused(Cause::TooLarge) => {
                self.context.meters.wrote(next.since.elapsed());
                let why: Arc<str> = error.why().into();
                if next.overruled.is_some() {
                    return Err(LedgerError::TooLarge(self.operation.id(), why));
                }
                self.too_large = Some(why);
                Ok(next.present)
            }
            StoreErrorKind::Refused(Cause::OtherStore | Cause::NotOwner) => {
                Err(self.unavailable(error.reason()))
            }
            _ => {
                if self.context.nats.store.refused(&error) {
                    let grace = &self.context.grace;
                    grace.reset_all("the store of NATS refuses to write");
                }
                Err(self.unavailable(error.reason()))
            }
        }
    }

    fn in_doubt(&self, _next: &Next, error: &StoreError, is_news: bool) {
        let health = &self.context.nats.store;
        if error.kind() == StoreErrorKind::Unknown {
            health.unanswered(&work_stream(self.context.read.project()));
        } else {
            health.refused(error);
        }
        self.context.grace.reset_all("a write was not answered");
        if is_news {
            tracing::warn!("a write is in doubt and will be repeated: {error}");
        }
    }

    async fn pause(&self) {
        self.context.wait_for_nats().await;
    }

    fn contended(&self) -> LedgerError {
        LedgerError::Contended(self.operation.id())
    }
}
