//! `loom demo`: a coordinator with its own nats-server, three agents as real processes, and work for
//! them; everything in a temporary folder that is removed at the end.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | who the agents are, and what there is to do |
//! | [`fleet`] | the agents as processes |
//! | [`targets`] | the same agents, started by targets when work waits |
//! | [`display`] | what happens just now |
//! | [`report`] | the closing table |

pub mod display;
pub mod fleet;
pub mod plan;
pub mod report;
pub mod targets;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use loom_protocol::ProjectId;
use loom_protocol::rest::{AgentsPage, WorkPage};
use loom_protocol::work::{BatchAnswer, SubmitAnswer, WorkItem, WorkStatus};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout_at};

use crate::api_client::ApiClient;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{Output, beside};
use crate::coordinator::{Coordinator, UpOptions};
use crate::settings::{Profile, Settings};
use display::Display;
use fleet::AgentProcess;
use plan::{PROJECT, ROLES};

/// How long the whole may take.
const WITHIN: Duration = Duration::from_mins(2);

/// See agents finish work: everything is started here, and removed at the end.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many items.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=250))]
    items: u16,

    /// Begin without agents: targets start them when work waits, and they go home when it is done
    #[arg(long)]
    targets: bool,
}

/// Runs the demo; cleans up however it ends.
///
/// # Errors
/// Something could not be started, or not all of the work was completed.
pub async fn run(out: Output, args: &DemoArgs) -> CliResult {
    let dir = tempfile::Builder::new()
        .prefix("loom-demo-")
        .tempdir()
        .map_err(|error| CliError::Failed(format!("cannot make a temporary folder: {error}")))?;
    let outcome = stage(out, args, dir.path()).await;
    let path = dir.path().display().to_string();
    dir.close()
        .map_err(|error| CliError::Failed(format!("cannot remove {path}: {error}")))?;
    outcome
}

/// Starts the coordinator, lets the play run, and ends everything in order.
async fn stage(out: Output, args: &DemoArgs, dir: &Path) -> CliResult {
    beside(&format!(
        "starting a nats-server and a coordinator in {}",
        dir.display()
    ));
    let mut settings = settings(dir)?;
    if args.targets {
        targets::adjust(&mut settings);
    }
    let coordinator = tokio::select! {
        started = Coordinator::start(&settings, UpOptions::default()) => started?,
        () = interruption() => return Err(interrupted()),
    };
    let mut agents = Vec::new();
    let api = api_of(&coordinator)?;
    let outcome = tokio::select! {
        outcome = play(out, args, dir, &coordinator, &api, &mut agents) => outcome,
        () = interruption() => Err(interrupted()),
    };
    let ending = async {
        if args.targets {
            targets::end(&api).await;
        }
        join_all(agents.into_iter().map(AgentProcess::stop)).await;
        coordinator.shut_down().await;
    };
    tokio::select! {
        () = ending => outcome,
        () = interruption() => Err(interrupted()),
    }
}

fn settings(dir: &Path) -> CliResult<Settings> {
    let mut settings = Settings::default();
    settings.nats.data_dir = Some(dir.into());
    settings.nats.profile = Profile::Fast;
    settings.api.port = 0;
    settings.projects.default = project()?;
    Ok(settings)
}

fn project() -> CliResult<ProjectId> {
    ProjectId::new(PROJECT).map_err(|error| CliError::Failed(error.to_string()))
}

/// Ctrl-C, or a request to end.
async fn interruption() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn interrupted() -> CliError {
    CliError::Failed("interrupted; everything that was started has been removed".into())
}

/// Agents come, work is submitted and done, and the table is drawn.
async fn play(
    out: Output,
    args: &DemoArgs,
    dir: &Path,
    coordinator: &Coordinator,
    api: &ApiClient,
    agents: &mut Vec<AgentProcess>,
) -> CliResult {
    let count = usize::from(args.items);
    beside(&format!(
        "the coordinator is up; look with `loom --url {} work`",
        api.url()
    ));
    let deadline = Instant::now() + WITHIN;
    let late = |_| CliError::Failed(format!("not done within {} s", WITHIN.as_secs()));
    if args.targets {
        targets::register(api).await?;
        beside(&format!(
            "nobody is there; {} targets may start agents; submitting {count} items",
            ROLES.len()
        ));
    } else {
        start_agents(dir, coordinator, agents)?;
        timeout_at(deadline, all_registered(api, agents))
            .await
            .map_err(late)??;
        beside(&format!(
            "{} agents are there; submitting {count} items",
            ROLES.len()
        ));
    }
    submit(api, count).await?;
    let mut display = Display::new(count);
    let watched = timeout_at(deadline, all_ended(api, agents, &mut display, count)).await;
    display.finish();
    let items = watched.map_err(late)??;
    if args.targets {
        beside("all is done; the agents go home when they have been idle for a moment");
        targets::all_gone(api).await?;
        beside("nobody is there any more");
    }
    tell(out, &items)?;
    if items
        .iter()
        .all(|item| item.status == WorkStatus::Completed)
    {
        Ok(())
    } else {
        Err(CliError::WorkFailed)
    }
}

fn api_of(coordinator: &Coordinator) -> CliResult<ApiClient> {
    let url = format!("http://{}", coordinator.api_address());
    Ok(ApiClient::new(&url, None, Some(project()?))?)
}

fn start_agents(
    dir: &Path,
    coordinator: &Coordinator,
    agents: &mut Vec<AgentProcess>,
) -> CliResult {
    for role in ROLES {
        let agent = AgentProcess::start(role, coordinator.nats_url(), dir)
            .map_err(|e| CliError::Failed(format!("cannot start agent {}: {e}", role.handle)))?;
        agents.push(agent);
    }
    Ok(())
}

async fn all_registered(api: &ApiClient, agents: &mut [AgentProcess]) -> CliResult {
    loop {
        complain(agents)?;
        let page: AgentsPage = api.get(&["agents"], &[]).await?;
        if page.agents.len() >= ROLES.len() {
            return Ok(());
        }
        sleep(display::PERIOD).await;
    }
}

fn complain(agents: &mut [AgentProcess]) -> CliResult {
    match agents.iter_mut().find_map(AgentProcess::complaint) {
        Some(complaint) => Err(CliError::Failed(complaint)),
        None => Ok(()),
    }
}

async fn submit(api: &ApiClient, count: usize) -> CliResult {
    let body = BTreeMap::from([("items", plan::items(count))]);
    let answer: BatchAnswer<SubmitAnswer> = api.post(&["work"], &body).await?;
    for item in answer.items {
        if let Err(error) = Result::from(item) {
            return Err(CliError::Refused(error.code, error.message));
        }
    }
    Ok(())
}

async fn all_ended(
    api: &ApiClient,
    agents: &mut [AgentProcess],
    display: &mut Display,
    count: usize,
) -> CliResult<Vec<WorkItem>> {
    let query = [("limit", count.to_string())];
    loop {
        complain(agents)?;
        let page: WorkPage = api.get(&["work"], &query).await?;
        display.show(&page.work_items);
        if page.work_items.iter().all(|item| item.terminal) {
            return Ok(page.work_items);
        }
        sleep(display::PERIOD).await;
    }
}

fn tell(out: Output, items: &[WorkItem]) -> CliResult {
    let lines = report::lines(items);
    if out.is_json() {
        return out.json(&json!({ "report": lines, "items": items }));
    }
    out.text("")?;
    out.table(&report::as_table(&lines), "nothing was done")
}
