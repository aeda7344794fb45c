//! A published submission that breaks a rule: kept as a failed item, so that it becomes a dead letter.

use std::collections::BTreeMap;

use bytes::Bytes;
use loom_protocol::work::{Reason, WorkErrorInfo, WorkStatus};
use loom_protocol::{Timestamp, WireError, WorkId};

use crate::domain::work::{RawSubmission, WorkRecord};

/// What a record and a letter hold beside the bytes.
const BESIDE: usize = 32 * 1024;

/// A published submission that breaks a rule.
pub(super) struct Refused {
    /// The id that it would have had.
    pub id: WorkId,
    /// Of its subject.
    pub capability: String,
    /// Which kind of rule.
    pub reason: Reason,
    /// Which.
    pub error: WireError,
}

impl Refused {
    /// A failed item with the bytes as they came (of very many, the first: a message of
    /// NATS holds `most`), so that nothing
    /// is lost silently, and nothing comes back for ever because it cannot be stored.
    pub fn record(self, payload: &Bytes, most: usize, published: Timestamp) -> WorkRecord {
        WorkRecord {
            id: self.id,
            task_id: self.id.to_string(),
            capability: self.capability,
            boundary: loom_protocol::work::DEFAULT_BOUNDARY.into(),
            description: "a published submission that was refused; its bytes are the context data"
                .into(),
            raw: Some(RawSubmission {
                bytes: payload.slice(..payload.len().min(most.saturating_sub(BESIDE))),
                size: payload.len() as u64,
            }),
            status: WorkStatus::Failed,
            errors: vec![WorkErrorInfo {
                message: self.error.message,
                code: Some(self.error.code.to_string()),
                recoverable: false,
                occurred_at: published,
                reason: self.reason,
                attempt: None,
                agent_guid: None,
            }],
            ..WorkRecord::blank(self.id, "queue", published, BTreeMap::new())
        }
    }
}
