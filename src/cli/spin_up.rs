//! `loom spin-up`: start an agent at a target, and look at starts.

use std::cmp::Reverse;

use clap::{Args, Subcommand};
use loom_actors::clock::Clock;
use loom_protocol::SpinUpId;
use loom_protocol::rest::{SpinUpBegun, SpinUpsPage};
use loom_protocol::target::{Need, SAID_LAST, SpinUpOperation, SpinUpRequest, SpinUpStatus};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::everywhere::{self, Located};
use super::exit::{CliError, CliResult};
use super::naming::{FormArgs, name};
use super::output::{Output, Table, note, table};
use super::pages::{self, ExtentArgs, Query, tell_more};
use super::show::sheet;
use super::table::Column;
use super::times::{ago, at, short};
use super::watch::{Away, LOOKS};
use crate::api_client::{ApiClient, ApiError};

/// Start an agent at a target now, or list and show starts.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub struct SpinUpArgs {
    #[command(subcommand)]
    command: Option<SpinUpCommand>,
    #[command(flatten)]
    start: StartArgs,
}

#[derive(Debug, Subcommand)]
enum SpinUpCommand {
    /// List starts, the latest first
    List(Box<ListArgs>),
    /// Show all about a start
    Show {
        /// The start: its operationId, or the beginning of it.
        #[arg(value_name = "OPERATION", value_parser = name)]
        operation: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct StartArgs {
    /// The target: its id, the beginning of it, or its name in whatever case (one that is called `list` or `show`: its id).
    #[arg(required = true, value_parser = name)]
    target: Option<String>,
    /// Start it for this item: its id, the beginning of it, or its taskId.
    #[arg(long = "for", value_name = "ITEM", value_parser = name)]
    item: Option<String>,
    /// Wait until the agent has registered; exit 1 if there will be none.
    #[arg(short, long)]
    wait: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct ListArgs {
    /// Only in this state.
    #[arg(long, value_parser = ["pending", "in-progress", "success", "failed", "timeout"])]
    status: Option<String>,
    /// Only at this target: its id, the beginning of it, or its name in whatever case.
    #[arg(long, value_parser = name)]
    target: Option<String>,
    #[command(flatten)]
    extent: ExtentArgs,
    #[command(flatten)]
    form: FormArgs,
}

impl ListArgs {
    fn query(&self, cursor: Option<&str>) -> Query {
        pages::query([
            ("status", self.status.clone()),
            ("target", self.target.clone()),
            ("cursor", cursor.map(str::to_owned)),
        ])
    }
}

/// Does what the arguments say.
pub async fn run(context: &Context, args: SpinUpArgs) -> CliResult {
    if args.command.is_some() && args.start != StartArgs::default() {
        let message =
            "`loom spin-up TARGET` starts an agent; list and show take no target before them";
        return Err(CliError::Usage(message.into()));
    }
    match args.command {
        Some(SpinUpCommand::List(args)) => list(context, &args).await,
        Some(SpinUpCommand::Show { operation }) => {
            let api = context.api()?;
            let operation: SpinUpOperation = api.get(&["spin-ups", &operation], &[]).await?;
            show(context.out, &operation)
        }
        None => start(context, args.start).await,
    }
}

async fn start(context: &Context, args: StartArgs) -> CliResult {
    let (out, api) = (context.out.doing(""), context.api()?);
    let target = args.target.unwrap_or_default();
    let request = SpinUpRequest {
        target: String::new(),
        work_item_id: args.item,
    };
    let begun = api.post(&["targets", &target, "spin-up"], &request).await;
    let begun: SpinUpBegun = begun.inspect_err(|error| {
        if matches!(error, ApiError::InDoubt(_)) {
            note("whether an agent is started is not known; `loom spin-up list` says it");
        }
    })?;
    if !args.wait {
        return if out.is_json() {
            out.json(&begun)
        } else {
            out.text(&begun.operation_id.to_string())
        };
    }
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| CliError::Failed(format!("Ctrl-C cannot be heard: {error}")))?;
    let id = begun.operation_id;
    note(&format!(
        "target {} starts an agent (operation {id}); waiting until it registers",
        begun.target_name
    ));
    let ended = tokio::select! {
        biased;
        _ = interrupt.recv() => {
            note(&format!("the start {id} goes on; `loom spin-up show {id}` says what becomes of it"));
            return Err(CliError::Interrupted);
        }
        ended = ended(&api, id) => ended?,
    };
    show(out, &ended)?;
    match ended.status {
        SpinUpStatus::Success => Ok(()),
        _ => Err(CliError::WorkFailed),
    }
}

/// Looks until a start is over, also where the coordinator is away meanwhile.
async fn ended(api: &ApiClient, id: SpinUpId) -> CliResult<SpinUpOperation> {
    let (mut pause, longest) = LOOKS;
    let mut away = Away::default();
    let id = id.to_string();
    loop {
        let looked = api.get::<SpinUpOperation>(&["spin-ups", &id], &[]).await;
        match away.bridge(looked)? {
            Some(operation) if operation.status.is_over() => return Ok(operation),
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(longest);
    }
}

async fn list(context: &Context, args: &ListArgs) -> CliResult {
    let (out, api) = (context.out, context.api_of_listing().await?);
    let wanted = args.extent.wanted();
    let fetch = async |api: &ApiClient| -> CliResult<SpinUpsPage> {
        let query = |cursor: Option<&str>| args.query(cursor);
        pages::fetch(api, "spin-ups", wanted, args.extent.cursor(), query).await
    };
    let found = if context.is_everywhere() {
        let latest_first = |operation: &SpinUpOperation| Reverse(operation.started_at);
        everywhere::of_all(&api, wanted, fetch, latest_first).await?
    } else {
        everywhere::of_one(fetch(&api).await?)
    };
    let form = args.form.form(out);
    let ids = found.items.iter();
    let ids: Vec<String> = ids.map(|one| one.operation_id.to_string()).collect();
    let rows = |ids: &[String], wide: bool| rows(&found, ids, wide);
    pages::print(
        out,
        form,
        &found.answer("operations")?,
        &ids,
        rows,
        "no starts",
    )?;
    tell_more(&found.info, form);
    Ok(())
}

fn rows(found: &Located<SpinUpOperation>, ids: &[String], wide: bool) -> Table {
    let is_everywhere = !found.projects.is_empty();
    let mut columns = vec![
        Column::whole("OPERATION"),
        Column::text("TARGET", 8).at_most(64),
        Column::whole("STATUS"),
        Column::spare("STARTED", 0),
        Column::spare("TOOK", 1),
        Column::cut("FOR", 8, 3).at_most(48),
    ];
    if is_everywhere {
        columns.push(Column::cut("PROJECT", 8, 4).at_most(64));
    }
    if wide {
        columns.extend(["MECHANISM", "AGENT"].map(Column::whole));
    }
    columns.push(Column::cut("ERROR", 12, 2).at_most(if wide { 300 } else { 80 }));
    let mut rows = table(&columns);
    for (at, (operation, id)) in found.items.iter().zip(ids).enumerate() {
        let mut cells = vec![
            id.clone(),
            operation.target_name.clone(),
            operation.status.as_str().to_owned(),
            ago(operation.started_at),
            took(operation),
            operation.need.as_ref().map(needed).unwrap_or_default(),
        ];
        if is_everywhere {
            cells.push(found.project(at).unwrap_or_default().to_owned());
        }
        if wide {
            let agent = operation.agent_guid.map(|guid| guid.to_string());
            cells.push(operation.mechanism.to_string());
            cells.push(agent.unwrap_or_default());
        }
        cells.push(because(operation));
        rows.add_row(cells);
    }
    rows
}

/// Why there is no agent: what went wrong, or why it waits.
fn because(operation: &SpinUpOperation) -> String {
    let error = operation.error.as_deref().map(cause_first);
    let waits = || {
        let said = operation.output.as_deref();
        let said = said.filter(|_| !operation.status.is_over())?;
        said.lines().next().map(str::to_owned)
    };
    error.or_else(waits).unwrap_or_default()
}

/// An error with what was said last in front: where there is little room that says the most.
fn cause_first(error: &str) -> String {
    match error.split_once(SAID_LAST) {
        Some((what, said)) => format!("{said} ({what})"),
        None => error.to_owned(),
    }
}

/// How long it took, or takes already.
fn took(operation: &SpinUpOperation) -> String {
    match operation.ended_at {
        Some(end) => short(end.since(operation.started_at)),
        None => format!(
            "{}…",
            short(Clock::system().now().since(operation.started_at))
        ),
    }
}

fn needed(need: &Need) -> String {
    let required = need.required_agent_type.as_ref();
    let required = required.map(|required| format!(" ({required})"));
    format!(
        "{} in {}{}",
        need.capability,
        need.boundary,
        required.unwrap_or_default()
    )
}

fn show(out: Output, operation: &SpinUpOperation) -> CliResult {
    if out.is_json() {
        return out.json(operation);
    }
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let agent = operation.agent_guid.map(|guid| guid.to_string());
    let item = operation.work_item_id.map(|id| id.to_string());
    let need = operation.need.as_ref();
    out.text(&sheet(&[
        ("operation", operation.operation_id.to_string()),
        ("status", operation.status.as_str().to_owned()),
        ("because", optional(&operation.error)),
        (
            "target",
            format!("{} ({})", operation.target_name, operation.target_id),
        ),
        ("mechanism", operation.mechanism.to_string()),
        (
            "for",
            need.map_or_else(|| "whatever its target serves".into(), needed),
        ),
        ("item", item.unwrap_or_default()),
        ("agent", agent.unwrap_or_default()),
        ("started", at(Some(operation.started_at))),
        ("ended", at(operation.ended_at)),
        ("took", took(operation)),
        ("output", optional(&operation.output)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A coordinator whose start goes on for a while, and then ends like this.
    async fn peer(end: &'static str) -> String {
        use axum::Json;
        use axum::routing::{get, post};
        use std::sync::atomic::{AtomicUsize, Ordering};
        const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
        let begun = async || {
            Json(json!({
                "operationId": ID, "targetId": ID, "targetName": "here", "status": "in-progress",
                "success": true, "timestamp": "2026-01-31T12:00:00Z",
            }))
        };
        let looks = AtomicUsize::new(0);
        let looked = move || {
            let status = match looks.fetch_add(1, Ordering::Relaxed) {
                0 => "pending",
                1 => "in-progress",
                _ => end,
            };
            async move {
                Json(json!({
                    "operationId": ID, "targetId": ID, "targetName": "here", "mechanism": "local",
                    "status": status, "startedAt": "2026-01-31T12:00:00Z",
                }))
            }
        };
        let looked = std::sync::Arc::new(looked);
        let router = axum::Router::new()
            .route("/api/targets/here/spin-up", post(begun))
            .route("/api/spin-ups/{id}", get(move || looked()));
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    #[tokio::test]
    async fn a_start_that_is_waited_for_ends_the_command_as_it_ends() {
        for (end, code) in [("success", 0), ("failed", 1), ("timeout", 1)] {
            let url = peer(end).await;
            let line = ["loom", "--url", &url, "--json", "spin-up", "here", "--wait"];
            let cli = <crate::cli::Cli as clap::Parser>::try_parse_from(line).unwrap();
            let crate::cli::Command::SpinUp(args) = cli.command else {
                panic!("another command");
            };
            let ended = run(&Context::new(cli.globals), *args).await;
            let ended = ended.map_or_else(|error| error.exit_code(), |()| 0);
            assert_eq!(ended, code, "{end}");
        }
    }

    #[test]
    fn a_start_is_shown_with_its_need_and_how_long_it_took() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let operation: SpinUpOperation = serde_json::from_value(json!({
            "operationId": id, "targetId": id, "targetName": "here", "mechanism": "local", "status": "failed",
            "need": {"capability": "rust", "boundary": "eu", "requiredAgentType": "codex"},
            "error": "it ended with the code 3\u{1b}[2J; it said: no such file", "output": "no such file",
            "startedAt": "2026-01-31T12:00:00Z", "endedAt": "2026-01-31T12:01:05Z",
        }))
        .unwrap();
        assert_eq!(took(&operation), "1m");
        assert_eq!(
            needed(operation.need.as_ref().unwrap()),
            "rust in eu (codex)"
        );
        let found = Located {
            items: vec![operation],
            projects: Vec::new(),
            info: loom_protocol::rest::PageInfo::default(),
        };
        let shown = rows(&found, &[id.into()], true).lines(None).join("\n");
        for part in [
            "rust in eu (codex)",
            "failed",
            "no such file (it ended with the code 3\\u001b[2J)",
            "local",
        ] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
        assert!(!shown.contains("PROJECT"));
    }
}
