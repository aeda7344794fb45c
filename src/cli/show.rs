//! One thing with all its fields, below each other.

use std::time::Duration;

use loom_protocol::work::{CostSource, Evidence, Session, Usage, WorkItem, WorkStatus};
use loom_protocol::{Body, Timestamp};
use serde_json::Value;

use super::exit::CliResult;
use super::output::{Output, block};
use super::times::at;

/// Prints all about an item.
pub(super) fn show_item(out: Output, item: &WorkItem) -> CliResult {
    out.text(&sheet(&rows(item)))
}

fn rows(item: &WorkItem) -> Vec<(&'static str, String)> {
    let agent = item
        .assigned_to_agent
        .as_ref()
        .map(|agent| format!("{} ({}, {})", agent.handle, agent.agent_type, agent.guid));
    let progress = item.progress.map(|progress| {
        let said = item.progress_message.as_deref().unwrap_or_default();
        format!("{progress:.0}% {said}")
    });
    let error = item
        .error
        .as_ref()
        .map(|error| format!("{} ({})", error.message, error.reason));
    let cancel = item.cancel.as_ref().map(|cancel| {
        let reason = cancel.reason.as_deref().unwrap_or("no reason given");
        format!("by {}: {reason}", cancel.by)
    });
    let mut rows = vec![
        ("id", item.id.to_string()),
        ("status", item.status.to_string()),
    ];
    rows.extend(submitted(item));
    rows.extend([
        (
            "required type",
            item.required_agent_type.clone().unwrap_or_default(),
        ),
        (
            "preferred type",
            item.preferred_agent_type.clone().unwrap_or_default(),
        ),
        ("attempts", attempts(item, item.attempts)),
        ("offered by", item.offered_by.clone()),
        ("offered", at(Some(item.offered_at))),
        ("not before", at(item.not_before)),
        (
            "deadline",
            item.deadline
                .map(|time| time.to_string())
                .unwrap_or_default(),
        ),
        ("agent", agent.unwrap_or_default()),
        ("assigned", at(item.assigned_at)),
        ("started", at(item.started_at)),
        ("progress", progress.unwrap_or_default()),
        ("ended", at(ended_at(item))),
        ("cancelled", cancel.unwrap_or_default()),
        (
            "agent told",
            at(item.cancel.as_ref().and_then(|c| c.delivered_at)),
        ),
        (
            "agent stopped",
            at(item.cancel.as_ref().and_then(|c| c.stopped_at)),
        ),
        ("error", error.unwrap_or_default()),
        ("usage", item.usage.as_ref().map(used).unwrap_or_default()),
        (
            "session",
            item.session.as_ref().map(conversation).unwrap_or_default(),
        ),
        ("checks", checks(&item.evidence)),
        ("context", body_text(item.context_data.as_ref())),
        ("result", outcome_of(item)),
        (
            "output",
            body_text(item.result.as_ref().and_then(|r| r.output.as_ref())),
        ),
        (
            "artifacts",
            body_text(item.result.as_ref().and_then(|r| r.artifacts.as_ref())),
        ),
    ]);
    rows
}

/// What an item is about, in the submitter's words.
pub(super) fn submitted(item: &WorkItem) -> [(&'static str, String); 8] {
    let labels = item.labels.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    [
        ("description", item.description.clone()),
        ("task", item.task_id.clone()),
        (
            "parent",
            item.parent_id.map(|id| id.to_string()).unwrap_or_default(),
        ),
        ("project", item.project_id.clone()),
        ("capability", item.capability.clone()),
        ("boundary", item.boundary.clone()),
        ("priority", item.priority.to_string()),
        ("labels", labels.join(" ")),
    ]
}

/// How many attempts of an item are spent.
pub(super) fn attempts(item: &WorkItem, spent: u32) -> String {
    format!(
        "{spent} of {} spent, claimed {} times",
        item.max_attempts, item.attempt
    )
}

/// When an item ended: not when it was last written, which may be later.
fn ended_at(item: &WorkItem) -> Option<Timestamp> {
    let at = match item.status {
        WorkStatus::Completed => item.result.as_ref().map(|result| result.completed_at),
        WorkStatus::Failed => item.error.as_ref().map(|error| error.occurred_at),
        WorkStatus::Cancelled => item.cancel.as_ref().map(|cancel| cancel.requested_at),
        _ => None,
    };
    at.or_else(|| item.terminal.then_some(item.updated_at))
}

/// What an item came to, in a line.
pub(super) fn outcome(item: &WorkItem) -> String {
    let summary = item.result.as_ref().and_then(|r| r.summary.clone());
    let error = item.error.as_ref().map(|error| error.message.clone());
    summary.or(error).unwrap_or_default()
}

/// What an item has used up.
fn used(usage: &Usage) -> String {
    let parts = [
        ("in", usage.input_tokens),
        ("out", usage.output_tokens),
        ("cache read", usage.cache_read_tokens),
        ("cache written", usage.cache_write_tokens),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, count)| Some(format!("{} {name}", count?)))
        .collect();
    let parts = Some(parts.join(", ")).filter(|parts| !parts.is_empty());
    let parts = parts.map(|parts| format!(" ({parts})")).unwrap_or_default();
    let tokens = usage.tokens.map(|tokens| format!("{tokens} tokens{parts}"));
    // A cost that is not all of it is said to be so.
    let source = usage.cost_source.unwrap_or(CostSource::Unknown);
    let cost = usage.cost_usd.map(|cost| match source {
        CostSource::Reported => format!("${cost:.4}"),
        CostSource::Estimated => format!("${cost:.4} (estimated)"),
        CostSource::Unknown => format!("${cost:.4} (in part, or of unknown source)"),
    });
    let told = tokens.into_iter().chain(cost).chain(usage.model.clone());
    told.collect::<Vec<String>>().join(", ")
}

