//! `loom work`: list, show, watch, cancel, put back, clone and explain items.

mod again;
mod cancel;
mod explain;
mod own;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use loom_protocol::Timestamp;
use loom_protocol::rest::WorkPage;
use loom_protocol::work::WorkItem;
use serde_json::json;

use super::Context;
use super::each;
use super::exit::{CliError, CliResult};
use super::naming::{FormArgs, name};
use super::output::{Output, Table, table};
use super::pages::{self, ExtentArgs, Listing, Query, tell_more};
use super::show::show_item;
use super::table::Column;
use super::times::{ago, past};
use super::watch::{self, WatchArgs};
use crate::api_client::{ApiClient, ApiError};
use again::CloneArgs;
use cancel::CancelArgs;
use loom_agent::inside::{self, CompleteArgs, FailArgs, ProgressArgs, SubmitArgs};

/// List, show, watch, cancel, put back, clone and explain work items.
#[derive(Debug, Args)]
pub struct WorkArgs {
    #[command(subcommand)]
    command: Option<WorkCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum WorkCommand {
    /// List items, newest first (the same as `loom work` alone)
    List(ListArgs),
    /// Show all about an item
    Show {
        /// The item: its id, the beginning of it, or its taskId. Inside of `loom agent run` it may be left out: the item
        /// that the program works on.
        #[arg(value_parser = name)]
        id: Option<String>,
    },
    /// Print the transitions of items as they happen
    Watch(WatchArgs),
    /// Call items off: by their ids, or all that match
    Cancel(CancelArgs),
    /// Put items that failed back into the queue, as `loom dlq retry` does
    Retry {
        /// The items: ids, beginnings of them, or taskIds.
        #[arg(required = true, value_parser = name)]
        ids: Vec<String>,
    },
    /// Submit the same work once more, as a new item; prints its id
    Clone(CloneArgs),
    /// Say who may take an item, which targets may start an agent for it, and why the others may not
    Explain {
        /// The item: its id, the beginning of it, or its taskId.
        #[arg(value_parser = name)]
        id: String,
        /// The targets for other capabilities too.
        #[arg(long)]
        all: bool,
    },
    /// Inside of `loom agent run`: tell how far the work is
    Progress(ProgressArgs),
    /// Inside of `loom agent run`: report that the work is done
    Complete(CompleteArgs),
    /// Inside of `loom agent run`: report that the work failed
    Fail(FailArgs),
    /// Inside of `loom agent run --may-submit`: submit work in the course of the item; prints its id
    Submit(SubmitArgs),
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
    /// Only of this agent: its guid, the beginning of it, or its handle.
    #[arg(long, value_name = "AGENT", value_parser = name)]
    pub assigned_to: Option<String>,
    /// Only with this label.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub label: Option<String>,
    #[command(flatten)]
    pub extent: ExtentArgs,
    /// Only what was submitted since: a time, a day like 2026-01-31 (UTC), or before now like `2h`.
    #[arg(long, value_name = "TIME", value_parser = past)]
    pub since: Option<Timestamp>,
    /// In which order; all but `oldest` are of the newest items.
    #[arg(long, value_enum, value_name = "ORDER")]
    pub sort: Option<Sort>,
    #[command(flatten)]
    pub form: FormArgs,
}

/// In which order items are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The newest first; this is the default.
    Newest,
    /// The oldest first.
    Oldest,
    /// The one that changed last first.
    Updated,
    /// The most urgent first.
    Priority,
    /// By status.
    Status,
}

impl Listing for ListArgs {
    type Page = WorkPage;
    const PATH: &str = "work";

    fn query(&self, cursor: Option<&str>) -> Query {
        let order = if self.oldest_first() { "asc" } else { "desc" };
        pages::query([
            ("status", self.status.clone()),
            ("capability", self.capability.clone()),
            ("boundary", self.boundary.clone()),
            ("assignedTo", self.assigned_to.clone()),
            ("label", self.label.clone()),
            ("since", self.since.map(|since| since.to_string())),
            ("order", Some(order.into())),
            ("cursor", cursor.map(str::to_owned)),
        ])
    }

    fn extent(&self) -> &ExtentArgs {
        &self.extent
    }

    fn oldest_first(&self) -> bool {
        self.sort == Some(Sort::Oldest)
    }

    fn time(item: &WorkItem) -> Timestamp {
        item.offered_at
    }

