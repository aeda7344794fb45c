//! Where `loom work …` inside a program leaves word for the agent around it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The variable that names the directory.
pub const VARIABLE: &str = "LOOM_WORK_REPORT_DIR";
const SETTLED: &str = "settled";
const PROGRESS: &str = "progress";
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
pub struct ReportDir(Option<PathBuf>);

impl ReportDir {
    /// Makes one. Without one a program can still report, and only loses the courtesy of being left
    /// in peace afterwards.
    pub fn create() -> Self {
        let name = format!("loom-report-{}", Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Self(Some(path)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no directory for reports");
                Self(None)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// What the program has reported as the end of its work, if it has.
    pub fn settled(&self) -> Option<Outcome> {
        let word = fs::read_to_string(self.0.as_ref()?.join(SETTLED)).ok()?;
        Some(match word.trim() {
            FAILED => Outcome::Failed,
            _ => Outcome::Completed,
        })
    }

    /// When the program last told of progress by itself; `started` if never.
    pub fn last_progress(&self, started: Instant) -> Instant {
        let age = || -> Option<Duration> {
            let file = self.0.as_ref()?.join(PROGRESS);
            fs::metadata(file).ok()?.modified().ok()?.elapsed().ok()
        };
        age()
            .and_then(|age| Instant::now().checked_sub(age))
            .map_or(started, |told| told.max(started))
    }
}

impl Drop for ReportDir {
    fn drop(&mut self) {
        if let Some(dir) = &self.0
            && let Err(error) = fs::remove_dir_all(dir)
        {
            tracing::debug!(dir = %dir.display(), %error, "a directory for reports stays behind");
        }
    }
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
        // Writing a byte renews the time of a file that is there already.
        writeln!(File::create(dir.join(name))?, "{word}")
    };
    if let Some(dir) = std::env::var_os(VARIABLE)
        && let Err(error) = left(dir.into())
    {
        tracing::debug!(%error, "no word could be left for the agent");
    }
}
