//! The program `loom` as a child process: what a person starts, with everything that can happen to it.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::nats::TestNats;
//! use loom_testkit::process::LoomUp;
//!
//! let nats = TestNats::start().await?;
//! # let program = "loom";
//! // In a test of a package with the program: env!("CARGO_BIN_EXE_loom").
//! let mut loom = LoomUp::new(program).on_nats(nats.url()).start().await?;
//! println!("{} {}", loom.api_url(), loom.nats_url());
//!
//! loom.kill_9().await;
//! loom.restart().await?; // on the same data directory and the same NATS
//! assert!(loom.terminate().await?.success());
//! # Ok(())
//! # }
//! ```
//!
//! The child dies with the test process (on Linux even when that is killed), listens on free ports of loopback only,
//! sees nothing of the environment but what a nats-server is found by, and keeps its data in a temporary folder. What
//! it wrote to stderr is printed where the test fails.

mod lines;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use loom_process::{OwnChild, ParentDeath};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

use lines::Lines;

/// How long the program may take until it is up, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long the nats-server of a killed coordinator may take to end.
const SERVER_ENDS_WITHIN: Duration = Duration::from_secs(5);
/// What the program sees of the environment.
const ENVIRONMENT: [&str; 5] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "NATS_SERVER_BIN",
    "RUST_BACKTRACE",
];

/// How `loom up` is to be started.
#[derive(Debug, Clone)]
#[must_use]
pub struct LoomUp {
    program: PathBuf,
    nats_url: Option<String>,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
    folder: Option<Arc<TempDir>>,
}

impl LoomUp {
    /// The program at `program`, with a nats-server of its own and a new data directory. In a test of the package with
    /// the program that is `env!("CARGO_BIN_EXE_loom")`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            nats_url: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            data_dir: None,
            folder: None,
        }
    }

    /// With the NATS at this URL instead of a server of its own.
    pub fn on_nats(mut self, url: impl Into<String>) -> Self {
        self.nats_url = Some(url.into());
        self
    }

    /// With the data in a directory that others have used or will use.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// With one more argument after `loom up`.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With a key of the configuration: `set("work.start_timeout", "2s")`.
    pub fn set(self, key: &str, value: &str) -> Self {
        self.argument("--set").argument(format!("{key}={value}"))
    }

    /// With a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it and waits until it says that it is up.
    ///
    /// # Errors
    /// It ended before that, or took too long; the error has what it wrote to stderr.
    pub async fn start(self) -> Result<LoomProcess> {
        let mut process = self.spawn().await?;
        process.until_up().await?;
        Ok(process)
    }

    /// Starts it without waiting: for one that is to stand by, or to be refused.
    ///
    /// # Errors
    /// There is no such program, or no room for its data.
    pub async fn spawn(mut self) -> Result<LoomProcess> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => Arc::new(new_folder()?),
        };
        self.folder = Some(folder.clone());
        let child = run(self.command(folder.path())).await?;
        Ok(LoomProcess {
            child,
            up: None,
            options: self,
            folder,
        })
    }

    /// Starts it, and waits until it has ended by itself.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn run_to_its_end(self) -> Result<Ended> {
        self.spawn().await?.ended().await
    }

    fn data_in(&self, folder: &Path) -> PathBuf {
        let own = self.data_dir.clone();
        own.unwrap_or_else(|| folder.join("data"))
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["up", "--port", "0", "--profile", "fast", "--data-dir"])
            .arg(self.data_in(folder))
            .args(self.nats_url.iter().flat_map(|url| ["--nats-url", url]))
            .args(&self.arguments)
            .current_dir(folder)
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(variable))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Ended {
    /// The number that it ended with; none where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// A `loom up` that runs, or has ended and can be started again.
///
/// Dropped, it is killed like by `kill -9`, and its folder removed.
#[derive(Debug)]
pub struct LoomProcess {
    child: Running,
    up: Option<Addresses>,
    options: LoomUp,
    folder: Arc<TempDir>,
}

#[derive(Debug)]
struct Running {
    process: OwnChild,
    stdout: Lines,
    stderr: Lines,
}

/// What the program says when it is up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Addresses {
    api: String,
    nats: String,
}

impl LoomProcess {
    /// Where its REST API is, like `http://127.0.0.1:40001`; another port after each start. Empty until it was up.
    pub fn api_url(&self) -> &str {
        self.up.as_ref().map_or("", |up| &up.api)
    }

    /// Where agents and clients find its NATS. Empty until it was up.
    pub fn nats_url(&self) -> &str {
        self.up.as_ref().map_or("", |up| &up.nats)
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.process.pid()
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.options.data_in(self.folder.path())
    }

    /// What it wrote to stderr since its last start.
    pub fn stderr(&self) -> String {
        self.child.stderr.text()
    }

    /// Waits until it says that it is up.
    ///
    /// # Errors
    /// It ended before that, or took too long.
    pub async fn until_up(&mut self) -> Result<()> {
        let said = timeout(PATIENCE, self.child.stdout.find_map(addresses)).await;
        match said {
            Ok(Some(up)) => {
                self.up = Some(up);
                Ok(())
            }
            Ok(None) => bail!("loom up ended before it was up:\n{}", self.stderr()),
            Err(_) => bail!("loom up was not up within {PATIENCE:?}:\n{}", self.stderr()),
        }
    }

