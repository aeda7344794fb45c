//! A coordinator as a process of its own, on a private nats-server, for one test.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use loom_client::{Client, ClientOptions, NewWork};
use loom_protocol::work::{WorkItem, WorkStatus};
use loom_protocol::{ProjectId, WorkId};
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// No step of a test may take longer.
pub const LIMIT: Duration = Duration::from_secs(40);

/// The program under test.
pub const LOOM: &str = env!("CARGO_BIN_EXE_loom");

pub struct House {
    // Dropped in this order: nobody is left without its server.
    pub coordinator: LoomProcess,
    pub client: Client,
    pub nats: TestNats,
    pub project: ProjectId,
    pub dir: TempDir,
}

impl House {
    pub async fn open() -> Self {
        Self::with(&[]).await
    }

    /// With these keys of the configuration.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let nats = TestNats::start().await.unwrap();
        let project = TestNats::unique_project();
        let dir = tempfile::tempdir().unwrap();
        let mut coordinator = LoomUp::new(LOOM).on_nats(nats.url());
        for (key, value) in settings {
            coordinator = coordinator.set(key, value);
        }
        let coordinator = coordinator.start().await.unwrap();
        let options = ClientOptions::new(nats.url(), project.clone());
        let client = Client::connect(options).await.unwrap();
        Self {
            coordinator,
            client,
            nats,
            project,
            dir,
        }
    }

    /// `loom` with the environment of a user of this house.
    pub fn loom(&self) -> Command {
        let mut command = Command::new(LOOM);
        command
            .env("NATS_URL", self.nats.url())
            .env("LOOM_PROJECT_ID", self.project.as_str())
            .env("LOOM_BIN", LOOM)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// `loom agent run` with these options and a shell script as the program. The script finds the
    /// description as `$1`.
    pub fn agent(&self, options: &[&str], script: &str) -> Process {
        Process(self.agent_command(options, script).spawn().unwrap())
    }

    /// The same, heard by [`House::said`].
    pub fn watched_agent(&self, options: &[&str], script: &str) -> Process {
        let said = std::fs::File::create(self.path("said")).unwrap();
        let mut command = self.agent_command(options, script);
        Process(command.stderr(said).spawn().unwrap())
    }

    /// The command of [`House::agent`], not started yet.
    pub fn agent_command(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.loom();
        command.args(["agent", "run", "--capability", "c"]);
        command.args(options);
        command.args(["--", "sh", "-c", script, "sh", "{description}"]);
        command
    }

    /// Waits until the watched agent has said a line with this text in it, and gives it.
    pub async fn said(&self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let said = std::fs::read_to_string(self.path("said")).unwrap();
            let mut lines = said
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            if let Some(line) = lines.find(|line| line.contains(text)) {
                return line.trim().to_owned();
            }
            assert!(
                Instant::now() < deadline,
                "never said {text:?}, but:\n{said}"
            );
            // deliberate sleep: between two looks, before the deadline
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn submit(&self, description: &str) -> WorkId {
        let work = NewWork::new("c", description);
        self.client.submit(&work).await.unwrap().id
    }

    /// Waits until an item has this status.
    pub async fn until(&self, id: WorkId, status: WorkStatus) -> WorkItem {
        let deadline = Instant::now() + LIMIT;
        loop {
            let item = self.client.get(id).await.unwrap();
            if item.status == status {
                return item;
            }
            assert!(
                Instant::now() < deadline && !item.terminal,
                "not {status}: {item:?}"
            );
            // deliberate sleep: between two looks, before the deadline
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits until an item has ended in whatever way.
    pub async fn ended(&self, id: WorkId) -> WorkItem {
        let outcome = self.client.wait(id, LIMIT).await.unwrap();
        outcome.item().clone()
    }

    /// Waits until a file in the folder of this house has a whole line, and gives it.
    pub async fn word(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        let deadline = Instant::now() + LIMIT;
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
                _ => assert!(Instant::now() < deadline, "{name} never came"),
            }
            // deliberate sleep: between two looks, before the deadline
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where [`House::word`] looks, for a script.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// A process that is told to end by signals.
pub struct Process(pub Child);

impl Process {
    pub fn signal(&self, signal: Signal) {
        send(&self.0.id().unwrap().to_string(), signal);
    }

    /// Its child whose command line has this word in it.
    #[cfg(target_os = "linux")]
    pub fn child(&self, word: &str) -> String {
        let id = self.0.id().unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let children: String = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .collect();
        let has_word = |pid: &&str| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| line.split('\0').any(|part| part == word))
        };
        let found = children.split_whitespace().find(has_word);
        found.unwrap().to_owned()
    }

    pub async fn ended(&mut self) -> ExitStatus {
        timeout(LIMIT, self.0.wait()).await.unwrap().unwrap()
    }
}

/// Sends a signal to a process.
pub fn send(pid: &str, signal: Signal) {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until a process is gone, or a zombie that somebody else has to take away.
pub async fn gone(pid: &str) {
    let deadline = Instant::now() + LIMIT;
    let stat = format!("/proc/{pid}/stat");
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {pid} lives on");
        // deliberate sleep: between two looks, before the deadline
        sleep(Duration::from_millis(20)).await;
    }
}
