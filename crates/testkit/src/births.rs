//! Births of agents under a test's control: a place where targets start real processes, and a gate at the steps of a
//! birth.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_protocol::AgentGuid;
//! use loom_protocol::target::SpinUpStatus;
//! use loom_testkit::births::{Place, came_to, submit};
//! use loom_testkit::fleet::Fleet;
//!
//! let fleet = Fleet::shared().await?;
//! let (project, place) = (fleet.project().await?, Place::new()?);
//! project.request("targets.register", place.target("here", 1)).await?;
//! submit(&project, 10).await?;
//! let process = place.started(&project, 1).await?.remove(0);
//! let agent = process.register(&project, AgentGuid::generate()).await?;
//! came_to(&project, SpinUpStatus::Success, "here").await?;
//! # drop(agent);
//! # Ok(())
//! # }
//! ```

mod step_gate;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_actors::domain::targets::OwnedNewborn;
use loom_actors::target_manager::OperationFilter;
use loom_process::stat;
use loom_protocol::target::{BirthTicket, SpinUpOperation, SpinUpStatus};
use loom_protocol::token::list_of;
use loom_protocol::{AgentGuid, SpinUpId, TargetId, WireError};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use step_gate::StepGate;

use crate::agent::{Behaviour, FakeAgent};
use crate::fleet::TestProject;

/// Writes down its number and its environment, in a file that is there as a whole or not at all; then does nothing.
const SCRIPT: &str = r#"(echo "PID=$$"; env) > "$PLACE/.$$" && mv "$PLACE/.$$" "$PLACE/$LOOM_SPIN_UP_ID.$$" && exec sleep 120"#;

/// A place where targets start processes. Each writes down what it was told, and then waits for the test to say who it
/// is. Dropped, the place ends what was started in it.
#[derive(Debug)]
pub struct Place(TempDir);

/// A process that was started in a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// By which start.
    pub start: SpinUpId,
    /// Its number.
    pub pid: u32,
    /// What it was told.
    environment: BTreeMap<String, String>,
}

