//! A coordinator as a process, and the whole life of an agent that one of its targets starts.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_process::stat::Entry;
use loom_protocol::{ProjectId, WorkId};
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// The program under test.
pub(crate) const LOOM: &str = env!("CARGO_BIN_EXE_loom");
/// The only target.
pub(crate) const TARGET: &str = "elsewhere";
/// The type of its agents.
pub(crate) const TYPE: &str = "parrot";
/// Something secret of the coordinator's that no agent is to see.
const SECRET: (&str, &str) = ("SECRET_OF_MINE", "swordfish-of-the-coordinator");

/// A coordinator, a project of it, and a folder for what agents leave behind.
pub(crate) struct House {
    pub coordinator: LoomProcess,
    pub project: TestProject,
    // Dropped after the coordinator: nobody is left without its server.
    pub nats: TestNats,
    folder: TempDir,
}

/// A start that has become an agent, whose item is done.
pub(crate) struct Lived {
    /// `LOOM_SPIN_UP_ID`.
    pub spin_up: String,
    /// `LOOM_TICKET`.
    pub ticket: String,
}

impl House {
    /// With these variables for the coordinator. Agents that have nothing to do go soon.
    pub async fn open(variables: &[(&str, &str)]) -> Result<Self> {
        Self::of_patient_agents(variables, "1s").await
    }

    /// The same, where agents have nothing to do for so long before they go.
    pub async fn of_patient_agents(variables: &[(&str, &str)], idle: &str) -> Result<Self> {
        let nats = TestNats::start().await?;
        let mut up = LoomUp::new(LOOM)
            .on_nats(nats.url())
            .argument("--log-level")
            .argument("trace")
            .set("agents.heartbeat_every", "300ms")
            .set("agents.stale_after", "3s")
            .set("agents.idle_timeout", idle)
            .set("agents.idle_grace", "5s")
            .env(SECRET.0, SECRET.1);
        for (name, value) in variables {
            up = up.env(name, value);
        }
        Ok(Self {
            coordinator: up.start().await?,
            // The one that an agent is in to which nobody has told another one.
            project: TestProject::of_process(ProjectId::new("default")?, &nats.url()).await?,
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

    /// The program behind the agents: it leaves behind what it and its agent were told, and is done.
    pub fn program(&self) -> [String; 3] {
        let script = format!(
            "tr '\\0' '\\n' < /proc/$PPID/environ > '{0}/agent'; env > '{0}/program'; echo '{{\"summary\":\"said\"}}'",
            self.folder().display()
        );
        ["sh".into(), "-c".into(), script]
    }

    /// `loom agent run` with that program, as the words of a command.
    pub fn agent(&self, options: &[&str]) -> Vec<String> {
        let words = [LOOM, "agent", "run"]
            .into_iter()
            .chain(options.iter().copied());
        let words = words.chain(["--"]).map(str::to_owned);
        words.chain(self.program()).collect()
    }

    /// Registers the target.
    pub async fn target(&self, mechanism: &str, config: Value) -> Result<Value> {
        let target = json!({
            "name": TARGET, "agentType": TYPE, "capabilities": ["rust"], "mechanism": mechanism, "config": config,
        });
        Ok(self.project.request("targets.register", target).await?)
    }

    pub async fn seen(&self) -> Option<Value> {
        let request = json!({"target": TARGET});
        self.project.request("targets.get", request).await.ok()
    }

    /// What the program says about starts.
    async fn spin_ups(&self) -> Result<Value> {
        let listed = Command::new(LOOM)
            .args([
                "spin-up",
                "list",
                "--json",
                "--url",
                self.coordinator.api_url(),
            ])
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let listed = tokio::time::timeout(Duration::from_secs(20), listed).await??;
        let said = String::from_utf8_lossy(&listed.stderr);
        ensure!(listed.status.success(), "loom spin-up list: {said}");
        let mut listed: Value = serde_json::from_slice(&listed.stdout)?;
        Ok(listed["operations"].take())
    }

    /// An item comes while nobody is there: somebody is started, takes it and finishes it.
    pub async fn work_gets_an_agent(&self) -> Result<Lived> {
        let project = &self.project;
        let agents = project.request("agents.list", json!({})).await?;
        ensure!(agents == json!([]), "somebody is there: {agents}");
        let id = project.submit_plain("rust").await?;
        let item = project.until_ended(id).await?;
        ensure!(
            item.status.as_str() == "completed" && item.attempt == 1,
            "{item:?}"
        );
        let by = item.assigned_to_agent.context("somebody did it")?;
        ensure!(by.agent_type == TYPE, "{by:?}");
        let target = self.seen().await.context("the target is there")?;
        ensure!(target["useCount"] == 1, "{target}");
        ensure!(target["lastSpinUp"]["agent"] == json!(by.guid), "{target}");
        let operations = self.spin_ups().await?;
        let [operation] = operations.as_array().map(Vec::as_slice).unwrap_or_default() else {
            anyhow::bail!("one start was asked for: {operations}");
        };
        ensure!(
            operation["status"] == "success" && operation["agentGuid"] == json!(by.guid),
            "{operation}"
        );
        let lived = self.what_it_was_told(id)?;
        ensure!(
            operation["operationId"] == json!(lived.spin_up),
            "{operation}"
        );
        Ok(lived)
    }

    /// The variables of the agent and of its program: nothing is missing, and nothing is there that is not theirs.
    fn what_it_was_told(&self, id: WorkId) -> Result<Lived> {
        let read = |name| {
            std::fs::read_to_string(self.path(name)).with_context(|| format!("{name} was run"))
        };
        let (agent, program) = (read("agent")?, read("program")?);
        let value = |name: &str| {
            let mut lines = agent.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned)
                .with_context(|| format!("{name} is not in\n{agent}"))
        };
        let lived = Lived {
            spin_up: value("LOOM_SPIN_UP_ID")?,
            ticket: value("LOOM_TICKET")?,
        };
        value("LOOM_NATS_URL")?;
        ensure!(
            program.contains(&id.to_string()),
            "the program knows its item: {program}"
        );
        ensure!(
            !agent.contains(SECRET.1),
            "a secret of the coordinator is in\n{agent}"
        );
        ensure!(
            !program.contains(&lived.ticket),
            "the ticket is in\n{program}"
        );
        Ok(lived)
    }

    /// It has nothing to do, and goes; neither it nor anything that it has started runs, and its ticket was told to
    /// nobody else.
    pub async fn the_agent_goes(&self, lived: &Lived) -> Result<()> {
        let gone = async || {
            let target = self.seen().await?;
            let agents = self.project.request("agents.list", json!({})).await.ok()?;
            let is_free =
                target["status"] == "available" && target["currentAgentGuids"] == json!([]);
            (agents == json!([]) && is_free && alive_of(&lived.spin_up).is_empty()).then_some(())
        };
        self.project.eventually("nobody is left", gone).await?;
        let operations = self.spin_ups().await?;
        ensure!(operations[0]["status"] == "success", "{operations}");
        let log = self.coordinator.stderr();
        ensure!(!log.contains(&lived.ticket), "the ticket is in the log");
        Ok(())
    }
}

/// All that lives of a start.
pub(crate) fn alive_of(spin_up: &str) -> Vec<Entry> {
    loom_process::stat::with_variable("LOOM_SPIN_UP_ID", spin_up)
}