    /// Waits until a line of stderr has `text` in it.
    ///
    /// # Errors
    /// It ended before that, or took too long.
    pub async fn until_it_logs(&self, text: &str) -> Result<String> {
        let contains = |line: &str| line.contains(text).then(|| line.to_owned());
        match timeout(PATIENCE, self.child.stderr.find_map(contains)).await {
            Ok(Some(line)) => Ok(line),
            _ => bail!("loom up did not say {text:?}, but:\n{}", self.stderr()),
        }
    }

    /// `kill -9`, and waits until it is gone. Its own nats-server, if it has one, ends a moment later.
    pub async fn kill_9(&mut self) {
        self.signal(Signal::KILL);
        self.child.process.ended().await;
    }

    /// SIGTERM, and the status that it ends with.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        Ok(self.ended().await?.status)
    }

    /// Sends a signal and does not wait; false where it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        self.child.process.signal(signal)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn ended(&self) -> Result<Ended> {
        let Ok(Some(status)) = timeout(PATIENCE, self.child.process.ended()).await else {
            bail!(
                "loom up did not end within {PATIENCE:?}:\n{}",
                self.stderr()
            );
        };
        Ok(Ended {
            status,
            stdout: self.child.stdout.whole().await,
            stderr: self.child.stderr.whole().await,
        })
    }

    /// Starts it again, on the same data directory and NATS, and waits until it is up. One that still runs is killed.
    ///
    /// # Errors
    /// It ended before it was up, or took too long.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill_9().await;
        self.child = run(self.options.command(self.folder.path())).await?;
        self.until_up().await
    }

    /// SIGSTOP: it stands still with its connections open, as on a suspended machine.
    pub fn pause(&self) {
        self.child.process.pause();
    }

    /// The end of [`LoomProcess::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }
}

impl Drop for LoomProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if std::thread::panicking() {
            eprintln!("--- stderr of loom up ---\n{}---", self.stderr());
        }
        if self.options.nats_url.is_none() {
            let lock = self.data_dir().join("nats").join("server.lock");
            wait_until_unlocked(&lock, SERVER_ENDS_WITHIN);
        }
    }
}

/// The folder is removed after this, and a server that still runs would make it anew.
fn wait_until_unlocked(lock: &Path, within: Duration) {
    let began = Instant::now();
    while let Ok(Err(TryLockError::WouldBlock)) = File::open(lock).map(|file| file.try_lock()) {
        if began.elapsed() > within {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn new_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("loom-test-up-")
        .tempdir()
        .context("make a folder for the data of a test's coordinator")?;
    fs::create_dir(folder.path().join("data"))?;
    Ok(folder)
}

fn variable(name: &&'static str) -> Option<(&'static OsStr, OsString)> {
    Some((OsStr::new(*name), std::env::var_os(name)?))
}

async fn run(mut command: Command) -> Result<Running> {
    let (stdout, to_stdout) = std::io::pipe()?;
    let (stderr, to_stderr) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(to_stdout)
        .stderr(to_stderr);
    let program = command.get_program().to_owned();
    let process = OwnChild::spawn(command, ParentDeath::Kill)
        .await
        .with_context(|| format!("start {}", program.display()))?;
    Ok(Running {
        process,
        stdout: Lines::of(stdout),
        stderr: Lines::of(stderr),
    })
}

/// Reads `loom is up · API http://… · NATS nats://… · project …`.
fn addresses(line: &str) -> Option<Addresses> {
    let part = |name: &str| {
        let parts = line.strip_prefix("loom is up")?.split(" · ");
        parts
            .map(str::trim)
            .find_map(|part| part.strip_prefix(name))
    };
    Some(Addresses {
        api: part("API ")?.to_owned(),
        nats: part("NATS ")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_where_it_is_up() {
        let line =
            "loom is up · API http://127.0.0.1:3000 · NATS nats://127.0.0.1:4222 · project default";
        let up = addresses(line).unwrap();
        assert_eq!(up.api, "http://127.0.0.1:3000");
        assert_eq!(up.nats, "nats://127.0.0.1:4222");
        assert_eq!(addresses("something else"), None);
    }

    #[tokio::test]
    async fn the_end_of_a_program_is_told_with_its_words() {
        let ended = LoomUp::new("/bin/sh-that-is-not-there").spawn().await;
        let error = format!("{:#}", ended.unwrap_err());
        assert!(error.contains("sh-that-is-not-there"), "{error}");

        // Any program that takes `up` as its first argument will do: echo says its arguments and ends.
        let ended = LoomUp::new("/bin/echo").run_to_its_end().await.unwrap();
        assert_eq!(ended.code(), Some(0));
        assert!(ended.stdout.starts_with("up --port 0"), "{ended:?}");
    }

    #[tokio::test]
    async fn a_program_that_ends_early_is_never_up() {
        let error = LoomUp::new("/bin/echo").start().await.unwrap_err();
        assert!(
            error.to_string().contains("ended before it was up"),
            "{error}"
        );
    }
}
