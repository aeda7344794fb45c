//! What a run needs: a coordinator as a process of its own, and connections.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use loom_client::{Client, ClientOptions};
use loom_process::{OwnChild, ParentDeath};
use loom_protocol::ProjectId;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::cpu::{CpuTimes, spent_by};
use super::requests::{ANSWER_WITHIN, LONG_ANSWER_WITHIN, Requests};
use super::{BenchError, BenchResult, Server, failed};

/// How long the coordinator may take until it answers: with a large backlog it reads for a while.
const UP_WITHIN: Duration = Duration::from_mins(5);
/// How long it may take to end.
const DOWN_WITHIN: Duration = Duration::from_secs(15);
/// How long a coordinator of somebody else may take to answer.
const FOUND_WITHIN: Duration = Duration::from_secs(2);
/// The project of the connection that measures the raw limit. It asks nothing of Loom.
const RAW: &str = "loom-bench";

/// Everything that runs while something is measured. Dropped, it ends what it has started.
pub(super) struct Stage {
    /// The connection of the raw measurements.
    pub raw: Client,
    program: PathBuf,
    server: Server,
    coordinator: Option<OwnChild>,
    folder: TempDir,
}

impl Stage {
    /// Uses `server`, with its coordinator if one answers there; starts one of `program` where it is missing, with
    /// `settings` as `--set`.
    pub async fn open(program: &Path, server: Server, settings: &[&str]) -> BenchResult<Self> {
        let folder = tempfile::Builder::new().prefix("loom-bench-").tempdir();
        let mut stage = Self {
            raw: connect(&server.url, "loom bench, raw", RAW).await?,
            program: program.to_owned(),
            server,
            coordinator: None,
            folder: folder.map_err(|error| failed("a temporary folder", error))?,
        };
        if stage.is_private() || !stage.has_coordinator().await {
            stage.start_coordinator(settings).await?;
        }
        Ok(stage)
    }

    /// A client of one project, on a connection of its own.
    pub async fn requests(&self, project: &str) -> BenchResult<Requests> {
        let client = connect(&self.server.url, "loom bench", project).await?;
        Ok(Requests::new(client))
    }

    /// The process of the coordinator that this run has started.
    pub fn coordinator_pid(&self) -> BenchResult<u32> {
        self.coordinator_id().ok_or_else(|| {
            BenchError::Failed("the coordinator has ended; see what it says above".into())
        })
    }

    fn coordinator_id(&self) -> Option<u32> {
        let running = self.coordinator.as_ref().filter(|child| !child.has_ended());
        running.map(OwnChild::pid)
    }

    /// Kills the coordinator that this run has started, and starts it again.
    pub async fn restart_coordinator(&mut self) -> BenchResult {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.signal(Signal::KILL);
            coordinator.ended().await;
        }
        self.start_coordinator(&[]).await
    }

    /// Whether nothing of this run outlives it.
    pub const fn is_private(&self) -> bool {
        self.server.own_pid.is_some()
    }

    /// What all processes have spent so far.
    pub fn cpu_times(&self) -> CpuTimes {
        CpuTimes {
            client: spent_by(std::process::id()),
            coordinator: self.coordinator_id().and_then(spent_by),
            server: self.server.own_pid.and_then(spent_by),
        }
    }

    /// Ends in order what this run has started.
    pub async fn close(mut self) {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.signal(Signal::TERM);
            let _ = tokio::time::timeout(DOWN_WITHIN, coordinator.ended()).await;
        }
    }

    async fn has_coordinator(&self) -> bool {
        let info = self.raw.nats().request("coord.global.info", "{}".into());
        matches!(tokio::time::timeout(FOUND_WITHIN, info).await, Ok(Ok(_)))
    }

    /// Starts `loom up`, and waits until it says that it is up.
    async fn start_coordinator(&mut self, settings: &[&str]) -> BenchResult {
        let starting = |error: io::Error| failed("the coordinator cannot be started", error);
        let (reader, writer) = io::pipe().map_err(starting)?;
        let reader = pipe::Receiver::from_owned_fd(reader.into()).map_err(starting)?;
        let mut command = Command::new(&self.program);
        command
            .args(["up", "--port", "0", "--log-level", "warn,async_nats=error"])
            .args(["--nats-url", &self.server.url])
            .arg("--data-dir")
            .arg(self.folder.path().join("coordinator"))
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(self.folder.path())
            .env_remove("LOOM_CONFIG")
            .stdin(Stdio::null())
            .stdout(writer);
        let child = OwnChild::spawn(command, ParentDeath::Kill).await;
        self.coordinator = Some(child.map_err(starting)?);
        let mut lines = BufReader::new(reader).lines();
        match tokio::time::timeout(UP_WITHIN, lines.next_line()).await {
            Ok(Ok(Some(_))) => Ok(()),
            _ => Err(BenchError::Unreachable(
                "the coordinator did not come up; see what it says above".into(),
            )),
        }
    }
}

async fn connect(url: &str, name: &str, project: &str) -> BenchResult<Client> {
    let project = ProjectId::new(project).map_err(|error| failed("the project", error))?;
    let mut options = ClientOptions::new(url, project);
    options.name = name.into();
    options.request_timeout = LONG_ANSWER_WITHIN;
    options.request_deadline = ANSWER_WITHIN;
    let client = Client::connect(options).await;
    client.map_err(|error| BenchError::Unreachable(error.to_string()))
}
