//! An item without its texts: what is kept in memory for each.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::work::{Reason, WorkStatus, limits};
use loom_protocol::{AgentGuid, Body, Timestamp, WorkId};

use tokio::time::Instant;

use crate::domain::matching::Requirements;
use crate::domain::work::WorkRecord;

/// A label's name and value.
type Label = (Box<str>, Box<str>);

/// A client's name for an item. Most are ids that were made for it.
#[derive(Debug, Clone)]
enum TaskName {
    Id(uuid::Uuid),
    Text(Box<str>),
}

impl TaskName {
    fn of(text: &str) -> Self {
        match text.parse::<uuid::Uuid>() {
            Ok(uuid) if uuid.to_string() == text => Self::Id(uuid),
            _ => Self::Text(text.into()),
        }
    }
}

/// An item without its texts.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "documented in loom_protocol::work::WorkItem")]
pub struct Header {
    pub id: WorkId,
    /// The sequence of the write that created it: its age, and its place in every order.
    pub created: u64,
    pub revision: u64,
    pub needs: Arc<Requirements>,
    pub status: WorkStatus,
    pub priority: u8,
    pub attempt: u32,
    /// Failed, and its dead letter is still to be written.
    pub wants_letter: bool,
    pub offered_at: Timestamp,
    pub updated_at: Timestamp,
    /// Zero: none.
    not_before: Timestamp,
    /// Zero: none.
    deadline: Timestamp,
    pub holder: Option<AgentGuid>,
    labels: Option<Box<[Label]>>,
    task: TaskName,
    /// What its texts take in the answer to a claim, at the most.
    pub answer_bytes: u32,
    /// A digest of its taskId: other items may have the same.
    pub(super) task_digest: u32,
}

/// The digest by which items are looked through for a taskId (FNV-1a).
pub(super) fn task_digest(task_id: &str) -> u32 {
    task_id.bytes().fold(0x811c_9dc5, |digest, byte| {
        (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

impl Header {
    /// The header of a record at a revision; `needs` are the record's own, or equal ones to share.
    pub fn of(record: &WorkRecord, revision: u64, needs: Arc<Requirements>) -> Self {
        let labels: Box<[Label]> = record
            .labels
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect();
        let labels = (!labels.is_empty()).then_some(labels);
        let task = (TaskName::of(&record.task_id), task_digest(&record.task_id));
        Self::written(record, revision, needs, labels, task)
    }

    /// The header of a later write of the same item. Its name and its labels are those that it came with.
    pub(super) fn renewed(
        &self,
        record: &WorkRecord,
        revision: u64,
        needs: Arc<Requirements>,
    ) -> Self {
        let task = (self.task.clone(), self.task_digest);
        Self::written(record, revision, needs, self.labels.clone(), task)
    }

    fn written(
        record: &WorkRecord,
        revision: u64,
        needs: Arc<Requirements>,
        labels: Option<Box<[Label]>>,
        (task, task_digest): (TaskName, u32),
    ) -> Self {
        Self {
            id: record.id,
            created: record.created_at_sequence(revision),
            revision,
            needs,
            status: record.status,
            priority: record.priority,
            attempt: record.attempt,
            wants_letter: record.status == WorkStatus::Failed && record.dead_letter.is_none(),
            offered_at: record.offered_at,
            updated_at: record.updated_at,
            not_before: record.not_before.unwrap_or_default(),
            deadline: record.deadline.unwrap_or_default(),
            holder: record.lease.as_ref().map(|lease| lease.holder.guid),
            labels,
            task,
            answer_bytes: answer_bytes(record),
            task_digest,
        }
    }

    /// Whether its record stays until it is written again: it has not ended, or its dead letter is still to be written.
    pub const fn is_kept(&self) -> bool {
        !self.status.is_terminal() || self.wants_letter
    }

    /// Not to be offered before.
    pub fn not_before(&self) -> Option<Timestamp> {
        (self.not_before != Timestamp::default()).then_some(self.not_before)
    }

    /// When it is to be finished.
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.deadline != Timestamp::default()).then_some(self.deadline)
    }

    /// The client's name for it.
    pub fn task_id(&self) -> Cow<'_, str> {
        match &self.task {
            TaskName::Id(uuid) => Cow::Owned(uuid.to_string()),
            TaskName::Text(text) => Cow::Borrowed(text),
        }
    }

    pub(super) fn has_label(&self, wanted: &str) -> bool {
        self.labels.iter().flatten().any(|(name, value)| {
            &**name == wanted
                || wanted
                    .strip_prefix(&**name)
                    .and_then(|rest| rest.strip_prefix('='))
                    == Some(&**value)
        })
    }
}

fn answer_bytes(record: &WorkRecord) -> u32 {
    /// A control character is escaped as `\u0000`.
    const ESCAPED: usize = 6;
    /// Names of fields, ids, times.
    const FRAME: usize = 2 * 1024;
    let errors = record.errors.iter().map(|error| error.message.len());
    let errors = ESCAPED * errors.sum::<usize>();
    let (_, checks) = record.evidence_bytes();
    let labels = record
        .labels
        .iter()
        .map(|(name, value)| name.len() + value.len());
    let texts = record.description.len() + labels.sum::<usize>();
    // Errors and checks are told once more as feedback.
    let feedback = (errors + checks).min(ESCAPED * limits::FEEDBACK_TEXT);
    let body = record.context_data.as_ref().map_or(0, Body::len);
    u32::try_from(FRAME + ESCAPED * texts + errors + checks + feedback + body).unwrap_or(u32::MAX)
}

/// A lease, as far as it is known without the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Which item.
    pub id: WorkId,
    /// Its fence.
    pub attempt: u32,
    /// Whether the agent has started.
    pub started: bool,
    /// The agent's name for the claim.
    pub claim_id: Option<Box<str>>,
    /// When it was given.
    pub assigned_at: Timestamp,
    /// The item's own progress clock.
    pub timeout_ms: Option<u64>,
    /// When what the agent did last about it was written down.
    pub last_seen_at: Instant,
}

/// What became of an item, for whoever schedules.
#[derive(Debug, Clone)]
pub struct ItemChange {
    /// The item now.
    pub header: Header,
    /// The agent whose lease on it has just ended.
    pub freed: Option<AgentGuid>,
    /// Whether that agent gave it back itself.
    pub released: bool,
    /// How that agent failed it, if it did.
    pub failure: Option<Failure>,
}

/// How an agent failed an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// How long after the assignment.
    pub after: Duration,
}

#[cfg(test)]
impl Header {
    /// A pending item for the tests of those who schedule.
    pub(crate) fn for_test(
        id: WorkId,
        created: u64,
        priority: u8,
        needs: Requirements,
        not_before: Timestamp,
    ) -> Self {
        Self {
            id,
            created,
            revision: created,
            needs: Arc::new(needs),
            status: WorkStatus::Pending,
            priority,
            attempt: 0,
            wants_letter: false,
            offered_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            not_before,
            deadline: Timestamp::default(),
            holder: None,
            labels: None,
            task: TaskName::Id(uuid::Uuid::nil()),
            answer_bytes: 0,
            task_digest: 0,
        }
    }
}
