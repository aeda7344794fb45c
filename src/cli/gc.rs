//! `loom gc`: what the reaper does, or will do.

use std::time::Duration;

use clap::Args;
use loom_protocol::gc::GcReport;
use serde_json::json;

use super::Context;
use super::exit::CliResult;
use super::naming::short_ids;
use super::output::{note, table};
use super::table::Column;
use super::times::ago;

/// Have the dead marked, buried and sent home now, instead of when their time has come anyway.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only say what is to come, and when.
    #[arg(long)]
    dry_run: bool,
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: &GcArgs) -> CliResult {
    let api = context.api()?;
    let report: GcReport = if args.dry_run {
        api.get(&["gc"], &[]).await?
    } else {
        api.post(&["gc"], &json!({})).await?
    };
    if context.out.is_json() {
        return context.out.json(&report);
    }
    let mut rows = table(&[
        Column::whole("GUID"),
        Column::text("HANDLE", 6).at_most(32),
        Column::spare("STATUS", 0),
        Column::spare("SEEN", 2),
        Column::spare("LEASES", 1),
        Column::text("ACTION", 8),
        Column::whole("IN"),
    ]);
    let guids = short_ids(report.agents.iter().map(|agent| agent.guid));
    for (agent, guid) in report.agents.iter().zip(guids) {
        rows.add_row([
            guid,
            agent.handle.clone(),
            agent.status.to_string(),
            ago(agent.last_heartbeat),
            agent.leases.to_string(),
            agent.action.as_str().to_owned(),
            due(agent.due_in_ms, report.dry_run),
        ]);
    }
    let nothing = if report.dry_run {
        "nothing is to be done"
    } else {
        "nothing was to be done"
    };
    context.out.table(&rows, nothing)?;
    note(&format!(
        "{} agents looked at, {} graves",
        report.examined, report.graves
    ));
    Ok(())
}

fn due(millis: u64, is_to_come: bool) -> String {
    match (is_to_come, millis) {
        (false, _) => "done".to_owned(),
        (true, 0) => "now".to_owned(),
        (true, millis) => {
            let whole_seconds = Duration::from_secs(millis.div_ceil(1000));
            humantime::format_duration(whole_seconds).to_string()
        }
    }
}
