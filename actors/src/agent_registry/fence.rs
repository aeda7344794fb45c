//! Whether this incarnation of the coordinator may write, and how it signs what it does.

use crate::nats::kv::Record;
use crate::nats::owner::Ownership;

/// Who we are, and whether somebody else may own by now.
pub(super) struct Fence {
    epoch: u64,
    writer: String,
    ownership: Ownership,
    /// A later owner has written: nothing is written any more.
    superseded: bool,
}

impl Fence {
    /// That of an ownership.
    pub fn new(epoch: u64, ownership: Ownership) -> Self {
        Self {
            epoch,
            writer: epoch.to_string(),
            ownership,
            superseded: false,
        }
    }

    /// What stands in the header of our writes.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Whether the writer in a header is this incarnation of the coordinator.
    pub fn is_mine(&self, writer: &str) -> bool {
        writer.split('/').next() == Some(self.writer.as_str())
    }

    /// A record was seen. Whether it tells, for the first time, that a later owner writes.
    pub fn note(&mut self, record: &Record) -> bool {
        record.epoch() > Some(self.epoch) && !std::mem::replace(&mut self.superseded, true)
    }

    /// Whether somebody else may own by now: what is in memory is not to be written.
    pub fn is_closed(&self) -> bool {
        self.superseded || !self.ownership.is_held()
    }
}
