//! The events that tell of a transition.

use loom_protocol::ProjectId;
use loom_protocol::event::{Event, EventAgent, WorkEvent, WorkEventKind};
use loom_protocol::work::WorkStatus;

use super::operation::Applied;
use crate::domain::work::{Command, WorkRecord};

/// How much of a description an event carries, in characters.
const SHOWN_DESCRIPTION: usize = 200;
/// How much of a result's summary, which may have the size of the whole result.
const SHOWN_SUMMARY: usize = 2_000;

/// The events of an operation that was done, in order.
pub(super) fn events(
    project: &ProjectId,
    applied: &Applied,
    command: Option<&Command>,
) -> Vec<Event> {
    let record = &*applied.record;
    let tell = |kind| event(project, record, applied.revision, kind);
    let mut events = Vec::with_capacity(1);
    match (applied.before, record.status) {
        _ if !applied.changed => {}
        (None, WorkStatus::Pending) if record.retries > 0 => {
            events.push(retried(tell, record));
        }
        (None, _) => {
            let mut submitted = tell(WorkEventKind::Submitted);
            submitted.priority = Some(record.priority);
            submitted.description = Some(start_of(&record.description, SHOWN_DESCRIPTION));
            events.push(submitted);
            if record.status == WorkStatus::Failed {
                events.push(failed(tell, record));
            }
        }
        (Some(WorkStatus::Pending), WorkStatus::Assigned) => {
            events.push(tell(WorkEventKind::Assigned));
        }
        (Some(WorkStatus::Pending), WorkStatus::InProgress) => {
            events.push(tell(WorkEventKind::Assigned));
            events.push(tell(WorkEventKind::Started));
        }
        (Some(WorkStatus::Assigned), WorkStatus::InProgress) => {
            events.push(tell(WorkEventKind::Started));
        }
        (Some(before), WorkStatus::Completed) if !before.is_terminal() => {
            let mut completed = tell(WorkEventKind::Completed);
            let summary = record.result.as_ref().and_then(|r| r.summary.as_ref());
            completed.summary = summary.map(|text| start_of(text, SHOWN_SUMMARY));
            events.push(completed);
        }
        (Some(before), WorkStatus::Failed) if !before.is_terminal() => {
            events.push(failed(tell, record));
        }
        (Some(before), WorkStatus::Cancelled) if !before.is_terminal() => {
            events.push(tell(WorkEventKind::Cancelled));
        }
        (Some(before), WorkStatus::Pending)
            if before.is_leased() || before == WorkStatus::Failed =>
        {
            events.push(retried(tell, record));
        }
        _ => {}
    }
    if let Some(Command::Progress {
        progress, message, ..
    }) = command
        && (progress.is_some() || message.is_some())
    {
        let mut told = tell(WorkEventKind::Progress);
        told.progress = *progress;
        told.message.clone_from(message);
        told.timestamp = applied.said.as_ref().map_or(told.timestamp, |said| said.at);
        events.push(told);
    }
    events
        .into_iter()
        .map(|event| Event::Work(Box::new(event)))
        .collect()
}

fn failed(tell: impl Fn(WorkEventKind) -> WorkEvent, record: &WorkRecord) -> WorkEvent {
    let error = record.errors.last();
    WorkEvent {
        error_message: error.map(|error| error.message.clone()),
        recoverable: error.map(|error| error.recoverable),
        reason: error.map(|error| error.reason),
        ..tell(WorkEventKind::Failed)
    }
}

fn retried(tell: impl Fn(WorkEventKind) -> WorkEvent, record: &WorkRecord) -> WorkEvent {
    WorkEvent {
        reason: record.pending_reason,
        not_before: record.not_before,
        ..tell(WorkEventKind::Retried)
    }
}

/// The first characters of a text.
fn start_of(text: &str, characters: usize) -> String {
    let end = text.char_indices().nth(characters).map(|(end, _)| end);
    text[..end.unwrap_or(text.len())].to_owned()
}

fn event(
    project: &ProjectId,
    record: &WorkRecord,
    revision: u64,
    kind: WorkEventKind,
) -> WorkEvent {
    let holder = record.lease.as_ref().map(|lease| &lease.holder);
    WorkEvent {
        kind,
        timestamp: record.updated_at,
        project_id: project.to_string(),
        work_id: record.id,
        task_id: record.task_id.clone(),
        status: record.status,
        attempt: record.attempt,
        revision,
        assigned_to: holder.map(|holder| holder.guid),
        assigned_to_agent: holder.map(|holder| EventAgent {
            guid: holder.guid,
            handle: holder.handle.clone(),
            agent_type: holder.agent_type.clone(),
            hostname: holder.hostname.clone(),
        }),
        capability: record.capability.clone(),
        boundary: record.boundary.clone(),
        priority: None,
        description: None,
        progress: None,
        message: None,
        summary: None,
        error_message: None,
        recoverable: None,
        reason: None,
        not_before: None,
    }
}
