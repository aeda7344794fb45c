//! The program as a process, and a coordinator for it to talk to.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LOOM: &str = env!("CARGO_BIN_EXE_loom");
/// Variables of the caller that would lead the program somewhere else.
const FOREIGN: [&str; 12] = [
    "LOOM_API_URL",
    "LOOM_API_TOKEN",
    "LOOM_PROJECT_ID",
    "LOOMINAL_PROJECT_ID",
    "LOOM_CONFIG",
    "LOG_LEVEL",
    "NATS_URL",
    "NATS_USER",
    "NATS_PASS",
    "NATS_CREDS",
    "API_PORT",
    "API_TOKENS",
];
pub const SOON: Duration = Duration::from_secs(20);

pub fn loom(args: &[&str]) -> Command {
    let mut command = Command::new(LOOM);
    command.args(args);
    for variable in FOREIGN {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end: exit code, stdout, stderr.
pub fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    (code, text(output.stdout), text(output.stderr))
}

/// A coordinator as a process, with its own nats-server in a temporary folder.
pub struct Up {
    pub process: Child,
    pub url: String,
    pub dir: tempfile::TempDir,
}

impl Up {
    pub fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = loom(&["up", "--port", "0", "--profile", "fast", "--data-dir"])
            .arg(dir.path())
            .args(["--log-level", "error"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let url = line
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Self {
            url: url.into(),
            process,
            dir,
        }
    }

    pub fn ask(&self, args: &[&str]) -> (i32, String, String) {
        outcome(loom(args).args(["--url", &self.url]))
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let (code, stdout, stderr) = outcome(loom(args).args(["--url", &self.url, "--json"]));
        assert_eq!(code, 0, "{args:?}: {stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs an agent for one item: its program is a line of shell.
    pub fn agent_for_one_item(&self, script: &str) -> Child {
        loom(&["agent", "run", "--once", "--capability", "rust"])
            .args(["--url", &self.url, "--", "sh", "-c", script])
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub fn end(&self) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.end();
            let _ = self.process.wait();
        }
    }
}

pub fn code_of(child: &mut Child) -> i32 {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(Instant::now() < deadline, "it does not end");
        // deliberate sleep: between two looks, before the deadline
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        // deliberate sleep: between two looks, before the deadline
        std::thread::sleep(Duration::from_millis(20));
    }
}
