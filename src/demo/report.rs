//! The closing table: who did what, and how long things waited and ran.

use std::time::Duration;

use loom_protocol::work::{WorkItem, WorkStatus};
use serde::Serialize;

use super::plan::{ROLES, Role};
use crate::cli::output::{Table, table};

/// How long an item waited for an agent.
pub fn waited(item: &WorkItem) -> Option<Duration> {
    let taken = item.started_at.or(item.assigned_at)?;
    Some(taken.since(item.offered_at))
}

/// How long its agent took.
pub fn running(item: &WorkItem) -> Option<Duration> {
    let taken = item.started_at.or(item.assigned_at)?;
    item.terminal.then(|| item.updated_at.since(taken))
}

/// A length of time in seconds with one digit.
pub fn seconds(length: Duration) -> String {
    format!("{:.1}s", length.as_secs_f64())
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Whose work it is about: an agent, a range of priorities, or all.
    pub of: String,
    /// What is known about that.
    pub about: String,
    /// How many items were completed.
    pub completed: usize,
    /// How many ended otherwise.
    pub failed: usize,
    /// How long an item waited on average.
    pub average_wait_ms: u64,
    /// How long an item ran on average.
    pub average_run_ms: u64,
    /// How long all of them ran together.
    pub total_run_ms: u64,
}

/// The lines: one for each agent, one for each range of priorities, one for all.
pub fn lines(items: &[WorkItem]) -> Vec<Line> {
    let did = |role: &Role, item: &WorkItem| {
        let agent = item.assigned_to_agent.as_ref();
        agent.is_some_and(|agent| agent.handle == role.handle)
    };
    let mut lines: Vec<Line> = ROLES
        .iter()
        .map(|role| {
            let about = format!(
                "{}: {} in {}",
                role.agent_type,
                role.capabilities.join(", "),
                role.boundaries.join(", ")
            );
            let own = items.iter().filter(|item| did(role, item));
            line(role.handle, about, own)
        })
        .collect();
    for (name, range) in [("high", 8..=10), ("middle", 4..=7), ("low", 1..=3)] {
        let about = format!("priority {} to {}", range.start(), range.end());
        let own = items.iter().filter(|item| range.contains(&item.priority));
        lines.push(line(name, about, own));
    }
    lines.push(line("all", String::new(), items.iter()));
    lines
}

fn line<'a>(of: &str, about: String, items: impl Iterator<Item = &'a WorkItem>) -> Line {
    let items: Vec<&WorkItem> = items.filter(|item| item.terminal).collect();
    let completed = items
        .iter()
        .filter(|item| item.status == WorkStatus::Completed)
        .count();
    let waits: Duration = items.iter().filter_map(|item| waited(item)).sum();
    let runs: Duration = items.iter().filter_map(|item| running(item)).sum();
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX).max(1);
    Line {
        of: of.into(),
        about,
        completed,
        failed: items.len() - completed,
        average_wait_ms: millis(waits / count),
        average_run_ms: millis(runs / count),
        total_run_ms: millis(runs),
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// The lines for people.
pub fn as_table(lines: &[Line]) -> Table {
    let mut rows = table(&[
        "OF",
        "ABOUT",
        "COMPLETED",
        "FAILED",
        "WAITED (AVG)",
        "RAN (AVG)",
        "RAN (ALL)",
    ]);
    let text = |ms| seconds(Duration::from_millis(ms));
    for line in lines {
        rows.add_row([
            line.of.clone(),
            line.about.clone(),
            line.completed.to_string(),
            line.failed.to_string(),
            text(line.average_wait_ms),
            text(line.average_run_ms),
            text(line.total_run_ms),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(handle: &str, priority: u8, offered: u32, started: u32, ended: u32) -> WorkItem {
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}.000Z");
        let guid = "0198aaaa-0000-7000-8000-000000000000";
        serde_json::from_value(json!({
            "id": guid, "taskId": "t", "projectId": "demo", "capability": "c",
            "boundary": "b", "description": "d", "priority": priority,
            "status": "completed", "terminal": true, "attempt": 1, "attempts": 0,
            "maxAttempts": 3, "offeredBy": "me", "offeredAt": at(offered),
            "assignedToAgent": {"guid": guid, "handle": handle, "agentType": "t"},
            "startedAt": at(started), "updatedAt": at(ended), "revision": 3,
        }))
        .unwrap()
    }

    #[test]
    fn waits_and_runs_are_averages_over_the_items_of_a_line() {
        let items = [item("ada", 9, 0, 2, 3), item("ada", 1, 0, 4, 7)];
        let lines = lines(&items);
        let of = |name: &str| lines.iter().find(|line| line.of == name).unwrap();
        let ada = of("ada");
        assert_eq!((ada.completed, ada.failed), (2, 0));
        assert_eq!((ada.average_wait_ms, ada.average_run_ms), (3_000, 2_000));
        assert_eq!(ada.total_run_ms, 4_000);
        assert_eq!(of("brian").completed, 0);
        assert_eq!((of("high").completed, of("low").completed), (1, 1));
        assert_eq!(of("all").completed, 2);
        assert_eq!(as_table(&lines).row_count(), 7);
    }
}