    fn put_in_order(&self, items: &mut [WorkItem]) {
        match self.sort {
            None | Some(Sort::Newest | Sort::Oldest) => {}
            Some(Sort::Updated) => items.sort_by_key(|item| std::cmp::Reverse(item.updated_at)),
            Some(Sort::Priority) => items.sort_by_key(|item| std::cmp::Reverse(item.priority)),
            Some(Sort::Status) => items.sort_by_key(|item| item.status),
        }
    }
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
        WorkCommand::List(args) => list(context, &args).await,
        WorkCommand::Submit(args) => own::submit(out, &args).await,
        WorkCommand::Show { id: None } => own::show(out).await,
        WorkCommand::Show { id: Some(id) } => show(out, &context.api()?, &id).await,
        WorkCommand::Watch(args) => watch::run(context, &args).await,
        WorkCommand::Cancel(args) => cancel::run(out, &context.api()?, args).await,
        WorkCommand::Retry { ids } => retry(out, &context.api()?, ids).await,
        WorkCommand::Clone(args) => again::run(context, &args).await,
        WorkCommand::Explain { id, all } => explain::run(out, &context.api()?, &id, all).await,
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

async fn retry(out: Output, api: &ApiClient, ids: Vec<String>) -> CliResult {
    let retry = async |id: String| {
        let answer = api.post(&["dlq", &id, "retry"], &json!({})).await;
        answer.map_err(|error| match error {
            ApiError::Refused(mut refusal) if !refusal.code.is_transient() => {
                refusal.message.push_str(
                    "; only what has failed can be put back: `loom work clone` submits the same work once more",
                );
                ApiError::Refused(refusal)
            }
            error => error,
        })
    };
    each::for_each(out, ids, retry).await
}

async fn list(context: &Context, args: &ListArgs) -> CliResult {
    let (out, api) = (context.out, context.api_of_listing().await?);
    let everywhere = context.is_everywhere();
    let page = if everywhere {
        pages::listed_everywhere(&api, args).await?
    } else {
        pages::listed(&api, args).await?
    };
    let form = args.form.form(out);
    let ids: Vec<String> = page
        .work_items
        .iter()
        .map(|item| item.id.to_string())
        .collect();
    let rows = |ids: &[String], wide: bool| rows(&page.work_items, ids, wide, everywhere);
    pages::print(out, form, &page, &ids, rows, "no work items")?;
    tell_more(&page.page, form);
    Ok(())
}

fn rows(items: &[WorkItem], ids: &[String], wide: bool, everywhere: bool) -> Table {
    let mut columns = vec![
        Column::whole("ID"),
        Column::whole("STATUS"),
        Column::spare("PRI", 5),
        Column::cut("CAPABILITY", 10, 3).at_most(32),
        Column::spare("AGE", 0),
        Column::cut("AGENT", 8, 4).at_most(32),
    ];
    if everywhere {
        columns.push(Column::cut("PROJECT", 8, 4).at_most(64));
    }
    if wide {
        columns.extend([
            Column::whole("BOUNDARY"),
            Column::whole("ATTEMPTS"),
            Column::whole("UPDATED"),
            Column::whole("LABELS"),
            Column::whole("TASK"),
        ]);
    }
    let longest = if wide { 120 } else { 60 };
    columns.push(Column::text("DESCRIPTION", 12).at_most(longest));
    let mut rows = table(&columns);
    for (item, id) in items.iter().zip(ids) {
        let status = match item.progress {
            Some(progress) if !item.terminal => format!("{} {progress:.0}%", item.status),
            _ => item.status.to_string(),
        };
        let agent = item.assigned_to_agent.as_ref();
        let mut cells = vec![
            id.clone(),
            status,
            item.priority.to_string(),
            item.capability.clone(),
            ago(item.offered_at),
            agent.map(|agent| agent.handle.clone()).unwrap_or_default(),
        ];
        if everywhere {
            cells.push(item.project_id.clone());
        }
        if wide {
            let labels = item.labels.iter();
            let labels: Vec<String> = labels
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            cells.extend([
                item.boundary.clone(),
                format!("{}/{}", item.attempts, item.max_attempts),
                ago(item.updated_at),
                labels.join(" "),
                item.task_id.clone(),
            ]);
        }
        cells.push(item.description.clone());
        rows.add_row(cells);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_hold_what_was_asked_for() {
        let mut args = ListArgs {
            status: Some("pending".into()),
            ..ListArgs::default()
        };
        let asked = |args: &ListArgs| {
            let query = args.query(Some("c")).into_iter();
            let fields: Vec<String> = query
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            fields.join("&")
        };
        assert_eq!(asked(&args), "status=pending&order=desc&cursor=c");
        args.sort = Some(Sort::Oldest);
        assert_eq!(asked(&args), "status=pending&order=asc&cursor=c");
    }
}
