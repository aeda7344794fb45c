//! A record as clients see it.

use loom_protocol::work::{Usage, WorkItem, WorkStatus, limits};
use loom_protocol::{Body, ProjectId};

use super::record::{RawSubmission, WorkRecord};
use super::usage;

/// How much of a refused submission is shown as text, in bytes: as JSON each may take six.
const SHOWN_OF_REFUSED: usize = limits::CONTEXT_DATA / 6;

/// Whether a view carries `contextData` and `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    /// It does.
    With,
    /// It does not.
    Without,
}

/// The record as a work item of the wire.
pub fn view(record: &WorkRecord, project: &ProjectId, revision: u64, bodies: Bodies) -> WorkItem {
    let with = bodies == Bodies::With;
    let assigned = record.lease.as_ref().map(|lease| lease.holder.to_wire());
    WorkItem {
        id: record.id,
        task_id: record.task_id.clone(),
        parent_id: record.parent_id,
        project_id: project.to_string(),
        capability: record.capability.clone(),
        boundary: record.boundary.clone(),
        description: record.description.clone(),
        priority: record.priority,
        labels: record.labels.clone(),
        status: record.status,
        terminal: record.status.is_terminal(),
        attempt: record.attempt,
        attempts: record.attempts,
        max_attempts: record.max_attempts,
        offered_by: record.offered_by.clone(),
        offered_at: record.offered_at,
        preferred_agent_type: record.preferred_agent_type.clone(),
        required_agent_type: record.required_agent_type.clone(),
        deadline: record.deadline,
        not_before: record.not_before,
        timeout_ms: record.timeout_ms,
        context_data: if with { context_data(record) } else { None },
        assigned_to: assigned.as_ref().map(|agent| agent.guid),
        assigned_to_agent: assigned,
        assigned_at: record.lease.as_ref().map(|lease| lease.assigned_at),
        started_at: record.started_at,
        progress: match record.status {
            WorkStatus::Completed => Some(100.0),
            _ => record.progress,
        },
        progress_message: record.progress_message.clone(),
        pending_reason: record.pending_reason,
        result: record.result.clone().filter(|_| with),
        error: record.errors.last().cloned(),
        errors: record.errors.clone(),
        cancel: record.cancel.clone(),
        usage: total_usage(record),
        session: record.session.clone(),
        evidence: if with {
            record.evidence.clone()
        } else {
            Vec::new()
        },
        feedback: Vec::new(),
        updated_at: record.updated_at,
        revision,
    }
}

/// What all attempts have used up together.
pub fn total_usage(record: &WorkRecord) -> Option<Usage> {
    usage::over_attempts(record.usage_before.clone(), record.usage.clone())
}

fn context_data(record: &WorkRecord) -> Option<Body> {
    record
        .context_data
        .clone()
        .or_else(|| as_text(record.raw.as_ref()?))
}

/// The beginning of a refused submission, for people; its dead letter has all of it.
fn as_text(raw: &RawSubmission) -> Option<Body> {
    let start = &raw.bytes[..raw.bytes.len().min(SHOWN_OF_REFUSED)];
    Body::of(&String::from_utf8_lossy(start)).ok()
}
