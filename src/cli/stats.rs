//! `loom stats` and `loom projects`.

use std::collections::BTreeMap;

use loom_protocol::rest::{ProjectsAnswer, Stats};

use super::Context;
use super::exit::CliResult;
use super::output::{ago, cell, table};
use super::show::sheet;

/// Counts agents and work, of one project or of all.
pub async fn stats(context: &Context) -> CliResult {
    let stats: Stats = context.api()?.get(&["stats"], &[]).await?;
    if context.out.is_json() {
        return context.out.json(&stats);
    }
    let split = |counts: &BTreeMap<String, usize>| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{count} {}", cell(name, 32)))
            .collect();
        parts.join(", ")
    };
    context.out.text(&sheet(&[
        ("pending", stats.pending.to_string()),
        ("active", stats.active.to_string()),
        ("completed", stats.completed.to_string()),
        ("failed", stats.failed.to_string()),
        ("dead letters", stats.dead_letters.total.to_string()),
        ("cancelled", stats.cancelled.to_string()),
        ("work in all", stats.total.to_string()),
        ("agents", stats.agents.total.to_string()),
        ("by status", split(&stats.agents.by_status)),
        ("by type", split(&stats.agents.by_type)),
        ("projects", stats.total_projects.to_string()),
    ]))
}

/// Lists the projects.
pub async fn projects(context: &Context) -> CliResult {
    let answer: ProjectsAnswer = context.api()?.get(&["stats", "projects"], &[]).await?;
    if context.out.is_json() {
        return context.out.json(&answer);
    }
    let mut rows = table(&["PROJECT", "AGENTS", "PENDING", "ACTIVE", "LAST ACTIVITY"]);
    for project in &answer.details {
        let totals = &project.totals;
        rows.add_row([
            cell(&project.project_id, 64),
            totals.agents.to_string(),
            totals.pending_work.to_string(),
            totals.active_work.to_string(),
            totals.last_activity.map(ago).unwrap_or_default(),
        ]);
    }
    context.out.table(&rows, "no projects")
}
