//! A coordinator as a process, with targets whose agents are real: `loom agent run`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use loom_process::stat;
use loom_protocol::target::SpinUpOperation;
use loom_protocol::{ProjectId, WireError};
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program under test.
pub(crate) const LOOM: &str = env!("CARGO_BIN_EXE_loom");
/// Something secret of the coordinator's that no agent is to see.
pub(crate) const SECRET: &str = "swordfish-of-the-coordinator";
/// The variable by which the processes of a house are known.
const MARK: &str = "FOLDER";

/// A coordinator with a secret in its environment, and a project for a test.
pub(crate) struct House {
    pub coordinator: LoomProcess,
    pub project: TestProject,
    pub id: ProjectId,
    // Dropped last: nobody is left without its server.
    pub nats: TestNats,
    folder: TempDir,
}

impl House {
    pub async fn open() -> Result<Self> {
        Self::with(&[]).await
    }

    /// With these keys of the configuration.
    pub async fn with(settings: &[(&str, &str)]) -> Result<Self> {
        let nats = TestNats::start().await?;
        let id = TestNats::unique_project();
        let mut coordinator = LoomUp::new(LOOM)
            .on_nats(nats.url())
            .argument("--log-level")
            .argument("trace")
            .set("agents.heartbeat_every", "300ms")
            .set("agents.stale_after", "3s")
            .set("agents.idle_timeout", "1s")
            .set("agents.idle_grace", "5s")
            .env("SECRET_OF_MINE", SECRET);
        for (key, value) in settings {
            coordinator = coordinator.set(key, value);
        }
        let coordinator = coordinator.start().await?;
        let project = TestProject::of_process(id.clone(), &nats.url()).await?;
        Ok(Self {
            coordinator,
            project,
            id,
            nats,
            folder: tempfile::tempdir()?,
        })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// A target whose command is `loom agent run` with this script as its program.
    pub async fn target(&self, options: &[&str], script: &str) -> Result<Value> {
        let mut args = vec!["agent", "run"];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        self.target_of(json!({"command": LOOM, "args": args})).await
    }

    /// A target with this configuration of the mechanism `local`.
    pub async fn target_of(&self, mut config: Value) -> Result<Value> {
        config["env"] = json!({MARK: self.folder()});
        let target = json!({
            "name": "here", "agentType": "parrot", "capabilities": ["rust"], "mechanism": "local",
            "config": config,
        });
        Ok(self.project.request("targets.register", target).await?)
    }

    pub async fn seen(&self) -> Option<Value> {
        let request = json!({"target": "here"});
        self.project.request("targets.get", request).await.ok()
    }

    /// The starts of agents, the latest first.
    pub async fn operations(&self) -> Result<Vec<SpinUpOperation>, WireError> {
        self.project.call("spin-up.list", &json!({})).await
    }

    /// The living processes of this house.
    pub fn processes(&self) -> Vec<stat::Entry> {
        stat::with_variable(MARK, &self.folder().display().to_string())
    }

    /// Waits until no agent is there, and no process of one.
    pub async fn until_empty(&self) -> Result<()> {
        let gone = async || {
            let target = self.seen().await?;
            let agents = self.project.request("agents.list", json!({})).await;
            let agents = agents.ok()?;
            let is_empty = agents == json!([]) && target["status"] == "available";
            (is_empty && self.processes().is_empty()).then_some(())
        };
        let waited = self.project.eventually("nobody is left", gone).await;
        if waited.is_err() {
            let agents = self.project.request("agents.list", json!({})).await;
            let (target, processes) = (self.seen().await, self.processes());
            return waited.with_context(|| format!("{target:?} {agents:?} {processes:?}"));
        }
        waited
    }
}

/// Nothing of a test is left, however it ends.
impl Drop for House {
    fn drop(&mut self) {
        for process in self.processes() {
            process.signal(rustix::process::Signal::KILL);
        }
    }
}
