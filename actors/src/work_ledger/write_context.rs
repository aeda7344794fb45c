//! What a write of an item goes by: what is known of it, and what is to be written.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{ProjectId, WorkId, names};

use super::header::Header;
use super::ledger_error::LedgerError;
use super::meters::Meters;
use super::operation::Operation;
use super::read_error::ReadError;
use super::read_model::ReadModel;
use crate::clock::Clock;
use crate::domain::work::{Decision, WorkRecord, WriteId, decode};
use crate::liveness::StallGuard;
use crate::nats::connection::Nats;
use crate::nats::ledger_store::Entry;
use crate::nats::owner::Ownership;

/// The pause before a write in doubt is repeated.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// What an operation needs to be carried out.
pub(super) struct WriteContext {
    pub read: Arc<ReadModel>,
    pub nats: Nats,
    pub clock: Clock,
    pub retention: Duration,
    pub ownership: Ownership,
    pub grace: StallGuard,
    pub meters: Meters,
}

/// The record that a decision is made on.
pub(super) struct Present {
    pub record: Option<Arc<WorkRecord>>,
    pub revision: u64,
}

impl WriteContext {
    /// What is known of the item: from the cache, or the bucket.
    pub async fn present(&self, operation: &Operation) -> Result<Present, LedgerError> {
        const NOTHING: Present = Present {
            record: None,
            revision: 0,
        };
        let id = operation.id();
        let is_creation = matches!(operation, Operation::Create(_));
        if is_creation && !self.read.is_known(id) {
            return Ok(NOTHING);
        }
        if let Some((record, revision)) = self.read.recent(id) {
            let record = Some(record);
            return Ok(Present { record, revision });
        }
        let known = self.read.header(id);
        let read = Box::pin(self.read.record(id)).await;
        if let (Some(known), Err(ReadError::NotFound(_))) = (known, &read) {
            self.lost(known);
        }
        match read {
            Ok((record, revision)) => Ok(Present {
                record: Some(record),
                revision,
            }),
            // It expired, and has not been forgotten yet.
            Err(ReadError::NotFound(_)) if is_creation => Ok(NOTHING),
            Err(error) => Err(error.into()),
        }
    }

    /// The leader has no record of an item that was known like this.
    fn lost(&self, known: Header) {
        if self.ownership.is_held() {
            self.read.lose(&[known]);
        }
    }

    /// What is to be written; `None`: it is so already.
    pub fn next(
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
                match command.decide(&self.with_live_progress(record), self.clock.now())? {
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

    /// The pause before a write in doubt is repeated, which is as long as NATS is away.
    pub async fn wait_for_nats(&self) {
        tokio::time::sleep(DOUBT_PAUSE).await;
        let mut reconnects = self.nats.reconnects.clone();
        while !self.nats.is_up() {
            let _ = tokio::time::timeout(DOUBT_PAUSE, reconnects.changed()).await;
        }
    }

    /// Another write was stored: it is what counts now.
    pub fn overtaken(&self, id: WorkId, entry: Option<Entry>) -> Result<Present, LedgerError> {
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

/// The stream behind the bucket of a project's items.
pub(super) fn work_stream(project: &ProjectId) -> String {
    format!("KV_{}", names::work_bucket(project))
}
