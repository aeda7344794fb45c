//! `loom stats` and `loom projects`.

use std::collections::BTreeMap;

use loom_protocol::rest::{ProjectSummary, ProjectsAnswer, Stats, TargetTotals};

use super::Context;
use super::exit::CliResult;
use super::naming::FormArgs;
use super::output::{cell, table};
use super::pages;
use super::show::sheet;
use super::table::Column;
use super::times::ago;

/// Counts agents and work, of one project or of all of them.
pub async fn stats(context: &Context) -> CliResult {
    let stats: Stats = context.api_of_listing().await?.get(&["stats"], &[]).await?;
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
    let asleep = match stats.asleep {
        0 => String::new(),
        count => count.to_string(),
    };
    let targets = match stats.targets {
        targets if targets.total == 0 => String::new(),
        targets => parts_of(targets),
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
        ("targets", targets),
        ("projects", stats.total_projects.to_string()),
        ("asleep", asleep),
    ]))
}

/// How many targets there are, and in which states; those in none of them are not named.
fn parts_of(targets: TargetTotals) -> String {
    let parts = [
        (targets.available, "available"),
        (targets.in_use, "in use"),
        (targets.error, "in error"),
        (targets.disabled, "disabled"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, is)| format!("{count} {is}")).collect();
    format!("{}: {}", targets.total, parts.join(", "))
}

/// List the projects
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ProjectsArgs {
    #[command(flatten)]
    form: FormArgs,
}

/// How a project is, in a word or two.
fn state_of(project: &ProjectSummary, answer: &ProjectsAnswer) -> &'static str {
    if project.asleep {
        "asleep"
    } else if project.unused {
        "not used yet"
    } else if answer.starting.contains_key(&project.project_id) {
        "starting"
    } else {
        "awake"
    }
}

/// Lists the projects.
pub async fn projects(context: &Context, args: ProjectsArgs) -> CliResult {
    let api = context.api_of_listing().await?;
    let answer: ProjectsAnswer = api.get(&["stats", "projects"], &[]).await?;
    let projects = &answer.details;
    let names: Vec<String> = projects
        .iter()
        .map(|project| project.project_id.clone())
        .collect();
    let form = args.form.form(context.out);
    let rows = |_: &[String], _: bool| {
        let mut rows = table(&[
            Column::whole("PROJECT"),
            Column::spare("AGENTS", 1),
            Column::whole("PENDING"),
            Column::whole("ACTIVE"),
            Column::spare("LAST ACTIVITY", 2),
            Column::spare("STATE", 3),
        ]);
        for project in projects {
            let totals = &project.totals;
            rows.add_row([
                project.project_id.clone(),
                totals.agents.to_string(),
                totals.pending_work.to_string(),
                totals.active_work.to_string(),
                totals.last_activity.map(ago).unwrap_or_default(),
                state_of(project, &answer).into(),
            ]);
        }
        rows
    };
    pages::print(context.out, form, &answer, &names, rows, "no projects")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_targets_add_up_to_all_of_them() {
        let targets = TargetTotals {
            total: 6,
            available: 1,
            in_use: 0,
            disabled: 2,
            error: 3,
        };
        assert_eq!(parts_of(targets), "6: 1 available, 3 in error, 2 disabled");
    }
}
