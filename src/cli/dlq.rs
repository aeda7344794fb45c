//! `loom dlq`: list, show, put back and discard dead letters.

mod discard;
mod selection;

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use loom_protocol::Timestamp;
use loom_protocol::dead_letter::{DeadLetter, RefusedSubmission};
use loom_protocol::rest::{BatchResult, DeadLettersPage};
use loom_protocol::work::WorkErrorInfo;
use serde_json::json;

use super::Context;
use super::each;
use super::exit::{CliError, CliResult};
use super::naming::{FormArgs, name};
use super::output::{Output, Table, note, table};
use super::pages::{self, ExtentArgs, Listing, Query, tell_more};
use super::show::{attempts, body_text, sheet, submitted};
use super::table::Column;
use super::times::{ago, at, past};
use crate::api_client::ApiClient;
use selection::Selection;

/// List, show, put back and discard dead letters.
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: Option<DlqCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List dead letters, newest first (the same as `loom dlq` alone)
    List(ListArgs),
    /// Show the whole story of a dead letter
    Show {
        /// The letter: its id, the beginning of it, or the taskId.
        #[arg(value_parser = name)]
        id: String,
    },
    /// Put dead letters back into the queue: by their ids, by a filter, or all; exit 1 where any could not be
    Retry(RetryArgs),
    /// Delete dead letters for good: by their ids, by a filter, or all; their items stay failed
    Discard(Selection),
}

/// Which letters to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Only of this capability.
    #[arg(long)]
    capability: Option<String>,
    /// Only of this reason, like agent-error, timeout, checks or poison.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    extent: ExtentArgs,
    /// Only what failed since: a time, a day like 2026-01-31 (UTC), or before now like `2h`.
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// In which order; all but `oldest` are of the newest letters.
    #[arg(long, value_enum, value_name = "ORDER")]
    sort: Option<Sort>,
    #[command(flatten)]
    form: FormArgs,
}

/// In which order letters are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// The newest first; this is the default.
    Newest,
    /// The oldest first.
    Oldest,
    /// By reason.
    Reason,
    /// By capability.
    Capability,
}

/// Which letters to put back, and how.
#[derive(Debug, Args)]
#[group(skip)]
struct RetryArgs {
    #[command(flatten)]
    letters: Selection,
    /// Keep the count of spent attempts, and give one more.
    #[arg(long)]
    keep_attempts: bool,
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: DlqArgs) -> CliResult {
    if args.command.is_some() && args.list != ListArgs::default() {
        let message =
            "the filters of `loom dlq` are for listing; write them after `list` or `retry`";
        return Err(CliError::Usage(message.into()));
    }
    let out = context.out;
    match args.command.unwrap_or(DlqCommand::List(args.list)) {
        DlqCommand::List(args) => list(context, &args).await,
        DlqCommand::Show { id } => show(out, &context.api()?, &id).await,
        DlqCommand::Retry(args) => retry(out, &context.api()?, args).await,
        DlqCommand::Discard(args) => discard::run(out, &context.api()?, args).await,
    }
}

impl Listing for ListArgs {
    type Page = DeadLettersPage;
    const PATH: &str = "dlq";

