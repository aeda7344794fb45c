//! `loom agent run`: any program becomes an agent. Talks NATS, and asks the API only where that is.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use loom_agent::args::Stdin;
use loom_agent::program::Program;
use loom_agent::result::ResultForm;
use loom_agent::{AgentRunArgs, Signals, waiting};
use loom_client::{ClientOptions, Credentials};
use loom_protocol::rest::Info;

use super::Context;
use super::exit::{CliError, CliResult};
use crate::settings::ProjectsSettings;

/// The process with whose end this one is to end too; set by whoever starts agents for a while only.
pub const PARENT_VARIABLE: &str = "LOOM_END_WITH_PID";

/// Be an agent.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Make any program an agent: it is run once for each work item
    Run(Box<RunArgs>),
    /// Short for `run --program claude`: Claude Code becomes an agent
    Claude(Box<RunArgs>),
    /// Short for `run --program codex`: OpenAI Codex becomes an agent
    Codex(Box<RunArgs>),
    /// Short for `run --program gemini`: Gemini CLI becomes an agent
    Gemini(Box<RunArgs>),
    /// Short for `run --program copilot`: GitHub Copilot CLI becomes an agent
    Copilot(Box<RunArgs>),
    /// Ends the programs of an agent that was killed; an agent starts it by itself
    #[command(hide = true)]
    Warden(WardenArgs),
}

#[derive(Debug, Args)]
struct WardenArgs {
    /// What lies between TERM and KILL.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    grace: Duration,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The NATS server; without it NATS_URL, or what the coordinator at --url says.
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    #[command(flatten)]
    agent: AgentRunArgs,
}

/// Runs an agent, and gives the code to end with.
pub async fn run(context: &Context, args: AgentArgs) -> CliResult<ExitCode> {
    let args = match args.command {
        AgentCommand::Run(args) => args,
        AgentCommand::Claude(args) => known(args, Program::Claude)?,
        AgentCommand::Codex(args) => known(args, Program::Codex)?,
        AgentCommand::Gemini(args) => known(args, Program::Gemini)?,
        AgentCommand::Copilot(args) => known(args, Program::Copilot)?,
        AgentCommand::Warden(args) => {
            let kept = loom_process::warden::keep(args.grace).await;
            kept.map_err(|error| CliError::Failed(format!("the warden: {error}")))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if args.agent.print {
        let shown = loom_agent::preview(&args.agent).map_err(CliError::Usage)?;
        context.out.text(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    end_with_parent()?;
    // What is wrong with the command line is told before anything is waited for.
    loom_agent::check(&args.agent).map_err(CliError::Usage)?;
    let mut signals = Signals::listen()
        .map_err(|error| CliError::Failed(format!("signals can't be listened to: {error}")))?;
    let options = async || client_options(context, args.nats_url.clone()).await;
    // A coordinator that starts or stands by says so.
    let is_away = |error: &CliError| match error {
        CliError::Refused(code, _) => code.is_transient(),
        error => matches!(error, CliError::Unreachable(_)),
    };
    let options = waiting::until_there(&mut signals, options, is_away).await?;
    let Some(options) = options else {
        return Ok(loom_agent::ended_early(&args.agent));
    };
    loom_agent::run(args.agent, options, signals)
        .await
        .map_err(|error| CliError::Failed(format!("{error:#}")))
}

/// The arguments of the short form for a program.
fn known(mut args: Box<RunArgs>, program: Program) -> CliResult<Box<RunArgs>> {
    let named = args.agent.program.replace(program);
    if named.is_some_and(|named| named != program) {
        return Err(CliError::Usage(
            "two programs are named; leave --program out".into(),
        ));
    }
    let args_of_commands = [
        (args.agent.stdin != Stdin::None, "--stdin"),
        (args.agent.result != ResultForm::Auto, "--result"),
        (!args.agent.exit_rules.is_empty(), "--exit-code"),
        (!args.agent.limit_presets.is_empty(), "--limit-preset"),
    ];
    match args_of_commands.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, flag)) => Err(CliError::Usage(format!(
            "{flag} is for other programs; of this one it is known"
        ))),
        None => Ok(args),
    }
}

/// How to reach NATS: the flag, the environment, or what the coordinator says.
async fn client_options(context: &Context, flag: Option<String>) -> CliResult<ClientOptions> {
    let named = flag
        .or_else(|| variable("NATS_URL"))
        .or_else(|| variable("LOOM_NATS_URL"));
    let project = match context.project()? {
        Some(project) => project,
        None => ProjectsSettings::default().default,
    };
    let url = match named {
        Some(url) => url,
        None => learn_url(context).await?,
    };
    let mut options = ClientOptions::new(url, project);
    options.name = "loom agent run".into();
    if let Some(file) = variable("NATS_CREDS") {
        options.credentials = Credentials::File(PathBuf::from(file));
    } else if let (Some(user), Some(password)) = (variable("NATS_USER"), variable("NATS_PASS")) {
        options.credentials = Credentials::UserPassword(user, password);
    }
    Ok(options)
}

async fn learn_url(context: &Context) -> CliResult<String> {
    let api = context.api()?;
    let info: Info = api.get(&["info"], &[]).await.map_err(|error| {
        let error = CliError::from(error);
        let text = format!("NATS_URL is not set, and {error}");
        match error {
            CliError::Refused(code, _) => CliError::Refused(code, text),
            CliError::Usage(_) => CliError::Usage(text),
            _ => CliError::Unreachable(text),
        }
    })?;
    info.nats_url.ok_or_else(|| {
        let message = format!(
            "the coordinator at {} does not tell where NATS is; set NATS_URL",
            api.url()
        );
        CliError::Usage(message)
    })
}

/// A variable of the environment; an empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Asks the system for a signal when the parent dies, where the parent wants that.
#[cfg(target_os = "linux")]
fn end_with_parent() -> CliResult {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    let Some(parent) = variable(PARENT_VARIABLE) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| CliError::Failed(format!("cannot watch the parent process: {error}")))?;
    // One that died before the call above is not noticed any more.
    match getppid() {
        Some(pid) if pid.to_string() == parent => Ok(()),
        _ => Err(CliError::Failed("the parent process is gone".into())),
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent() -> CliResult {
    Ok(())
}