impl Process {
    fn read(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (start, pid) = name.split_once('.')?;
        let written = fs::read_to_string(path).ok()?;
        let lines = written.lines().filter_map(|line| line.split_once('='));
        Some(Self {
            start: start.parse().ok()?,
            pid: pid.parse().ok()?,
            environment: lines
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }

    /// A variable of its environment; empty where it has none.
    pub fn variable(&self, name: &str) -> &str {
        self.environment.get(name).map_or("", String::as_str)
    }

    /// Whether it lives; one that has ended and lies in the table of processes does not.
    pub fn lives(&self) -> bool {
        stat::entry(self.pid).is_some_and(|entry| entry.is_alive())
    }

    /// Sends it a signal; false where it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        let entry = stat::entry(self.pid).filter(stat::Entry::is_alive);
        entry.is_some_and(|entry| entry.signal(signal))
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Its ticket.
    pub fn ticket(&self) -> BirthTicket {
        BirthTicket::from_text(self.variable("LOOM_TICKET").to_owned())
    }

    /// The agent that it is, by what it was told. Its run has the name of its start.
    pub fn newborn(&self, guid: AgentGuid) -> OwnedNewborn {
        let boundaries = list_of(self.variable("LOOM_BOUNDARIES"));
        OwnedNewborn {
            guid,
            instance_id: Some(self.start.to_string()),
            agent_type: self.variable("LOOM_AGENT_TYPE").to_owned(),
            capabilities: list_of(self.variable("LOOM_CAPABILITIES")),
            boundaries: if boundaries.is_empty() {
                vec!["default".into()]
            } else {
                boundaries
            },
        }
    }

    /// Its registration over the wire, with its ticket.
    pub fn registration(&self, guid: AgentGuid) -> Value {
        let newborn = self.newborn(guid);
        json!({
            "guid": guid, "instanceId": newborn.instance_id, "handle": "newborn",
            "agentType": newborn.agent_type, "capabilities": newborn.capabilities,
            "boundaries": newborn.boundaries, "ticket": self.variable("LOOM_TICKET"),
        })
    }

    /// Uses its ticket, without a registration.
    ///
    /// # Errors
    /// The coordinator is stopped. What is refused is the inner one.
    pub async fn redeem(
        &self,
        project: &TestProject,
        guid: AgentGuid,
    ) -> Result<Result<TargetId, WireError>> {
        let manager = project.parts()?.target_manager.clone();
        Ok(manager.redeem(&self.ticket(), self.newborn(guid)).await)
    }

    /// Registers as an agent that lives until it is dropped.
    ///
    /// # Errors
    /// It is refused.
    pub async fn register(&self, project: &TestProject, guid: AgentGuid) -> Result<FakeAgent> {
        let registration = self.registration(guid);
        let mut agent = project.agent("rust").behaviour(Behaviour::Beat);
        for (field, value) in registration.as_object().into_iter().flatten() {
            agent = agent.field(field, value.clone());
        }
        agent.spawn().await
    }

    /// Registers, again and again, as an agent does whose answers are lost. Does not end while nobody answers.
    ///
    /// # Errors
    /// It is refused.
    pub async fn register_insistently(&self, project: &TestProject, guid: AgentGuid) -> Result<()> {
        let registration = self.registration(guid);
        loop {
            match project
                .request("agents.register", registration.clone())
                .await
            {
                Err(error) if error.code.is_transient() => {}
                outcome => return Ok(outcome.map(drop)?),
            }
            // An agent pauses before it registers again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Place {
    /// A new one.
    ///
    /// # Errors
    /// There is no room for a temporary folder.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Its folder, for what else a test leaves there.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A target that starts `claude-code` agents for `rust` here.
    pub fn target(&self, name: &str, max_agents: u32) -> Value {
        self.target_with(name, &json!({ "maxAgents": max_agents }))
    }

    /// The same with other fields.
    pub fn target_with(&self, name: &str, fields: &Value) -> Value {
        let mut target = json!({
            "name": name, "agentType": "claude-code", "capabilities": ["rust"], "mechanism": "local",
            "config": {"command": "sh", "args": ["-c", SCRIPT], "env": {"PLACE": self.folder()}},
        });
        for (field, value) in fields.as_object().into_iter().flatten() {
            target[field] = value.clone();
        }
        target
    }

    /// Everything that was ever started here.
    pub fn processes(&self) -> Vec<Process> {
        let files = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut found: Vec<Process> = files
            .filter_map(|file| Process::read(&file.path()))
            .collect();
        found.sort_by_key(|process| process.pid);
        found
    }

    /// Those that live.
    pub fn living(&self) -> Vec<Process> {
        let mut all = self.processes();
        all.retain(Process::lives);
        all
    }

    /// Waits for one that lives and is not one of these, and is then. What a coordinator has just begun when it is crashed
    /// in this process is ended with it, unlike by `kill -9`.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn another(
        &self,
        project: &TestProject,
        known: &mut Vec<Process>,
    ) -> Result<Process> {
        let others = known.clone();
        let is_new = |process: &Process| !others.contains(process);
        let look = async || self.living().into_iter().find(is_new);
        let process = project.eventually("another process", look).await?;
        known.push(process.clone());
        Ok(process)
    }

    /// Waits until so many were started.
    ///
    /// # Errors
    /// There are fewer for too long.
    pub async fn started(&self, project: &TestProject, count: usize) -> Result<Vec<Process>> {
        let what = format!("{count} processes");
        let is_so = async || Some(self.processes()).filter(|all| all.len() >= count);
        project.eventually(&what, is_so).await
    }

    /// Waits for the process of a start.
    ///
    /// # Errors
    /// It does not come in time.
    pub async fn of(&self, project: &TestProject, start: SpinUpId) -> Result<Process> {
        let is_it = |process: &Process| process.start == start;
        let look = async || self.processes().into_iter().find(is_it);
        project.eventually("the process of a start", look).await
    }

    /// Waits until nothing that was started here lives.
    ///
    /// # Errors
    /// Something lives for too long.
    pub async fn until_empty(&self, project: &TestProject) -> Result<()> {
        let look = async || self.living().is_empty().then_some(());
        let waited = project.eventually("nothing of it lives", look).await;
        waited.with_context(|| format!("{:?} live", self.living()))
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
///
/// # Errors
/// The project is not awake, or the coordinator is stopped.
pub fn operations(project: &TestProject) -> Result<Vec<SpinUpOperation>> {
    let targets = project.parts()?.targets.clone();
    let found = targets.operations(&OperationFilter::default(), None, 100)?;
    Ok(found.operations)
}

/// Waits until a start by a target has come to this.
///
/// # Errors
/// None has in time.
pub async fn came_to(
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

/// Submits so many items for `rust`, at once.
///
/// # Errors
/// One is refused.
pub async fn submit(project: &TestProject, count: usize) -> Result<()> {
    let items = (0..count).map(|_| project.submit_plain("rust"));
    let submitted = futures_util::future::join_all(items).await;
    submitted
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map(drop)
        .context("submit")
}

/// Gives a mistake the time to be made.
pub async fn a_while() {
    // deliberate sleep: that nothing happens can be waited for in no other way
    tokio::time::sleep(Duration::from_millis(600)).await;
}
