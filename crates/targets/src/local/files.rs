//! What is kept of one start: a lock that stands while anything of it lives, with the process noted in it, and the end
//! of its output.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use loom_process::secrets::Secrets;
use loom_process::{OwnChild, ParentDeath};
use loom_protocol::SpinUpId;

use crate::lock_file::{self, options};
use crate::output;
use crate::reference::LocalReference;

/// How much of the output the `tail` keeps, in bytes: more than is told, so that no secret is cut at its beginning.
const KEPT: &str = "16384";
/// The same, to read.
const MOST: u64 = 64 * 1024;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The files of one start.
#[derive(Debug, Clone)]
pub(super) struct Files {
    lock: PathBuf,
    output: PathBuf,
}

/// The lock of a start that nothing lives of, yet.
#[derive(Debug)]
pub(super) struct Lock(File);

/// Where an agent writes to.
#[derive(Debug)]
pub(super) struct Output(io::PipeWriter, io::PipeWriter);

impl Output {
    pub(super) fn into_both(self, command: &mut Command) {
        command.stdout(self.0).stderr(self.1);
    }
}

impl Files {
    pub(super) fn new(folder: &Path, spin_up: SpinUpId) -> Self {
        let of = |ending| folder.join(format!("spin-up-{spin_up}.{ending}"));
        Self {
            lock: of("lock"),
            output: of("out"),
        }
    }

    /// Takes the lock; none where something holds it.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        Ok(lock_file::take(&self.lock)?.map(Lock))
    }

    /// Whether something of the start lives, or is just being started.
    pub(super) fn is_held(&self) -> bool {
        let Ok(file) = options().open(&self.lock) else {
            return false;
        };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Whether any of them is there.
    pub(super) fn are_there(&self) -> bool {
        self.lock.exists() || self.output.exists()
    }

    /// Whether none of those that are there was written within this time. One that cannot be asked is young.
    pub(super) fn are_older_than(&self, age: Duration) -> bool {
        let is_old = |path: &PathBuf| match fs::symlink_metadata(path) {
            Ok(found) => found.modified().is_ok_and(|written| {
                let written = written.elapsed();
                written.is_ok_and(|written| written > age)
            }),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        [&self.lock, &self.output].into_iter().all(is_old)
    }

    /// The process that was noted.
    pub(super) fn noted(&self) -> Option<LocalReference> {
        read_note(options().open(&self.lock).ok()?)
    }

    /// Starts the `tail` that keeps the end of an output; none where the system has no `tail`.
    pub(super) async fn keep_output(&self, detached: bool) -> Option<Output> {
        match self.start_tail(detached).await {
            Ok(output) => Some(output),
            Err(error) => {
                tracing::warn!(%error, "the output of an agent is not kept: no `tail` was started");
                None
            }
        }
    }

    async fn start_tail(&self, detached: bool) -> io::Result<Output> {
        let (from, to) = io::pipe()?;
        let mut into = OpenOptions::new();
        let file = into
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.output)?;
        // The `tail` inherits the lock: while it stands, something will still be written.
        file.lock_shared()?;
        let mut tail = Command::new("tail");
        tail.args(["-c", KEPT])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .current_dir("/")
            .stdin(from)
            .stdout(file)
            .stderr(Stdio::null());
        let death = if detached {
            ParentDeath::Outlive
        } else {
            ParentDeath::Terminate
        };
        let second = to.try_clone()?;
        // It ends when the last writer has.
        OwnChild::spawn(tail, death).await?.release();
        Ok(Output(to, second))
    }

    /// What was said, once it is written down, or as much as there is after `within`.
    pub(super) async fn output(&self, secrets: &Secrets, within: Duration) -> Option<String> {
        let until = Instant::now() + within;
        loop {
            let mut bytes = Vec::new();
            let file = options().open(&self.output).ok()?;
            file.take(MOST).read_to_end(&mut bytes).ok()?;
            if !bytes.is_empty() || Instant::now() >= until || !self.is_written_to() {
                let told = output::told(&bytes, secrets);
                return Some(told).filter(|told| !told.is_empty());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a `tail` lives that has not written yet what it keeps.
    fn is_written_to(&self) -> bool {
        let file = options().open(&self.output);
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Removes all of it, where nothing lives.
    pub(super) fn remove(&self) {
        let Ok(Some(lock)) = self.lock() else {
            return;
        };
        for path in [&self.output, &self.lock] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(path = %path.display(), %error, "a file of a start stays behind");
            }
        }
        drop(lock);
    }
}

impl Lock {
    /// The process that an earlier start has noted.
    pub(super) fn noted(&self, spin_up: SpinUpId) -> Option<LocalReference> {
        let noted = read_note(self.0.try_clone().ok()?)?;
        (noted.spin_up == spin_up).then_some(noted)
    }

    /// Notes the process.
    pub(super) fn note(&self, reference: &LocalReference) -> io::Result<()> {
        let mut file = &self.0;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&serde_json::to_vec(reference)?)
    }

    /// The same lock, for the child to hold.
    pub(super) fn shared(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

fn read_note(mut file: File) -> Option<LocalReference> {
    let mut note = Vec::new();
    file.rewind().ok()?;
    file.take(MOST).read_to_end(&mut note).ok()?;
    serde_json::from_slice(&note).ok()
}