/// Where an item was worked on last.
fn conversation(session: &Session) -> String {
    let path = session.path.as_ref();
    let path = path.map(|path| format!(", in {path}")).unwrap_or_default();
    let (agent_type, id, hostname) = (&session.agent_type, &session.id, &session.hostname);
    format!("{id} ({agent_type}, on {hostname}{path})")
}

/// What was checked: a line for each, and below one that failed how its output ended.
fn checks(evidence: &[Evidence]) -> String {
    let lines = evidence.iter().map(|check| {
        let how = match check.exit_code {
            0 => "good".to_owned(),
            code => format!("exit code {code}"),
        };
        let commit = check.commit.as_ref().map(|commit| {
            let dirty = if check.dirty == Some(true) {
                " and more"
            } else {
                ""
            };
            format!(", on {commit}{dirty}")
        });
        let (name, attempt) = (&check.name, check.attempt);
        let took = humantime::format_duration(Duration::from_millis(check.duration_ms));
        let line = format!(
            "{name}: {how} after {took} (attempt {attempt}{}): {}",
            commit.unwrap_or_default(),
            check.command
        );
        let tail = check.output_tail.trim_end();
        if check.is_good() || tail.is_empty() {
            return line;
        }
        format!("{line}\n{tail}")
    });
    lines.collect::<Vec<String>>().join("\n")
}

fn outcome_of(item: &WorkItem) -> String {
    if item.error.is_some() && item.result.is_none() {
        String::new()
    } else {
        outcome(item)
    }
}

pub(super) fn body_text(body: Option<&Body>) -> String {
    let read = |body: &Body| match body.parse::<Value>() {
        Ok(Value::String(text)) => text,
        Ok(value) => serde_json::to_string_pretty(&value).unwrap_or_default(),
        Err(_) => String::from_utf8_lossy(body.as_bytes()).into_owned(),
    };
    body.map(read).unwrap_or_default()
}

/// Names and values below each other; those without a value are left out.
pub(super) fn sheet(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let indent = format!("\n{}", " ".repeat(width));
    let lines: Vec<String> = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:width$}{}", block(value).replace('\n', &indent)))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::work::CancelInfo;

    #[test]
    fn the_end_is_when_it_ended_and_not_the_last_write() {
        let time = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut item = loom_protocol::work::sample_item();
        assert_eq!(ended_at(&item), None);
        let told: CancelInfo = serde_json::from_value(serde_json::json!({
            "requestedAt": time(5), "by": "me", "deliveredAt": time(6), "stoppedAt": time(7)
        }))
        .unwrap();
        (item.terminal, item.updated_at, item.cancel) = (true, time(9), Some(told));
        item.status = WorkStatus::Cancelled;
        assert_eq!(ended_at(&item), Some(time(5)));
        let shown = sheet(&rows(&item));
        for part in [time(5), time(6), time(7)] {
            assert!(
                shown.contains(&part.to_string()),
                "{part} is not in {shown}"
            );
        }
        item.status = WorkStatus::Failed;
        assert_eq!(ended_at(&item), Some(time(9)), "its error is not known");
    }

    #[test]
    fn what_was_used_where_and_what_was_checked_is_shown() {
        let mut item = loom_protocol::work::sample_item();
        let told = serde_json::json!({
            "usage": {"inputTokens": 3, "outputTokens": 9, "tokens": 12, "costUsd": 0.5, "costSource": "unknown", "model": "m-1"},
            "session": {"agentType": "claude-code", "id": "7c1e", "hostId": "h", "hostname": "build-2", "store": "s", "path": "/w"},
            "evidence": [
                {"name": "lint", "command": "make lint", "exitCode": 0, "durationMs": 1000, "outputTail": "fine", "at": item.offered_at, "attempt": 2},
                {"name": "tests", "command": "make test", "exitCode": 2, "durationMs": 1500, "outputTail": "boom\n", "at": item.offered_at, "attempt": 2, "commit": "abc", "dirty": true},
            ],
        });
        item.usage = serde_json::from_value(told["usage"].clone()).unwrap();
        item.session = serde_json::from_value(told["session"].clone()).unwrap();
        item.evidence = serde_json::from_value(told["evidence"].clone()).unwrap();
        let shown = sheet(&rows(&item));
        for part in [
            "12 tokens (3 in, 9 out), $0.5000 (in part, or of unknown source), m-1",
            "7c1e (claude-code, on build-2, in /w)",
            "lint: good after 1s (attempt 2): make lint",
            "tests: exit code 2 after 1s 500ms (attempt 2, on abc and more): make test",
            "boom",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!shown.contains("fine"), "{shown}");
    }

    #[test]
    fn sheets_leave_out_what_is_empty_and_keep_terminals_safe() {
        let rows = [
            ("a", String::new()),
            ("name", "x\u{1b}[0m\ny".to_owned()),
            ("b", "1".to_owned()),
        ];
        assert_eq!(sheet(&rows), "name  x\\u001b[0m\n      y\nb     1");
    }
}
