//! `loom agent run`: any program becomes an agent.
//!
//! | file | what it does |
//! |---|---|
//! | [`args`] | the command line |
//! | [`probe`] | is the program there at all |
//! | [`identity`] | what it says that it is, to a coordinator and by a target |
//! | [`waiting`] | waits for a coordinator that is not up yet |
//! | [`program`] | the programs that Loom understands: Claude Code, Codex, Gemini CLI, Copilot CLI |
//! | [`runner`], [`item`], [`judge`] | one item: directory, hooks, program, verdict |
//! | [`workdir`], [`directory_name`] | its directory, which no other item has meanwhile |
//! | [`host`] | whether this host lets it work, and what waits until it does |
//! | [`execute`] | one program to its end: pipes, clocks, cancel |
//! | [`template`], [`environment`], [`feedback`] | what the program is told |
//! | [`lines`], [`capture`], [`result`] | what the program says |
//! | [`secrets`] | what must not be in it |
//! | [`exit_rule`] | what its exit code means |
//! | [`limit`], [`limit_presets`], [`reset_time`] | whether it has met a usage limit, and until when |
//! | [`rest`] | how long the agent rests then |
//! | [`agent_events`] | what a person who watches is told |
//! | [`inside`], [`socket`] | `loom work …` for the program inside, and how it is answered |
//! | [`private_dir`] | where the socket and the description lie |

pub mod agent_events;
pub mod args;
pub mod capture;
pub mod directory_name;
pub mod environment;
pub mod execute;
pub mod exit_rule;
pub mod feedback;

pub mod host;
pub mod identity;
pub mod inside;
pub mod item;
pub mod judge;
pub mod limit;
pub mod limit_met;
pub mod limit_presets;
pub mod lines;

pub mod plan;
pub mod private_dir;
pub mod probe;
pub mod program;
pub mod reset_time;
pub mod rest;
pub mod result;
pub mod runner;
pub mod secrets;
pub mod socket;
pub mod template;
pub mod waiting;

pub mod workdir;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use loom_client::{Agent, AgentBuilder, AgentStopper, Client, ClientOptions, ErrorKind};
use loom_protocol::AgentGuid;
use loom_protocol::token::check_label;

use agent_events::StatusPrinter;
pub use args::AgentRunArgs;
use execute::Bounds;
use exit_rule::ExitRules;
use host::Host;
use identity::{Identity, Told};
use limit::LimitPatterns;
use loom_process::warden::Warden;
use plan::Plan;
use program::Program;
use program::power::Power;
use program::run::{Launcher, shown_in_shell};
use runner::Runner;
use socket::broker::Line;
pub use waiting::Signals;

/// Exit codes, as the contract says.
const WORK_FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
/// Another run of the same guid is the agent now; starting this one again would only take its place.
const REPLACED: u8 = 4;
/// Its ticket is used, or its start was given up: starting it again would not help.
const TICKET_REFUSED: u8 = 5;

/// Runs an agent until it is told to end, or has done as many items as wanted. Says what is wrong on
/// standard error, and by the exit code: 1 the item of `--once` failed, 2 usage or no such program,
/// 3 NATS refuses the credentials, 4 another run of the same guid is the agent now, 5 the ticket of the target that
/// started it is refused. A server or a coordinator that is not there yet is waited for.
///
/// # Errors
/// Only what nobody can foresee.
pub async fn run(
    args: AgentRunArgs,
    options: ClientOptions,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    match live(args, options, signals).await? {
        Ok(code) => Ok(code),
        Err((code, problem)) => {
            agent_events::say(&format!("error: {problem}"));
            Ok(ExitCode::from(code))
        }
    }
}

/// An exit code and the sentence that goes with it.
type Refusal = (u8, String);

