//! Programs that somebody else than a coordinator starts because it asked for it: what stands behind a webhook, or runs
//! the job of a workflow. They see nothing of this process's variables but where programs are.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use loom_process::{OwnChild, ParentDeath};
use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;

/// A program, and all starts of it. Cheap to clone. What still runs dies with the process or the runtime of the test.
#[derive(Debug, Clone)]
pub struct Outside(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    arguments: Vec<String>,
    /// By the id of the start: whether it runs.
    starts: Mutex<BTreeMap<String, bool>>,
    /// What they write goes here, a file for each.
    folder: TempDir,
}

impl Inner {
    /// Whether nothing was started for this id; from now on it was.
    fn is_first(&self, id: &str) -> bool {
        let mut starts = self.starts.lock();
        let is_first = !starts.contains_key(id);
        if is_first {
            starts.insert(id.to_owned(), true);
        }
        is_first
    }
}

/// The place of a start among those that run; given back however that ends.
struct Running<'a>(&'a Inner, String);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(runs) = self.0.starts.lock().get_mut(&self.1) {
            *runs = false;
        }
    }
}

impl Outside {
    /// For one program with its arguments.
    ///
    /// # Errors
    /// There is no room for what it writes.
    pub fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            program: program.into(),
            arguments: arguments.iter().map(|&one| one.to_owned()).collect(),
            starts: Mutex::default(),
            folder: tempfile::Builder::new().prefix("loom-outside-").tempdir()?,
        })))
    }

    /// Starts the program with these variables and waits for its end; it gets TERM when `cancelled` is over. `None`: it
    /// was started for this id before.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn run(
        &self,
        id: &str,
        variables: &[(String, String)],
        cancelled: impl Future<Output = ()>,
    ) -> Result<Option<ExitStatus>> {
        if !self.0.is_first(id) {
            return Ok(None);
        }
        let _running = Running(&self.0, id.to_owned());
        let log = File::create(self.0.folder.path().join(id))?;
        let mut command = Command::new(&self.0.program);
        command
            .args(&self.0.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = OwnChild::spawn(command, ParentDeath::Kill).await;
        let child = child.with_context(|| format!("start {}", self.0.program.display()))?;
        tokio::select! {
            _ = child.ended() => {}
            () = cancelled => { child.signal(Signal::TERM); }
        }
        match child.ended().await {
            Some(status) => Ok(Some(status)),
            None => bail!("nobody knows how {} ended", self.0.program.display()),
        }
    }

    /// How many were started.
    pub fn started(&self) -> usize {
        self.0.starts.lock().len()
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.0.starts.lock().values().filter(|runs| **runs).count()
    }

    /// What all of them have written.
    pub fn said(&self) -> String {
        let files = std::fs::read_dir(self.0.folder.path())
            .into_iter()
            .flatten();
        let texts = files.flatten().map(|file| std::fs::read(file.path()));
        let texts =
            texts.map(|text| String::from_utf8_lossy(&text.unwrap_or_default()).into_owned());
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_id_is_one_start_and_its_end_is_told() {
        let outside = Outside::new("sh", &["-c", "echo \"$WORD\"; exec sleep \"$LONG\""]).unwrap();
        let variables = |long: &str| {
            [("WORD", "hello"), ("LONG", long)].map(|(name, value)| (name.into(), value.into()))
        };
        let ended = outside
            .run("a", &variables("0"), std::future::pending())
            .await;
        assert!(ended.unwrap().unwrap().success());
        let again = outside
            .run("a", &variables("0"), std::future::pending())
            .await;
        assert!(again.unwrap().is_none());
        assert_eq!((outside.started(), outside.running()), (1, 0));
        assert_eq!(outside.said(), "hello\n");
        let cancelled = async { assert_eq!(outside.running(), 1) };
        let ended = outside.run("b", &variables("600"), cancelled).await;
        assert!(!ended.unwrap().unwrap().success());
        assert_eq!((outside.started(), outside.running()), (2, 0));
    }
}
