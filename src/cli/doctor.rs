//! `loom doctor`: what is wrong, and what to do about it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use loom_actors::nats::server::{find_server, server_on};
use loom_actors::nats::store::space_at;
use loom_protocol::rest::{SpinUpsPage, Stats, Status, TargetTotals};
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use serde::Serialize;

use super::Context;
use super::down::{data_dir, survivor};
use super::exit::{CliError, CliResult};
use super::output::block;
use super::status::bytes;
use crate::api_client::ApiClient;
use crate::running::{Running, Standing};
use crate::settings::{Sources, load};

/// Look for what is wrong: the configuration, the nats-server, the disk, the coordinator, its projects and agents; exit
/// 1 where something is.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The data directory of the coordinator.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Ok,
    /// Worth a look.
    Warning,
    /// To be mended.
    Wrong,
}

/// What was found, in a sentence that says what to do.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    what: &'static str,
    sentence: String,
}

/// The findings so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, what: &'static str, sentence: impl Into<String>) {
        self.0.push(Finding {
            level,
            what,
            sentence: sentence.into(),
        });
    }
}

/// Looks everywhere, and says what it found.
pub async fn run(context: &Context, args: &DoctorArgs) -> CliResult {
    let mut findings = Findings::default();
    let running = look_here(context, args.data_dir.as_deref(), &mut findings);
    look_at_coordinator(&context.api()?, &running, &mut findings).await;
    let wrong = findings
        .0
        .iter()
        .filter(|f| f.level == Level::Wrong)
        .count();
    if context.out.is_json() {
        context.out.json(&findings.0)?;
    } else {
        for Finding {
            level,
            what,
            sentence,
        } in &findings.0
        {
            let mark = match level {
                Level::Ok => "ok     ",
                Level::Warning => "warning",
                Level::Wrong => "WRONG  ",
            };
            context
                .out
                .text(&block(&format!("{mark} {what}: {sentence}")))?;
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 thing is wrong".into())),
        count => Err(CliError::Failed(format!("{count} things are wrong"))),
    }
}

/// What can be seen on this machine without a coordinator; and which ones run here.
fn look_here(context: &Context, named: Option<&Path>, findings: &mut Findings) -> Vec<Running> {
    let sources = Sources::of_process(context.config_file(), Vec::new());
    let own_server = match load(&sources) {
        Ok(loaded) => {
            let file = loaded.file.as_ref().map(|path| path.display().to_string());
            let sentence = match file {
                Some(file) => format!("{file} is sound"),
                None => "no file; defaults and the environment are sound".into(),
            };
            findings.add(Level::Ok, "configuration", sentence);
            for warning in loaded.warnings() {
                findings.add(Level::Warning, "configuration", warning.to_string());
            }
            loaded.settings.nats.url.is_none()
        }
        Err(error) => {
            findings.add(
                Level::Wrong,
                "configuration",
                CliError::from(error).to_string(),
            );
            true
        }
    };
    let data_dir = data_dir(context, named);
    let running = data_dir.as_deref().map(Running::all).unwrap_or_default();
    let server = data_dir.as_deref().ok().and_then(server_on);
    if own_server {
        match (find_server(None), &server) {
            (Ok(path), _) => {
                findings.add(Level::Ok, "nats-server", path.display().to_string());
            }
            // The coordinator that runs has found one in its own environment.
            (Err(error), Some(server)) if !running.is_empty() => {
                let pid = server.pid.map(|pid| format!(" (pid {pid})"));
                let pid = pid.unwrap_or_default();
                let sentence = format!(
                    "that of the coordinator runs{pid}; from this environment none could be started: {error}"
                );
                findings.add(Level::Ok, "nats-server", sentence);
            }
            (Err(error), _) => findings.add(Level::Wrong, "nats-server", error.to_string()),
        }
    }
    let data_dir = match data_dir {
        Ok(data_dir) => data_dir,
        Err(error) => {
            findings.add(Level::Wrong, "data directory", error.to_string());
            return running;
        }
    };
    look_at_disk(&data_dir, findings);
    for one in &running {
        let standing = match one.standing {
            Standing::Starts => ", starts",
            Standing::StandsBy => ", stands by",
            Standing::Serves => "",
        };
        let sentence = format!("pid {}, API {}{standing}", one.pid, one.api);
        findings.add(Level::Ok, "process", sentence);
    }
    if running.is_empty()
        && let Some(left) = server
    {
        findings.add(Level::Warning, "nats-server", survivor(&left));
    }
    running
}

fn look_at_disk(data_dir: &Path, findings: &mut Findings) {
    let shown = data_dir.display();
    let Some(space) = data_dir.ancestors().find_map(space_at) else {
        return findings.add(
            Level::Warning,
            "disk",
            format!("how much is free at {shown} cannot be told"),
        );
    };
    let sentence = format!(
        "{} of {} free at {shown}",
        bytes(space.free),
        bytes(space.total)
    );
    if space.free < space.reserve() {
        let sentence = format!("{sentence}; submits are refused: free some, it goes on by itself");
        findings.add(Level::Wrong, "disk", sentence);
    } else {
        findings.add(Level::Ok, "disk", sentence);
    }
}

async fn look_at_coordinator(api: &ApiClient, running: &[Running], findings: &mut Findings) {
    let status: Status = match api.get(&["status"], &[]).await {
        Ok(status) => status,
        Err(error) => {
            let is_this = |one: &&Running| one.api == api.url();
            // That a standby waits is what it is for.
            let level = match running.iter().find(is_this).map(|one| one.standing) {
                Some(Standing::StandsBy) => Level::Ok,
                Some(Standing::Starts) => Level::Warning,
                Some(Standing::Serves) | None => Level::Wrong,
            };
            return findings.add(level, "coordinator", error.to_string());
        }
    };
    let sentence = format!(
        "version {}, pid {}, at {}",
        status.version,
        status.pid,
        api.url()
    );
    findings.add(Level::Ok, "coordinator", sentence);
    if status.version != env!("CARGO_PKG_VERSION") {
        findings.add(
            Level::Warning,
            "version",
            format!(
                "the coordinator is {}, this program is {}; start it again with the same one",
                status.version,
                env!("CARGO_PKG_VERSION")
            ),
        );
    }
    for problem in &status.readiness.problems {
        findings.add(Level::Wrong, "coordinator", problem.clone());
    }
    for parked in status.readiness.parked_projects() {
        findings.add(Level::Wrong, "project", parked);
    }
    for starting in status.readiness.starting_projects() {
        findings.add(Level::Warning, "project", starting);
    }
    for warning in &status.warnings {
        findings.add(Level::Warning, "store", warning.clone());
    }
    match api.get::<Stats>(&["stats"], &[]).await {
        Ok(stats) => {
            let starts = api.get::<SpinUpsPage>(&["spin-ups"], &[]).await;
            let operations = starts.map(|page| page.operations).unwrap_or_default();
            look_at_work(&stats, &starting(&operations), findings);
        }
        Err(error) => findings.add(Level::Wrong, "work", error.to_string()),
    }
}

/// The targets that are starting an agent, each once.
fn starting(operations: &[SpinUpOperation]) -> BTreeSet<&str> {
    let undecided = [SpinUpStatus::Pending, SpinUpStatus::InProgress];
    let under_way = operations.iter();
    let under_way = under_way.filter(|operation| undecided.contains(&operation.status));
    under_way.map(|start| start.target_name.as_str()).collect()
}

/// What is said where items wait and nobody is there: who is about to come, or what to do.
fn nobody_is_there(pending: usize, targets: &TargetTotals, starting: &BTreeSet<&str>) -> String {
    let waiting = format!("{pending} items wait and no agent is there that may take any");
    if !starting.is_empty() {
        let names: Vec<&str> = starting.iter().copied().collect();
        return format!(
            "{waiting}; one is being started by target {}; `loom spin-up list` says what becomes of it",
            names.join(", ")
        );
    }
    match targets.total - targets.disabled.min(targets.total) {
        0 => format!(
            "{waiting}; start one with `loom agent run --capability … -- COMMAND`, or add a target with `loom targets add`"
        ),
        _ => format!("{waiting}, and no target is starting one; `loom work explain ID` says why"),
    }
}

fn look_at_work(stats: &Stats, starting: &BTreeSet<&str>, findings: &mut Findings) {
    let of_status = |status: &str| stats.agents.by_status.get(status).copied().unwrap_or(0);
    let away = of_status("offline") + of_status("quarantined") + of_status("paused");
    match (stats.pending, stats.agents.total - away.min(stats.agents.total)) {
        (0, present) => findings.add(Level::Ok, "work", format!("nothing waits; {present} agents are there")),
        (pending, 0) => findings.add(
            Level::Warning,
            "work",
            nobody_is_there(pending, &stats.targets, starting),
        ),
        (pending, present) => findings.add(
            Level::Ok,
            "work",
            format!("{pending} items wait; {present} agents are there; `loom work explain ID` says why one waits"),
        ),
    }
    let quarantined = of_status("quarantined");
    if quarantined > 0 {
        findings.add(
            Level::Warning,
            "agents",
            format!("{quarantined} are quarantined after failing one item after the other; `loom agents --status quarantined` says why, `loom agents resume` lets them work again"),
        );
    }
    if stats.dead_letters.total > 0 {
        findings.add(
            Level::Warning,
            "dead letters",
            format!(
                "{} items were given up; `loom dlq` says why",
                stats.dead_letters.total
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_is_there_it_names_who_comes_or_what_to_do() {
        let of = |total, disabled, starting: &[&str]| {
            let targets = TargetTotals {
                total,
                disabled,
                ..TargetTotals::default()
            };
            nobody_is_there(3, &targets, &starting.iter().copied().collect())
        };
        assert!(of(2, 0, &["b", "a", "b"]).contains("being started by target a, b;"));
        assert!(of(2, 1, &[]).contains("no target is starting one; `loom work explain"));
        for nobody in [of(0, 0, &[]), of(2, 2, &[])] {
            assert!(
                nobody.contains("start one with `loom agent run"),
                "{nobody}"
            );
        }
    }
}
