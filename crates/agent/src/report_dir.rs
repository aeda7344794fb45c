//! Where `loom work …` inside a program leaves word for the agent around it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The variable that names the directory.
pub const VARIABLE: &str = "LOOM_WORK_REPORT_DIR";
const PREFIX: &str = "loom-report-";
/// Locked for as long as the directory is in use.
const LOCK: &str = "lock";
/// How long one that nobody has locked is left alone: it may just be made.
const NEW: Duration = Duration::from_mins(1);
/// The same for one without a lock, as earlier versions made them.
const UNLOCKED: Duration = Duration::from_hours(24);
/// How many entries of the temporary directory are looked at, and how many directories removed at once.
const LOOK_AT: usize = 20_000;
const REMOVE: usize = 500;
const SETTLED: &str = "settled";
const PROGRESS: &str = "progress";
const DESCRIPTION: &str = "description";
const VARIABLES: &str = "variables";
const COMPLETED: &str = "completed";
const FAILED: &str = "failed";

/// What a program has reported by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `loom work complete`
    Completed,
    /// `loom work fail`
    Failed,
}

/// A private directory for one attempt; removed in the end.
#[derive(Debug)]
pub struct ReportDir(Option<(PathBuf, File)>);

impl ReportDir {
    /// Makes one, and leaves the description there as a file, for a program that it is too long for otherwise.
    ///
    /// # Errors
    /// The directory for temporary files can't be written to.
    pub fn create(description: &str) -> io::Result<Self> {
        let name = format!("{PREFIX}{}", Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        let lock = make(&path)?;
        let made = Self(Some((path.clone(), lock)));
        fs::write(path.join(DESCRIPTION), description)?;
        Ok(made)
    }

    /// None. A program can still report, and only loses the courtesy of being left in peace afterwards; one from which
    /// NATS is withheld can't.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|(path, _)| path.as_path())
    }

    /// The file that the description stands in.
    pub fn description(&self) -> Option<PathBuf> {
        self.path().map(|dir| dir.join(DESCRIPTION))
    }

    /// Leaves those of the agent's variables that its program does not find, for `loom work …` inside.
    pub fn tell(&self, variables: &[(String, String)], withheld: &[&str]) {
        let variables = variables.iter().map(|(name, value)| (name, value));
        let variables: BTreeMap<_, _> = variables
            .filter(|(name, _)| withheld.contains(&name.as_str()))
            .collect();
        let Some(path) = self.path().filter(|_| !variables.is_empty()) else {
            return;
        };
        let text = serde_json::to_string(&variables).unwrap_or_default();
        if let Err(error) = fs::write(path.join(VARIABLES), text) {
            tracing::warn!(%error, "`loom work` inside the program will not find NATS");
        }
    }

    /// What the program has reported as the end of its work, if it has.
    pub fn settled(&self) -> Option<Outcome> {
        let word = fs::read_to_string(self.path()?.join(SETTLED)).ok()?;
        Some(match word.trim() {
            FAILED => Outcome::Failed,
            _ => Outcome::Completed,
        })
    }

    /// When the program last told of progress by itself; `started` if never.
    pub fn last_progress(&self, started: Instant) -> Instant {
        let age = || -> Option<Duration> {
            let file = self.path()?.join(PROGRESS);
            fs::metadata(file).ok()?.modified().ok()?.elapsed().ok()
        };
        age()
            .and_then(|age| Instant::now().checked_sub(age))
            .map_or(started, |told| told.max(started))
    }
}

impl Drop for ReportDir {
    fn drop(&mut self) {
        if let Some(dir) = self.path()
            && let Err(error) = fs::remove_dir_all(dir)
        {
            tracing::debug!(dir = %dir.display(), %error, "a directory for reports stays behind");
        }
    }
}

fn make(path: &Path) -> io::Result<File> {
    DirBuilder::new().mode(0o700).create(path)?;
    let lock = File::create(path.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// Removes what agents of this user have left behind that were killed. The rest waits for the next one.
pub fn remove_stale() {
    let removed = remove_stale_in(&std::env::temp_dir(), NEW);
    if removed > 0 {
        tracing::info!(
            removed,
            "directories for reports of killed agents are removed"
        );
    }
}

/// Removes those that nobody has locked and nobody has changed for so long; gives how many.
fn remove_stale_in(dir: &Path, idle: Duration) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let named = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
    };
    let paths = entries.take(LOOK_AT).flatten().filter(named);
    let stale = paths
        .map(|entry| entry.path())
        .filter(|path| is_stale(path, idle));
    let removed = stale.take(REMOVE).filter(|path| {
        let removed = fs::remove_dir_all(path);
        if let Err(error) = &removed {
            tracing::debug!(path = %path.display(), %error, "a directory for reports stays behind");
        }
        removed.is_ok()
    });
    removed.count()
}

fn is_stale(path: &Path, idle: Duration) -> bool {
    let Ok(about) = fs::symlink_metadata(path) else {
        return false;
    };
    let ours = about.is_dir() && about.uid() == rustix::process::getuid().as_raw();
    let age = about.modified().ok().and_then(|at| at.elapsed().ok());
    let Some(age) = age.filter(|age| ours && *age >= idle) else {
        return false;
    };
    match File::open(path.join(LOCK)).map(|lock| lock.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound && age >= UNLOCKED,
    }
}

/// A variable as the program inside finds it, or as the agent has left it by [`ReportDir::tell`].
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().or_else(|| {
        let dir = PathBuf::from(std::env::var_os(VARIABLE)?);
        let text = fs::read_to_string(dir.join(VARIABLES)).ok()?;
        let mut variables: BTreeMap<String, String> = serde_json::from_str(&text).ok()?;
        variables.remove(name)
    })
}

/// Leaves word, from inside the program, that the end of its work is reported.
pub fn leave_settled(outcome: Outcome) {
    leave(
        SETTLED,
        match outcome {
            Outcome::Completed => COMPLETED,
            Outcome::Failed => FAILED,
        },
    );
}

/// Leaves word, from inside the program, of a sign of life.
pub fn leave_progress() {
    leave(PROGRESS, "");
}

fn leave(name: &str, word: &str) {
    let left = |dir: PathBuf| -> io::Result<()> {
        // The agent may look at any time: it finds the whole word or none.
        let part = dir.join(format!("{name}.{}", std::process::id()));
        writeln!(File::create(&part)?, "{word}")?;
        fs::rename(part, dir.join(name))
    };
    if let Some(dir) = std::env::var_os(VARIABLE)
        && let Err(error) = left(dir.into())
    {
        tracing::debug!(%error, "no word could be left for the agent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_agent_left_is_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let in_use = make(&at("loom-report-used")).unwrap();
        drop(make(&at("loom-report-left")).unwrap());
        DirBuilder::new().create(at("loom-report-of-old")).unwrap();
        DirBuilder::new().create(at("other")).unwrap();
        File::create(at("loom-report-file")).unwrap();
        std::os::unix::fs::symlink(at("other"), at("loom-report-link")).unwrap();

        assert_eq!(remove_stale_in(temp.path(), NEW), 0, "it may just be made");
        assert_eq!(remove_stale_in(temp.path(), Duration::ZERO), 1);
        assert!(!at("loom-report-left").exists());
        drop(in_use);
        assert_eq!(remove_stale_in(temp.path(), Duration::ZERO), 1);
        assert!(!at("loom-report-used").exists());
        for stays in [
            "loom-report-of-old",
            "other",
            "loom-report-file",
            "loom-report-link",
        ] {
            assert!(at(stays).exists(), "{stays}");
        }
    }
}
