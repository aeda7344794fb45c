//! A record as clients see it.

use loom_protocol::ProjectId;
use loom_protocol::work::WorkItem;

use super::record::WorkRecord;

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
        context_data: record.context_data.clone().filter(|_| with),
        assigned_to: assigned.as_ref().map(|agent| agent.guid),
        assigned_to_agent: assigned,
        assigned_at: record.lease.as_ref().map(|lease| lease.assigned_at),
        started_at: record.started_at,
        progress: record.progress,
        progress_message: record.progress_message.clone(),
        pending_reason: record.pending_reason,
        result: record.result.clone().filter(|_| with),
        error: record.errors.last().cloned(),
        errors: record.errors.clone(),
        cancel: record.cancel.clone(),
        usage: record.usage,
        updated_at: record.updated_at,
        revision,
    }
}
