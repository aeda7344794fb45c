//! A record on its way to the bucket, as a message of the nats-server carries it.

use std::sync::Arc;

use bytes::Bytes;

use super::ledger_error::LedgerError;
use super::operation::Operation;
use super::write_context::WriteContext;
use crate::domain::room::Room;
use crate::domain::work::{WorkRecord, cut, encode};

/// What the record of an item takes nearly always, in bytes: then nobody asks how much may be.
const FITS_ALWAYS: usize = 16 * 1024;
/// A record as it can be written, its bytes, and why the item has failed by that, if it has.
pub(super) type Fitted = (Box<WorkRecord>, Bytes, Option<Arc<str>>);

impl WriteContext {
    /// The record as it can be written, cut where it must be. Of one that no message carries only that is
    /// left, and it has failed (`too_large`: the server has refused it already); then also why.
    pub fn fitted(
        &self,
        operation: &Operation,
        next: Box<WorkRecord>,
        too_large: Option<Arc<str>>,
    ) -> Result<Fitted, LedgerError> {
        let id = next.id;
        let written = |record: &WorkRecord| {
            encode(record).map_err(|error| LedgerError::Record(id, error.to_string()))
        };
        let bytes = written(&next)?;
        if too_large.is_none() && bytes.len() <= FITS_ALWAYS {
            return Ok((next, bytes, None));
        }
        let (size, most) = (bytes.len(), Room::of(self.nats.max_payload()).record());
        if too_large.is_none() && size <= most {
            return Ok((next, bytes, None));
        }
        let cut = cut::to((*next).clone(), most).filter(|_| too_large.is_none());
        if let Some(cut) = cut {
            tracing::warn!(%id, size, most, "a record was cut to fit into a message of the nats-server");
            let bytes = written(&cut)?;
            return Ok((Box::new(cut), bytes, None));
        }
        let why = too_large.unwrap_or_else(|| {
            format!("its record has {size} bytes, and max_payload of the nats-server leaves {most}")
                .into()
        });
        if matches!(operation, Operation::Create(_)) {
            return Err(LedgerError::TooLarge(id, why));
        }
        tracing::error!(%id, size, "the record of a work item cannot be written and is given up: {why}");
        let is_an_end = next.status.is_terminal();
        let short = cut::short(&next, &why, self.clock.now());
        let bytes = written(&short)?;
        let overruled = (!is_an_end).then_some(why);
        Ok((Box::new(short), bytes, overruled))
    }
}
