//! The command line. Commands talk REST; `up` and `config` read the settings.
//!
//! | module | commands |
//! |---|---|
//! | [`up`], [`down`] | `loom up`, `loom down` |
//! | [`status`], [`doctor`] | `loom status`, `loom doctor` |
//! | [`agent`] | `loom agent run` |
//! | [`init`] | `loom init` |
//! | [`submit`], [`tasks_file`] | `loom submit` |
//! | [`work`], [`watch`], `waiting` | `loom work` |
//! | [`agents`] | `loom agents` |
//! | [`targets`] | `loom targets` |
//! | [`spin_up`] | `loom spin-up` |
//! | [`queue`] | `loom queue` |
//! | [`gc`] | `loom gc` |
//! | [`dlq`] | `loom dlq` |
//! | [`store`] | `loom store` |
//! | [`stats`] | `loom stats`, `loom projects` |
//! | [`events`], `following` | `loom events` |
//! | [`config`] | `loom config` |
//! | [`mod@bench`] | `loom bench` |
//! | [`exit`], [`output`], [`table`], `terminal`, `times`, `naming`, `pages`, `everywhere`, `each` | how they end, how they print, what they have in common |

pub mod agent;
pub mod agents;
pub mod bench;
pub mod config;
pub mod dlq;
pub mod doctor;
pub mod down;
mod each;
pub mod events;
mod everywhere;
pub mod exit;
mod following;
pub mod gc;
pub mod init;
mod naming;
pub mod output;
mod pages;
pub mod queue;
mod show;
pub mod spin_up;
pub mod stats;
pub mod status;
pub mod store;
pub mod submit;
pub mod table;
pub mod targets;
pub mod tasks_file;
mod terminal;
mod times;
mod unreadable;
pub mod up;
mod waiting;
pub mod watch;
pub mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use loom_protocol::ProjectId;
use loom_protocol::rest::Info;

use crate::api_client::{ApiClient, DEFAULT_URL};
use crate::demo::{self, DemoArgs};
use crate::service::threads;
use crate::settings::Secret;
use crate::telemetry::{self, LogFormat};
use exit::{CliError, CliResult};
use output::Output;

/// Coordinates fleets of AI coding agents over NATS: durable work, leases, supervision.
#[derive(Debug, Parser)]
#[command(name = "loom", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Globals {
    /// The coordinator to talk to; without it LOOM_API_URL, or http://127.0.0.1:3000.
    // What clap reads from the environment by itself it shows in usage lines as if it had been asked for.
    #[arg(long, global = true)]
    url: Option<String>,
    /// The bearer token for it; better given as LOOM_API_TOKEN in the environment.
    #[arg(long, global = true, value_parser = token)]
    token: Option<Secret>,
    /// The project; without it LOOM_PROJECT_ID, or the coordinator's default.
    #[arg(long, global = true)]
    project: Option<ProjectId>,
    /// All projects: for listings, sums and events.
    #[arg(long, short = 'A', global = true, conflicts_with = "project")]
    all_projects: bool,
    /// Print JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    json: bool,
    /// What to log to stderr: error, warn, info, debug, trace, or module=level; without it LOG_LEVEL.
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How to write log lines.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// The configuration file; without it LOOM_CONFIG, or `loom.toml` in the working directory, if it is there.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A variable of the environment; an empty one is not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn token(text: &str) -> Result<Secret, String> {
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("a token is printable ASCII without spaces".into());
    }
    Ok(Secret::new(text))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the coordinator, with a nats-server of its own where no URL is given
    Up(Box<up::UpArgs>),
    /// End the coordinator that runs on this machine
    Down(down::DownArgs),
    /// Say how the coordinator is: NATS, its store and disk, ownership, projects
    Status,
    /// Say what is wrong, and what to do
    Doctor(doctor::DoctorArgs),
    /// See agents finish work: everything is started here, and removed at the end
    Demo(DemoArgs),
    /// Write into AGENTS.md and CLAUDE.md how agents here use Loom
    Init(init::InitArgs),
    /// Be an agent
    Agent(Box<agent::AgentArgs>),
    /// Submit work: one item, or many from a file of JSON lines
    Submit(Box<submit::SubmitArgs>),
    /// List, show, watch, cancel and explain work items
    Work(Box<work::WorkArgs>),
    /// List, show, shut down and resume agents
    Agents(Box<agents::AgentsArgs>),
    /// List, show, add, change, switch and remove targets: where agents can be started
    Targets(Box<targets::TargetsArgs>),
    /// Start an agent at a target now; list and show starts
    SpinUp(Box<spin_up::SpinUpArgs>),
    /// Say what waits, by capability; cancel what waits
    Queue(queue::QueueArgs),
    /// Mark, bury and send home whose time has come; or only say who that is
    Gc(gc::GcArgs),
    /// List, show, put back and discard dead letters: work that was given up
    Dlq(Box<dlq::DlqArgs>),
    /// Count agents and work
    Stats,
    /// List the projects
    Projects(stats::ProjectsArgs),
    /// Show which store is worked with, list what is lost with one, and go on with another
    Store(store::StoreArgs),
    /// Show and check the configuration of the coordinator
    Config(config::ConfigArgs),
    /// Measure throughput and latency beside the raw limit of NATS
    Bench(bench::MeasureArgs),
    /// Print what happens, as it happens
    Events(events::EventsArgs),
    /// Print completions for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