    fn query(&self, cursor: Option<&str>) -> Query {
        let order = if self.oldest_first() { "asc" } else { "desc" };
        pages::query([
            ("capability", self.capability.clone()),
            ("reason", self.reason.clone()),
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

    fn time(letter: &DeadLetter) -> Timestamp {
        letter.failed_at
    }

    fn put_in_order(&self, letters: &mut [DeadLetter]) {
        match self.sort {
            None | Some(Sort::Newest | Sort::Oldest) => {}
            Some(Sort::Reason) => letters.sort_by_key(|letter| letter.reason.as_str()),
            Some(Sort::Capability) => {
                letters.sort_by(|a, b| a.work_item.capability.cmp(&b.work_item.capability));
            }
        }
    }
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
        .items
        .iter()
        .map(|letter| letter.id.to_string())
        .collect();
    let rows = |ids: &[String], wide: bool| rows(&page.items, ids, wide, everywhere);
    pages::print(out, form, &page, &ids, rows, "no dead letters")?;
    tell_more(&page.page, form);
    Ok(())
}

fn rows(letters: &[DeadLetter], ids: &[String], wide: bool, everywhere: bool) -> Table {
    let mut columns = vec![
        Column::whole("ID"),
        Column::text("REASON", 8),
        Column::cut("CAPABILITY", 10, 1).at_most(32),
        Column::spare("ATTEMPTS", 2),
        Column::spare("RETRIES", 3),
        Column::spare("FAILED", 0),
    ];
    if everywhere {
        columns.push(Column::cut("PROJECT", 8, 4).at_most(64));
    }
    if wide {
        columns.push(Column::whole("TASK"));
    }
    columns.push(Column::text("ERROR", 12).at_most(if wide { 200 } else { 80 }));
    let mut rows = table(&columns);
    for (letter, id) in letters.iter().zip(ids) {
        let mut cells = vec![
            id.clone(),
            letter.reason.to_string(),
            letter.work_item.capability.clone(),
            letter.attempts.to_string(),
            letter.retries.to_string(),
            ago(letter.failed_at),
        ];
        if everywhere {
            cells.push(letter.work_item.project_id.clone());
        }
        if wide {
            cells.push(letter.work_item.task_id.clone());
        }
        let error = letter.errors.last().map(|error| error.message.clone());
        cells.push(error.unwrap_or_default());
        rows.add_row(cells);
    }
    rows
}

async fn show(out: Output, api: &ApiClient, id: &str) -> CliResult {
    let letter: DeadLetter = api.get(&["dlq", id], &[]).await?;
    if out.is_json() {
        return out.json(&letter);
    }
    let item = &letter.work_item;
    let errors: Vec<String> = letter.errors.iter().map(line_of).collect();
    let last_agent = letter.last_agent_guid.map(|guid| guid.to_string());
    let retries = format!(
        "{} in all, {} by the schedule",
        letter.retries, letter.auto_retries
    );
    let mut rows = vec![
        ("id", letter.id.to_string()),
        ("reason", letter.reason.to_string()),
        ("failed", at(Some(letter.failed_at))),
    ];
    rows.extend(submitted(item));
    rows.extend([
        ("offered by", item.offered_by.clone()),
        ("offered", at(Some(item.offered_at))),
        ("attempts", attempts(item, letter.attempts)),
        ("put back", retries),
        ("last agent", last_agent.unwrap_or_default()),
        ("errors", errors.join("\n")),
        ("context", body_text(item.context_data.as_ref())),
        (
            "published",
            letter.submission.as_ref().map(text_of).unwrap_or_default(),
        ),
    ]);
    out.text(&sheet(&rows))
}

fn line_of(error: &WorkErrorInfo) -> String {
    let attempt = error.attempt.map(|attempt| format!("attempt {attempt}, "));
    let agent = error.agent_guid.map(|guid| format!("agent {guid}, "));
    format!(
        "{}{}{}, {}: {}",
        attempt.unwrap_or_default(),
        agent.unwrap_or_default(),
        ago(error.occurred_at),
        error.reason,
        error.message
    )
}

/// What was published, where it is text.
fn text_of(submission: &RefusedSubmission) -> String {
    match std::str::from_utf8(&submission.base64.0) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} bytes that are no text; see --json", submission.size),
    }
}

async fn retry(out: Output, api: &ApiClient, args: RetryArgs) -> CliResult {
    let reset_attempts = !args.keep_attempts;
    let letters = args.letters;
    if !letters.ids.is_empty() {
        let body = json!({ "resetAttempts": reset_attempts });
        let retry = async |id: String| api.post(&["dlq", &id, "retry"], &body).await;
        return each::for_each(out, letters.ids, retry).await;
    }
    let body = json!({
        "capability": letters.capability, "reason": letters.reason, "all": letters.all,
        "resetAttempts": reset_attempts,
    });
    let out = out.doing("");
    let result: BatchResult = api.post(&["dlq", "retry-batch"], &body).await?;
    if out.is_json() {
        out.json(&result)?;
    } else {
        out.text(&format!("{} back in the queue", result.count))?;
    }
    match result.total_processed - result.count.min(result.total_processed) {
        0 => Ok(()),
        count => {
            for (why, (of_these, id)) in reasons(&result) {
                note(&format!("{of_these} of them, like {id}: {why}"));
            }
            Err(CliError::Failed(format!(
                "{count} of {} could not be put back; they stay dead letters until `loom dlq discard` (ids, --reason or --capability) deletes them",
                result.total_processed
            )))
        }
    }
}

/// How many were refused for each reason, and one of them.
fn reasons(result: &BatchResult) -> BTreeMap<String, (usize, &str)> {
    let mut reasons = BTreeMap::new();
    for (id, error) in &result.errors {
        let why = error.replace(id, "it");
        reasons.entry(why).or_insert((0, id.as_str())).0 += 1;
    }
    reasons
}