async fn live(
    args: AgentRunArgs,
    options: ClientOptions,
    mut signals: Signals,
) -> anyhow::Result<Result<ExitCode, Refusal>> {
    let (plan, identity) = match ready(&args) {
        Ok(known) => known,
        Err(problem) => return Ok(Err((USAGE, problem))),
    };
    let connect = async || Client::connect(options.clone()).await;
    let is_away = |error: &loom_client::ClientError| error.kind() == ErrorKind::Connect;
    let client = match waiting::until_there(&mut signals, connect, is_away).await {
        Ok(Some(client)) => client,
        Ok(None) => return Ok(Ok(ended_early(&args))),
        Err(error) => return Ok(Err(refusal(&error))),
    };
    let guid = args.guid.unwrap_or_else(AgentGuid::generate);
    let handle = args
        .handle
        .clone()
        .unwrap_or_else(|| loom_client::agent::default_handle(&identity.agent_type, guid));
    let agent = identity.describe(describe(&args, &client, guid), &args);
    let environment = environment::of_agent(guid, agent.instance_id(), &handle, client.options());
    let host = Arc::new(match host_of(&plan) {
        Ok(host) => host,
        Err(problem) => return Ok(Err((USAGE, problem))),
    });
    let known = plan.known.as_ref();
    let keys = known.map_or_else(Vec::new, |known| {
        environment::withheld_keys(known.withheld())
    });
    let keys = keys.join(", ");
    let warden = Warden::start(args.grace).inspect_err(|error| {
        tracing::warn!(%error, "nobody ends what programs have started if this agent is killed");
    });
    let line = Line {
        client: client.clone(),
        instance_id: agent.instance_id().to_owned(),
    };
    let runner = Runner::new(plan, handle.clone(), environment)
        .speaking_by(line)
        .letting_submit(&args.may_submit, args.slots)
        .guarded_by(warden.ok())
        .on_host(host.clone())
        .hiding(secrets::of(client.options(), &args.env));
    let runner = Arc::new(runner);
    private_dir::remove_stale();
    let (working, printer) = (runner.clone(), status_printer(&identity, &handle, &client));
    let (begun, here) = (printer.clone(), tokio::runtime::Handle::current());
    let agent = agent
        .handle(&handle)
        .on_notification(move |event| {
            let _runtime = here.enter();
            printer.print(event);
        })
        .start(move |job| {
            begun.begun();
            let runner = working.clone();
            async move { runner.work(job).await }
        });
    let agent = match agent {
        Ok(agent) => agent,
        Err(error) => return Ok(Err(refusal(&error))),
    };
    runner.set_stopper(agent.stopper());
    let started_by = match &identity.target {
        Some(target) => format!(", which target {target} has started,"),
        None => String::new(),
    };
    agent_events::say(&format!(
        "agent {handle} ({guid}){started_by} takes work of project {}",
        client.project()
    ));
    if !keys.is_empty() {
        agent_events::say(&format!(
            "withheld from the program: {keys} (it is signed in by itself, or --env NAME passes one on)"
        ));
    }
    if !identity.left_out.is_empty() {
        let left_out = identity.left_out.join(", ");
        agent_events::say(&format!(
            "not offered, because the target does not allow it: {left_out}"
        ));
    }
    let watching = tokio::spawn(host.watch(agent.stopper()));
    let signals = tokio::spawn(obey_signals(signals, agent.stopper(), args.drain()));
    let ended = agent.ended().await;
    signals.abort();
    watching.abort();
    let report = match ended {
        Ok(report) => report,
        Err(error) => return Ok(Err(refusal(&error))),
    };
    agent_events::say(&agent_events::summary_line(&report));
    Ok(match runner.program_gone() {
        Some(problem) => Err((USAGE, problem.to_owned())),
        None if args.once && report.completed == 0 => Ok(ExitCode::from(WORK_FAILED)),
        None => Ok(ExitCode::SUCCESS),
    })
}

/// Whether an agent could be run like that at all, as far as that can be told without a coordinator.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check(args: &AgentRunArgs) -> Result<(), String> {
    host_of(&ready(args)?.0).map(drop)
}

/// A plan whose program is there, and what the agent says that it is.
fn ready(args: &AgentRunArgs) -> Result<(Plan, Identity), String> {
    let plan = plan_of(args)?;
    if let Some(known) = &plan.known {
        known.look()?;
    }
    Ok((plan, identity_of(args)?))
}

/// What the agent says that it is.
fn identity_of(args: &AgentRunArgs) -> Result<Identity, String> {
    Identity::of(args, Told::by_environment())
}

/// What a plan needs of the host, tried out.
fn host_of(plan: &Plan) -> Result<Host, String> {
    let hooks = [&plan.before, &plan.after].into_iter().flatten();
    let mut texts = plan.command.iter().chain(hooks);
    let needs_temp = texts.any(|text| {
        text.contains("{descriptionFile}") || text.contains("LOOM_WORK_DESCRIPTION_FILE")
    });
    Host::new(plan.workdir.as_deref(), needs_temp)
}

