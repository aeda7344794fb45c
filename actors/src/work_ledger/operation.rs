//! What is asked of one item, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::WorkId;
use loom_protocol::work::WorkStatus;

use super::read_model::LiveProgress;
use crate::domain::work::{Command, WorkRecord};

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
    /// What the agent reported, to be shown from now on.
    pub progress: Option<LiveProgress>,
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
            progress: None,
            overruled: None,
        }
    }
}
