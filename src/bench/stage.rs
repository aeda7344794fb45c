//! What a run needs: a nats-server, a coordinator as a process of its own, two connections.

use std::process::Stdio;
use std::time::Duration;

use loom_actors::nats::connection::{Nats, NatsOptions};
use loom_actors::nats::server::{ManagedOptions, ManagedServer, Profile};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::cpu::{CpuTimes, spent_by};
use super::failed;
use crate::cli::exit::{CliError, CliResult};
use crate::coordinator::UpError;

/// How long the coordinator may take until it answers: with a large backlog it reads for a while.
const UP_WITHIN: Duration = Duration::from_mins(5);
/// How long it may take to end.
const DOWN_WITHIN: Duration = Duration::from_secs(15);
/// How long a coordinator of somebody else may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Everything that runs while something is measured. Dropped, it ends what it has started.
pub(super) struct Stage {
    /// The connection of the raw measurements.
    pub raw: Nats,
    /// The connection of the client and its agents.
    pub client: Nats,
    coordinator: Option<Child>,
    server: Option<ManagedServer>,
    folder: TempDir,
}

impl Stage {
    /// Uses the server at `url`, with its coordinator if one answers there; starts what is missing.
    /// `settings` are given to a coordinator that is started, as `--set`.
    pub async fn open(url: Option<&str>, settings: &[&str]) -> CliResult<Self> {
        let folder = tempfile::Builder::new().prefix("loom-bench-").tempdir()?;
        let server = match url {
            Some(_) => None,
            None => Some(start_server(&folder).await?),
        };
        let url = match (&server, url) {
            (Some(server), _) => server.client_url(),
            (None, url) => url.unwrap_or_default().to_owned(),
        };
        let raw = connect(&url, "loom bench, raw").await?;
        let client = connect(&url, "loom bench").await?;
        let coordinator = if server.is_none() && has_coordinator(&client).await {
            None
        } else {
            Some(start_coordinator(&url, &folder, settings).await?)
        };
        Ok(Self {
            raw,
            client,
            coordinator,
            server,
            folder,
        })
    }

    /// The process of the coordinator that this run has started.
    pub fn coordinator_pid(&self) -> CliResult<u32> {
        self.coordinator_id().ok_or_else(|| {
            CliError::Failed("the coordinator has ended; see what it says above".into())
        })
    }

    fn coordinator_id(&self) -> Option<u32> {
        self.coordinator.as_ref()?.id()
    }

    /// Kills the coordinator that this run has started, and starts it again.
    pub async fn restart_coordinator(&mut self) -> CliResult {
        if let Some(mut coordinator) = self.coordinator.take() {
            coordinator.kill().await?;
        }
        let url = self
            .server
            .as_ref()
            .map_or_else(|| self.client.shown_url.clone(), ManagedServer::client_url);
        self.coordinator = Some(start_coordinator(&url, &self.folder, &[]).await?);
        Ok(())
    }

    /// Whether nothing of this run outlives it.
    pub const fn is_private(&self) -> bool {
        self.server.is_some()
    }

    /// What all processes have spent so far.
    pub fn cpu_times(&self) -> CpuTimes {
        let server = self.server.as_ref().and_then(ManagedServer::pid);
        CpuTimes {
            client: spent_by(std::process::id()),
            coordinator: self.coordinator_id().and_then(spent_by),
            server: server.and_then(spent_by),
        }
    }

    /// Ends in order what this run has started.
    pub async fn close(mut self) {
        if let Some(mut coordinator) = self.coordinator.take() {
            let pid = coordinator.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // It fails only where the process has ended already.
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = tokio::time::timeout(DOWN_WITHIN, coordinator.wait()).await;
        }
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }
}

async fn start_server(folder: &TempDir) -> CliResult<ManagedServer> {
    let options = ManagedOptions {
        profile: Profile::Fast,
        ..ManagedOptions::new(folder.path().to_owned())
    };
    let server = ManagedServer::start(options).await;
    server.map_err(|error| UpError::from(error).into())
}

async fn connect(url: &str, name: &str) -> CliResult<Nats> {
    let options = NatsOptions {
        url: url.to_owned(),
        name: name.into(),
        ..NatsOptions::default()
    };
    let nats = Nats::connect(&options).await;
    nats.map_err(|error| UpError::from(error).into())
}

async fn has_coordinator(nats: &Nats) -> bool {
    let info = nats.client.request("coord.global.info", "{}".into());
    matches!(tokio::time::timeout(ANSWER_WITHIN, info).await, Ok(Ok(_)))
}

/// Starts this very program as `loom up`, and waits until it says that it is up.
async fn start_coordinator(url: &str, folder: &TempDir, settings: &[&str]) -> CliResult<Child> {
    let starting = "the coordinator cannot be started";
    let program = std::env::current_exe().map_err(|error| failed(starting, error))?;
    let mut command = Command::new(program);
    command
        .args(["up", "--port", "0", "--log-level", "warn,async_nats=error"])
        .args(["--nats-url", url])
        .arg("--data-dir")
        .arg(folder.path().join("coordinator"))
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .current_dir(folder.path())
        .env_remove("LOOM_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(starting, error))?;
    let stdout = child.stdout.take();
    let mut lines = stdout.map(|stdout| BufReader::new(stdout).lines());
    let up = async {
        match &mut lines {
            Some(lines) => lines.next_line().await.ok().flatten(),
            None => None,
        }
    };
    match tokio::time::timeout(UP_WITHIN, up).await {
        Ok(Some(_)) => Ok(child),
        _ => Err(CliError::Unreachable(
            "the coordinator did not come up; see what it says above".into(),
        )),
    }
}