/// Says that the agent was told to end before it had reached anybody; gives the code to end with.
pub fn ended_early(args: &AgentRunArgs) -> ExitCode {
    agent_events::say("the agent ended (a signal): no work came");
    if args.once {
        ExitCode::from(WORK_FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

fn refusal(error: &loom_client::ClientError) -> Refusal {
    if let Some(wire) = error.wire().filter(|_| error.is_replaced()) {
        return (REPLACED, wire.message.clone());
    }
    if let Some(wire) = error.wire().filter(|_| error.is_ticket_refused()) {
        let text = format!(
            "this would be a second birth: {}; whoever wants one more agent has its target start one",
            wire.message
        );
        return (TICKET_REFUSED, text);
    }
    let code = match error.kind() {
        ErrorKind::Options | ErrorKind::Refused(_) => USAGE,
        _ => UNREACHABLE,
    };
    (code, error.to_string())
}

/// How many spent attempts are enough for a known program, where nothing else is said.
const GIVE_UP_AFTER: u32 = 2;

/// What would be run, for people.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn preview(args: &AgentRunArgs) -> Result<String, String> {
    let plan = plan_of(args)?;
    if let Some(launcher) = &plan.known {
        return Ok(launcher.preview());
    }
    let words = plan.command.iter().map(|word| shown_in_shell(word));
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// A program that Loom understands, as the command line names it.
fn launcher_of(args: &AgentRunArgs, program: Program) -> Result<Launcher, String> {
    let power = Power::new(args.allow.unwrap_or_default(), args.may_run.clone())?;
    let give_up_after = args.give_up_after.unwrap_or(GIVE_UP_AFTER);
    let extra = args.command.clone();
    Launcher::new(program, power, extra, give_up_after, &args.env)
}

fn plan_of(args: &AgentRunArgs) -> Result<Plan, String> {
    let known = match args.program {
        Some(program) => Some(launcher_of(args, program)?),
        None if args.allow.is_some()
            || args.give_up_after.is_some()
            || !args.may_run.is_empty()
            || !args.env.is_empty() =>
        {
            return Err("--allow, --may-run, --env and --give-up-after need --program".into());
        }
        None => None,
    };
    for capability in &args.may_submit {
        check_label("--may-submit", capability).map_err(|error| error.to_string())?;
    }
    let mut command = args.command.clone();
    if known.is_none() {
        let program = command.first_mut().ok_or(
            "no program is given: name one behind `--`, like `-- ./review.py {description}`, or one that Loom understands by --program",
        )?;
        *program = probe::program(program)?;
    }
    let workdir = match &args.workdir {
        None => None,
        Some(dir) => Some(workdir_of(&dir.to_string_lossy())?),
    };
    for text in command.iter().chain(&workdir) {
        if let Some(problem) = template::unknown(text) {
            return Err(problem);
        }
    }
    let limits = match args.program {
        Some(program) => {
            LimitPatterns::of_program(&args.limit_patterns, program.adapter().preset())
        }
        None => LimitPatterns::new(&args.limit_patterns, &args.limit_presets),
    };
    Ok(Plan {
        stdin: args.stdin,
        result: args.result,
        workdir,
        before: args.before.clone(),
        after: args.after.clone(),
        bounds: Bounds {
            grace: args.grace,
            max_runtime: args.max_runtime(),
            silent_timeout: args.silent_timeout(),
        },
        rules: ExitRules::new(args.exit_rules.clone()),
        limits: limits?,
        command,
        known,
    })
}

/// `--workdir` as a template that differs from item to item.
fn workdir_of(dir: &str) -> Result<String, String> {
    let absolute = std::path::absolute(dir).map_err(|e| format!("--workdir {dir:?}: {e}"))?;
    let dir = absolute.to_string_lossy().into_owned();
    for name in template::NAMES {
        let braced = format!("{{{name}}}");
        if dir.contains(&braced) && !template::PATH_NAMES.contains(&name) {
            return Err(format!(
                "{braced} can't stand in --workdir; use one of {}",
                template::PATH_NAMES
                    .map(|name| format!("{{{name}}}"))
                    .join(" ")
            ));
        }
    }
    let dir = if template::has_placeholder(&dir) {
        dir
    } else {
        format!("{dir}/{{id}}")
    };
    directory_name::check(&dir)?;
    Ok(dir)
}

/// Who tells of this agent, and what it may take, in words.
fn status_printer(identity: &Identity, handle: &str, client: &Client) -> StatusPrinter {
    let capabilities = identity.capabilities.join(", ");
    let boundaries = match identity.boundaries.as_slice() {
        [] => "default".into(),
        some => some.join(", "),
    };
    let fits = format!("capabilities {capabilities}; boundaries {boundaries}");
    StatusPrinter::new(handle.into(), fits, client.clone())
}

fn describe(args: &AgentRunArgs, client: &Client, guid: AgentGuid) -> AgentBuilder {
    let mut agent = Agent::builder(client)
        .guid(guid)
        .slots(args.slots)
        // The program was told its attempt, and reports by it.
        .resume_lost(false)
        .grace(args.drain())
        .cancel_grace(args.grace + item::STOP_MARGIN);
    if let Some(group) = &args.limit_group {
        agent = agent.limit_group(group);
    }
    if let Some(idle) = args.spindown_after_idle {
        agent = agent.spindown_after_idle(idle);
    }
    match args.max_items {
        _ if args.once => agent.max_items(1),
        Some(items) => agent.max_items(items),
        None => agent,
    }
}

/// The first TERM, Ctrl-C or hang-up drains; the second stops everything at once.
async fn obey_signals(mut signals: Signals, stopper: AgentStopper, drain: Duration) {
    signals.next().await;
    stopper.shut_down("a signal", drain);
    signals.next().await;
    stopper.shut_down("a second signal", Duration::ZERO);
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
