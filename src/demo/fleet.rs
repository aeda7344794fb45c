//! The agents of the demo: processes of this very program.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::plan::{PROJECT, Role, SCRIPT};
use crate::cli::agent::PARENT_VARIABLE;

/// How long an agent may take to end before it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Variables that would lead an agent of the demo somewhere else.
const FOREIGN: [&str; 12] = [
    "NATS_USER",
    "NATS_PASS",
    "NATS_CREDS",
    "LOOM_NATS_URL",
    "LOOMINAL_PROJECT_ID",
    "LOOM_AGENT_TYPE",
    "LOOM_CAPABILITIES",
    "LOOM_BOUNDARIES",
    "LOOM_TICKET",
    "LOOM_TARGET_ID",
    "LOOM_SPIN_UP_ID",
    "LOOM_CONFIG",
];

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct AgentProcess {
    role: Role,
    child: Child,
    log: PathBuf,
}

impl AgentProcess {
    /// Starts one; what it says goes into a file in `dir`.
    pub fn start(role: Role, nats_url: &str, dir: &Path) -> io::Result<Self> {
        let log = dir.join(format!("{}.log", role.handle));
        let output = File::create(&log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["agent", "run", "--handle", role.handle]);
        command.args(["--agent-type", role.agent_type]);
        for capability in role.capabilities {
            command.args(["--capability", capability]);
        }
        for boundary in role.boundaries {
            command.args(["--boundary", boundary]);
        }
        command.args(["--drain", "3s"]);
        command.args(["--", "sh", "-c", SCRIPT, "sh", "{context.seconds}"]);
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        let child = command
            .env("NATS_URL", nats_url)
            .env("LOOM_PROJECT_ID", PROJECT)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { role, child, log })
    }

    /// What is wrong with it, if it has ended by itself.
    pub fn complaint(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().rev().take(5).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        let handle = self.role.handle;
        Some(format!(
            "agent {handle} ended ({status}): {}",
            tail.join("\n  ")
        ))
    }

    /// Asks it to end, and kills it if it does not.
    pub async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It fails only where the process is gone already.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(END_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}
