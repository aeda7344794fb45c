//! `loom up`: the coordinator.

mod detached;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Context;
use super::exit::CliResult;
use crate::coordinator::{self, UpOptions};
use crate::settings::{Loaded, Override, Sources, load};

/// Start the coordinator, with a nats-server of its own where no URL is given.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The NATS server to use; without it, one of our own is started.
    #[arg(long, value_name = "URL")]
    nats_url: Option<String>,
    /// Where our own nats-server listens.
    #[arg(long, value_name = "ADDRESS")]
    nats_listen: Option<SocketAddr>,
    /// Where our own nats-server keeps its store.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How our own nats-server writes: `safe` or `fast`.
    #[arg(long)]
    profile: Option<String>,
    /// The address of the REST API.
    #[arg(long)]
    host: Option<String>,
    /// The port of the REST API; 0 takes any free one.
    #[arg(long)]
    port: Option<u16>,
    /// Any other key of the configuration; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = set)]
    set: Vec<(String, String)>,
    /// Where another coordinator owns this NATS, wait and take over when it is gone.
    #[arg(long)]
    standby: bool,
    /// In the background: returns when it serves, or stands by; its log is loom.log in the data directory, `loom down` ends it.
    #[arg(short, long)]
    detach: bool,
}

pub(super) fn set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.contains('.') => Ok((key.trim().into(), value.trim().into())),
        _ => Err("write section.key=value, like agents.stale_after=1m".into()),
    }
}

/// What `--set` asks for.
pub(super) fn overrides(set: &[(String, String)]) -> impl Iterator<Item = Override> {
    set.iter().map(|(key, value)| Override {
        flag: "--set".into(),
        key: key.clone(),
        value: value.clone(),
    })
}

impl UpArgs {
    /// The settings with what the flags say.
    fn settings(&self, context: &Context) -> CliResult<Loaded> {
        let data_dir = self.data_dir.as_ref().map(|dir| dir.display());
        let project = context.globals.project.as_ref();
        let named = [
            Override::given("--nats-url", "nats.url", self.nats_url.as_ref()),
            Override::given("--nats-listen", "nats.listen", self.nats_listen),
            Override::given("--data-dir", "nats.data_dir", data_dir),
            Override::given("--profile", "nats.profile", self.profile.as_ref()),
            Override::given("--host", "api.host", self.host.as_ref()),
            Override::given("--port", "api.port", self.port),
            Override::given("--project", "projects.default", project),
        ];
        let flags = named.into_iter().flatten().chain(overrides(&self.set));
        let flags = flags.collect();
        Ok(load(&Sources::of_process(context.config_file(), flags))?)
    }
}

/// Runs until it is told to end; or starts a process that does.
pub async fn run(context: &Context, args: &UpArgs) -> CliResult<ExitCode> {
    let loaded = args.settings(context)?;
    if args.detach {
        let data_dir = coordinator::data_directory(&loaded.settings.nats)?;
        return detached::run(context, &data_dir).await;
    }
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    let options = UpOptions {
        standby: args.standby,
        ..UpOptions::default()
    };
    coordinator::run(loaded.settings, options).await?;
    Ok(ExitCode::SUCCESS)
}
