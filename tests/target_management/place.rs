//! A place where agents are started: each is a real process that writes down that it was started and what it got, and
//! then waits to be told who it is.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_actors::domain::targets::OwnedNewborn;
use loom_actors::target_manager::OperationFilter;
use loom_process::stat;
use loom_protocol::target::{BirthTicket, SpinUpOperation, SpinUpStatus};
use loom_protocol::{AgentGuid, SpinUpId, TargetId, WireError};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::TestProject;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes a file as a whole, then does nothing for two minutes.
const SCRIPT: &str = r#"printf '%s' "$LOOM_TICKET" > "$PLACE/.$$" && mv "$PLACE/.$$" "$PLACE/$LOOM_SPIN_UP_ID.$$" && exec sleep 120"#;

/// The place. Dropped, it ends what was started in it.
pub(crate) struct Place(TempDir);

/// A process that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// By which start.
    pub start: SpinUpId,
    /// Its number.
    pub pid: u32,
    /// What it got.
    ticket: String,
}

impl Process {
    pub fn lives(&self) -> bool {
        stat::entry(self.pid).is_some_and(|entry| entry.is_alive())
    }

    /// Ends it at once.
    pub fn kill(&self) {
        if let Some(entry) = stat::entry(self.pid).filter(stat::Entry::is_alive) {
            entry.signal(rustix::process::Signal::KILL);
        }
    }

    pub fn ticket(&self) -> BirthTicket {
        BirthTicket::from_text(self.ticket.clone())
    }

    /// The agent that it is.
    pub fn newborn(&self, guid: AgentGuid) -> OwnedNewborn {
        OwnedNewborn {
            guid,
            instance_id: Some(self.start.to_string()),
            agent_type: "claude-code".into(),
            capabilities: vec!["rust".into()],
            boundaries: vec!["default".into()],
        }
    }

    /// Uses its ticket.
    pub async fn redeem(
        &self,
        project: &TestProject,
        guid: AgentGuid,
    ) -> Result<Result<TargetId, WireError>> {
        let manager = project.parts()?.target_manager.clone();
        Ok(manager.redeem(&self.ticket(), self.newborn(guid)).await)
    }

    /// Registers as an agent that lives, until it is dropped.
    pub async fn register(&self, project: &TestProject, guid: AgentGuid) -> Result<FakeAgent> {
        self.redeem(project, guid).await??;
        let agent = project
            .agent("rust")
            .agent_type("claude-code")
            .field("guid", json!(guid))
            .field("instanceId", json!(self.start))
            .behaviour(Behaviour::Beat);
        agent.spawn().await
    }
}

impl Place {
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// A target that starts agents here.
    pub fn target(&self, name: &str, max_agents: u32) -> Value {
        json!({
            "name": name, "agentType": "claude-code", "capabilities": ["rust"], "mechanism": "local",
            "maxAgents": max_agents, "config": {"command": SCRIPT, "env": {"PLACE": self.0.path()}},
        })
    }

    /// Everything that was ever started here.
    pub fn processes(&self) -> Vec<Process> {
        let files = fs::read_dir(self.0.path()).into_iter().flatten().flatten();
        let mut found: Vec<Process> = files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let (start, pid) = name.split_once('.')?;
                Some(Process {
                    start: start.parse().ok()?,
                    pid: pid.parse().ok()?,
                    ticket: fs::read_to_string(file.path()).ok()?,
                })
            })
            .collect();
        found.sort_by_key(|process| process.pid);
        found
    }

    /// Waits for a process that is not one of these, and is then.
    pub async fn another(
        &self,
        project: &TestProject,
        known: &mut Vec<Process>,
    ) -> Result<Process> {
        let others = known.clone();
        let is_new = |process: &Process| !others.contains(process);
        let look = async || self.processes().into_iter().find(is_new);
        let process = project.eventually("another process", look).await?;
        known.push(process.clone());
        Ok(process)
    }

    /// Waits until so many were started.
    pub async fn started(&self, project: &TestProject, count: usize) -> Result<Vec<Process>> {
        let what = format!("{count} processes");
        let is_so = async || Some(self.processes()).filter(|all| all.len() >= count);
        project.eventually(&what, is_so).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in self.processes() {
            process.kill();
        }
    }
}

/// The starts of a project, the latest first.
pub(crate) fn operations(project: &TestProject) -> Result<Vec<SpinUpOperation>> {
    let targets = project.parts()?.targets.clone();
    let found = targets.operations(&OperationFilter::default(), None, 100)?;
    Ok(found.operations)
}

/// Waits until a start has come to this.
pub(crate) async fn came_to(
    project: &TestProject,
    status: SpinUpStatus,
    target: &str,
) -> Result<SpinUpOperation> {
    let what = format!("a start by {target} that is {}", status.as_str());
    let is_it =
        |operation: &SpinUpOperation| operation.status == status && operation.target_name == target;
    let look = async || operations(project).ok()?.into_iter().find(is_it);
    project.eventually(&what, look).await
}

/// Gives a mistake the time to be made.
pub(crate) async fn a_while() {
    // deliberate sleep: that nothing happens can be waited for in no other way
    tokio::time::sleep(Duration::from_millis(600)).await;
}

/// Submits so many items that this place may serve, at once.
pub(crate) async fn submit(project: &TestProject, count: usize) -> Result<()> {
    let items = (0..count).map(|_| project.submit_plain("rust"));
    let submitted = futures_util::future::join_all(items).await;
    submitted
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map(drop)
        .context("submit")
}
