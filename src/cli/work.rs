//! `loom work`: list, show, watch, cancel and explain items.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use loom_protocol::rest::WorkPage;
use loom_protocol::work::{ExplainAnswer, WorkItem};
use serde_json::json;

use super::Context;
use super::each;
use super::exit::{CliError, CliResult};
use super::output::{Output, ago, block, cell, table};
use super::pages::{self, Query, page_size, tell_more};
use super::show::show_item;
use super::watch::{self, WatchArgs};
use crate::agent_run::inside::{self, CompleteArgs, FailArgs, ProgressArgs};
use crate::api_client::ApiClient;

/// List, show, watch, cancel and explain work items.
#[derive(Debug, Args)]
pub struct WorkArgs {
    #[command(subcommand)]
    command: Option<WorkCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum WorkCommand {
    /// List items, newest last (the same as `loom work` alone)
    List(ListArgs),
    /// Show all about an item
    Show {
        /// The item, or the beginning of its id.
        #[arg(value_parser = id_prefix)]
        id: String,
    },
    /// Print the transitions of items as they happen
    Watch(WatchArgs),
    /// Call items off
    Cancel {
        /// The items, or the beginnings of their ids.
        #[arg(required = true, value_parser = id_prefix)]
        ids: Vec<String>,
        /// Why.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say who may take an item, and why the others may not
    Explain {
        /// The item, or the beginning of its id.
        #[arg(value_parser = id_prefix)]
        id: String,
    },
    /// Inside of `loom agent run`: tell how far the work is
    Progress(ProgressArgs),
    /// Inside of `loom agent run`: report that the work is done
    Complete(CompleteArgs),
    /// Inside of `loom agent run`: report that the work failed
    Fail(FailArgs),
}

/// Which items to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Only of this status (or several, with commas between them).
    #[arg(long)]
    pub status: Option<String>,
    /// Only of this capability.
    #[arg(long)]
    pub capability: Option<String>,
    /// Only of this boundary.
    #[arg(long)]
    pub boundary: Option<String>,
    /// Only of this agent: its guid.
    #[arg(long, value_name = "GUID")]
    pub assigned_to: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub label: Option<String>,
    /// At most so many; 50 where absent.
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    pub limit: Option<usize>,
    /// Begin where the last page ended.
    #[arg(long)]
    pub cursor: Option<String>,
    /// All of them, page by page.
    #[arg(long)]
    pub all: bool,
}

impl ListArgs {
    /// The query of one page.
    fn query(&self, cursor: Option<&str>) -> Query {
        pages::query([
            ("status", self.status.clone()),
            ("capability", self.capability.clone()),
            ("boundary", self.boundary.clone()),
            ("assignedTo", self.assigned_to.clone()),
            ("label", self.label.clone()),
            ("limit", page_size(self.all, self.limit)),
            ("cursor", cursor.map(str::to_owned)),
        ])
    }

