//! A published message, submission or report, that is unreadable or breaks a rule: kept as a failed item of
//! its own, so that it becomes a dead letter. A letter without an item would be nobody's: what is kept, listed,
//! counted, discarded and let expire is found by its item, at every start.

use std::collections::BTreeMap;

use bytes::Bytes;
use loom_protocol::work::{Reason, WorkErrorInfo, WorkStatus};
use loom_protocol::{Timestamp, WireError, WorkId, names};

use crate::domain::work::{RawSubmission, WorkRecord};

/// What a record and a letter hold beside the bytes.
const BESIDE: usize = 32 * 1024;

/// A published message that is unreadable or breaks a rule.
pub(super) struct Refused<'a> {
    /// The id that it would have had; of a report, that of the item which keeps it.
    pub id: WorkId,
    /// Where it was published.
    pub subject: &'a str,
    /// Which kind of rule.
    pub reason: Reason,
    /// Which.
    pub error: WireError,
}

impl Refused<'_> {
    /// A failed item with the bytes as they came (of very many, the first: a record
    /// holds `most`), so that nothing
    /// is lost silently, and nothing comes back for ever because it cannot be stored.
    pub fn record(self, payload: &Bytes, most: usize, published: Timestamp) -> WorkRecord {
        let (what, capability) = if let Some(kind) = names::report_kind(self.subject) {
            ("report", kind.to_owned())
        } else {
            let capability = names::capability_of_queue(self.subject);
            ("submission", capability.unwrap_or_else(|| "unknown".into()))
        };
        WorkRecord {
            id: self.id,
            task_id: self.id.to_string(),
            capability,
            boundary: loom_protocol::work::DEFAULT_BOUNDARY.into(),
            description: format!(
                "a published {what} that was refused; its bytes are the `submission` of its dead letter"
            ),
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
