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
pub(super) fn of(project: &ProjectId, applied: &Applied, command: Option<&Command>) -> Vec<Event> {
    let record = &*applied.record;
    let new = |kind| event(project, record, applied.revision, kind);
    let mut events = Vec::with_capacity(1);
    match (applied.before, record.status) {
        _ if !applied.changed => {}
        (None, WorkStatus::Pending) if record.retries > 0 => {
            events.push(retried(new, record));
        }
        (None, _) => {
            let mut submitted = new(WorkEventKind::Submitted);
            submitted.priority = Some(record.priority);
            submitted.description = Some(start_of(&record.description, SHOWN_DESCRIPTION));
            events.push(submitted);
            if record.status == WorkStatus::Failed {
                events.push(failed(new, record));
            }
        }
        (Some(WorkStatus::Pending), WorkStatus::Assigned) => {
            events.push(new(WorkEventKind::Assigned));
        }
        (Some(WorkStatus::Pending), WorkStatus::InProgress) => {
            events.push(new(WorkEventKind::Assigned));
            events.push(new(WorkEventKind::Started));
        }
        (Some(WorkStatus::Assigned), WorkStatus::InProgress) => {
            events.push(new(WorkEventKind::Started));
        }
        (Some(before), WorkStatus::Completed) if !before.is_terminal() => {
            let mut completed = new(WorkEventKind::Completed);
            let summary = record.result.as_ref().and_then(|r| r.summary.as_ref());
            completed.summary = summary.map(|text| start_of(text, SHOWN_SUMMARY));
            events.push(completed);
        }
        (Some(before), WorkStatus::Failed) if !before.is_terminal() => {
            events.push(failed(new, record));
        }
        (Some(before), WorkStatus::Cancelled) if !before.is_terminal() => {
            events.push(new(WorkEventKind::Cancelled));
        }
        (Some(before), WorkStatus::Pending)
            if before.is_leased() || before == WorkStatus::Failed =>
        {
            events.push(retried(new, record));
        }
        _ => {}
    }
    if let Some(Command::Progress {
        progress, message, ..
    }) = command
        && (progress.is_some() || message.is_some())
    {
        let mut reported = new(WorkEventKind::Progress);
        reported.progress = *progress;
        reported.message.clone_from(message);
        reported.timestamp = applied
            .progress
            .as_ref()
            .map_or(reported.timestamp, |live| live.at);
        events.push(reported);
    }
    events
        .into_iter()
        .map(|event| Event::Work(Box::new(event)))
        .collect()
}

fn failed(new: impl Fn(WorkEventKind) -> WorkEvent, record: &WorkRecord) -> WorkEvent {
    let error = record.errors.last();
    WorkEvent {
        error_message: error.map(|error| error.message.clone()),
        recoverable: error.map(|error| error.recoverable),
        reason: error.map(|error| error.reason),
        ..new(WorkEventKind::Failed)
    }
}

fn retried(new: impl Fn(WorkEventKind) -> WorkEvent, record: &WorkRecord) -> WorkEvent {
    WorkEvent {
        reason: record.pending_reason,
        not_before: record.not_before,
        ..new(WorkEventKind::Retried)
    }
}

/// The first characters of a text.
fn start_of(text: &str, characters: usize) -> String {
    // A character has a byte at least, and one of ASCII has no more.
    let plain = text.get(..characters.min(text.len()));
    if let Some(start) = plain.filter(|start| start.is_ascii() || start.len() == text.len()) {
        return start.to_owned();
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_start_of_a_text_is_its_first_characters(
            text in "[a-zé漢😀]{0,12}",
            characters in 0..14_usize,
        ) {
            let expected: String = text.chars().take(characters).collect();
            prop_assert_eq!(start_of(&text, characters), expected);
        }
    }
}