    /// The page, or all pages as one.
    pub async fn fetch(&self, api: &ApiClient) -> CliResult<WorkPage> {
        let query = |cursor: Option<&str>| self.query(cursor);
        pages::fetch(api, "work", self.all, self.cursor.as_deref(), query).await
    }
}

/// An id or the beginning of one: hex digits and hyphens.
pub(super) fn id_prefix(text: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
    if text.is_empty() || text.len() > 36 || !text.chars().all(is_part) {
        return Err("write an id, or the beginning of one (hex digits and hyphens)".into());
    }
    Ok(text.to_ascii_lowercase())
}

/// Does what the arguments say, and gives the code to end with.
pub async fn run(context: &Context, args: WorkArgs) -> CliResult<ExitCode> {
    if args.command.is_some() && args.list != ListArgs::default() {
        let message =
            "the filters of `loom work` are for listing; write them after `list` or `watch`";
        return Err(CliError::Usage(message.into()));
    }
    let out = context.out;
    match args.command.unwrap_or(WorkCommand::List(args.list)) {
        WorkCommand::Progress(args) => return foreseen(inside::progress(args).await),
        WorkCommand::Complete(args) => return foreseen(inside::complete(args).await),
        WorkCommand::Fail(args) => return foreseen(inside::fail(args).await),
        WorkCommand::List(args) => list(out, &context.api()?, &args).await,
        WorkCommand::Show { id } => show(out, &context.api()?, &id).await,
        WorkCommand::Watch(args) => watch::run(out, &context.api()?, &args).await,
        WorkCommand::Cancel { ids, reason } => cancel(out, &context.api()?, ids, reason).await,
        WorkCommand::Explain { id } => explain(out, &context.api()?, &id).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

fn foreseen(ended: anyhow::Result<ExitCode>) -> CliResult<ExitCode> {
    ended.map_err(|error| CliError::Failed(format!("{error:#}")))
}

async fn show(out: Output, api: &ApiClient, id: &str) -> CliResult {
    let item: WorkItem = api.get(&["work", id], &[]).await?;
    if out.is_json() {
        out.json(&item)
    } else {
        show_item(out, &item)
    }
}

async fn cancel(
    out: Output,
    api: &ApiClient,
    ids: Vec<String>,
    reason: Option<String>,
) -> CliResult {
    let body = json!({"reason": reason, "by": "loom work cancel"});
    let cancel = async |id: String| api.post(&["work", &id, "cancel"], &body).await;
    each::for_each(out, ids, cancel).await
}

async fn list(out: Output, api: &ApiClient, args: &ListArgs) -> CliResult {
    let page = args.fetch(api).await?;
    if out.is_json() {
        return out.json(&page);
    }
    let mut rows = table(&[
        "ID",
        "STATUS",
        "PRI",
        "CAPABILITY",
        "BOUNDARY",
        "AGE",
        "AGENT",
        "DESCRIPTION",
    ]);
    for item in &page.work_items {
        let status = match item.progress {
            Some(progress) if !item.terminal => format!("{} {progress:.0}%", item.status),
            _ => item.status.to_string(),
        };
        let agent = item.assigned_to_agent.as_ref().map_or("", |a| &a.handle);
        rows.add_row([
            item.id.to_string(),
            status,
            item.priority.to_string(),
            cell(&item.capability, 24),
            cell(&item.boundary, 16),
            ago(item.offered_at),
            cell(agent, 24),
            cell(&item.description, 48),
        ]);
    }
    out.table(&rows, "no work items")?;
    tell_more(&page.page, ", or --all");
    Ok(())
}

async fn explain(out: Output, api: &ApiClient, id: &str) -> CliResult {
    let answer: ExplainAnswer = api.get(&["work", id, "explain"], &[]).await?;
    if out.is_json() {
        return out.json(&answer);
    }
    let mut text = format!(
        "{} is {}: {}",
        answer.id,
        answer.status,
        block(&answer.summary)
    );
    if let Some(ahead) = answer.ahead {
        let _ = write!(text, "\n{ahead} items with the same needs go before it");
    }
    out.text(&text)?;
    let mut rows = table(&[
        "AGENT",
        "GUID",
        "TYPE",
        "STATUS",
        "MAY TAKE IT",
        "RULE",
        "WHY",
    ]);
    for verdict in &answer.agents {
        rows.add_row([
            cell(&verdict.handle, 24),
            verdict.guid.to_string(),
            cell(&verdict.agent_type, 20),
            verdict.status.to_string(),
            if verdict.eligible { "yes" } else { "no" }.into(),
            verdict.rule.clone().unwrap_or_default(),
            cell(&verdict.message, 240),
        ]);
    }
    out.table(&rows, "no agents are registered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_place_in_a_path() {
        for bad in ["", "..", "a/b", "x", "%2e", &"a".repeat(37)] {
            assert!(id_prefix(bad).is_err(), "{bad}");
        }
        assert_eq!(id_prefix("0198AB-"), Ok("0198ab-".into()));
    }

    #[test]
    fn queries_hold_what_was_asked_for() {
        let args = ListArgs {
            status: Some("pending".into()),
            all: true,
            ..ListArgs::default()
        };
        assert_eq!(
            args.query(Some("c")),
            [
                ("status", "pending".to_owned()),
                ("limit", "1000".into()),
                ("cursor", "c".into())
            ]
        );
    }
}