impl Command {
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Up(_) => telemetry::SERVER_LEVEL,
            Self::Agent(_) => telemetry::AGENT_LEVEL,
            _ => telemetry::COMMAND_LEVEL,
        }
    }
}

/// What every command gets.
#[derive(Debug, Clone)]
pub struct Context {
    globals: Globals,
    /// Where it prints.
    pub out: Output,
}

impl Context {
    fn new(globals: Globals) -> Self {
        let out = Output::new(globals.json);
        Self { globals, out }
    }

    /// The project that the command line names, or the environment.
    ///
    /// # Errors
    /// The environment names one that is no project id.
    pub fn project(&self) -> CliResult<Option<ProjectId>> {
        if let Some(project) = &self.globals.project {
            return Ok(Some(project.clone()));
        }
        // The second is the old name of the first.
        for name in ["LOOM_PROJECT_ID", "LOOMINAL_PROJECT_ID"] {
            if let Some(id) = variable(name) {
                let project = ProjectId::new(&id)
                    .map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
                return Ok(Some(project));
            }
        }
        Ok(None)
    }

    /// The configuration file that the command line or the environment names.
    pub fn config_file(&self) -> Option<PathBuf> {
        let file = self.globals.config.clone();
        file.filter(|path| !path.as_os_str().is_empty())
            .or_else(|| variable("LOOM_CONFIG").map(PathBuf::from))
    }

    /// Whether the command is about all projects.
    pub const fn is_everywhere(&self) -> bool {
        self.globals.all_projects
    }

    /// The coordinator that the command talks to, about one project or none in particular.
    ///
    /// # Errors
    /// Its URL or the project cannot be read; all projects are asked for.
    pub fn api(&self) -> CliResult<ApiClient> {
        if self.is_everywhere() {
            let message = "--all-projects is for listings, sums and events; name one --project";
            return Err(CliError::Usage(message.into()));
        }
        self.api_of(self.project()?)
    }

    /// The same for a listing: about the default project where none is named, or about all.
    pub async fn api_of_listing(&self) -> CliResult<ApiClient> {
        if self.is_everywhere() {
            return self.api_of(None);
        }
        if let Some(project) = self.project()? {
            return self.api_of(Some(project));
        }
        let api = self.api_of(None)?;
        let info: Info = api.get(&["info"], &[]).await?;
        // A coordinator of before says nothing of it, and means it.
        Ok(match ProjectId::new(&info.default_project) {
            Ok(project) => api.of_project(project),
            Err(_) => api,
        })
    }

    fn api_of(&self, project: Option<ProjectId>) -> CliResult<ApiClient> {
        let given = self.globals.url.clone().filter(|url| !url.is_empty());
        let url = given.or_else(|| variable("LOOM_API_URL"));
        let given = self.globals.token.clone();
        let token = match given.filter(|token| !token.expose().is_empty()) {
            Some(token) => Some(token),
            None => variable("LOOM_API_TOKEN")
                .map(|text| token(&text))
                .transpose()
                .map_err(|error| CliError::Usage(format!("LOOM_API_TOKEN: {error}")))?,
        };
        let url = url.as_deref().unwrap_or(DEFAULT_URL);
        Ok(ApiClient::new(url, token, project)?)
    }
}

/// Reads the command line, does what it says and gives the code to end with.
pub fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    let json = globals.json;
    match start(globals, command) {
        Ok(code) => code,
        Err(error) => error.report(json),
    }
}

fn start(globals: Globals, command: Command) -> CliResult<ExitCode> {
    let given = globals.log_level.clone().filter(|level| !level.is_empty());
    let level = given.or_else(|| variable("LOG_LEVEL"));
    let level = level.as_deref().unwrap_or(command.log_level());
    telemetry::init(level, globals.log_format)
        .map_err(|error| CliError::Usage(format!("--log-level: {error}")))?;
    let runtime = runtime()
        .map_err(|error| CliError::Failed(format!("cannot start the runtime: {error}")))?;
    let context = Context::new(globals);
    runtime.block_on(run(&context, command))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads())
        .enable_all()
        .build()
}

async fn run(context: &Context, command: Command) -> CliResult<ExitCode> {
    match command {
        Command::Agent(args) => return agent::run(context, *args).await,
        Command::Work(args) => return work::run(context, *args).await,
        Command::Up(args) => return Box::pin(up::run(context, &args)).await,
        Command::Down(args) => down::run(context, &args).await,
        Command::Status => status::run(context).await,
        Command::Doctor(args) => doctor::run(context, &args).await,
        Command::Demo(args) => demo::run(context.out, &args).await,
        Command::Init(args) => init::run(context, &args),
        Command::Submit(args) => submit::run(context, *args).await,
        Command::Agents(args) => agents::run(context, *args).await,
        Command::Targets(args) => targets::run(context, *args).await,
        Command::SpinUp(args) => spin_up::run(context, *args).await,
        Command::Gc(args) => gc::run(context, &args).await,
        Command::Queue(args) => queue::run(context, args).await,
        Command::Dlq(args) => dlq::run(context, *args).await,
        Command::Stats => stats::stats(context).await,
        Command::Projects(args) => stats::projects(context, args).await,
        Command::Store(args) => store::run(context, args).await,
        Command::Config(args) => config::run(context, &args),
        Command::Events(args) => events::run(context, &args).await,
        Command::Bench(args) => bench::run(context, &args).await,
        Command::Completions { shell } => completions(context, shell),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn completions(context: &Context, shell: clap_complete::Shell) -> CliResult {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "loom", &mut script);
    context.out.text(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
