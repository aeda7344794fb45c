//! Which coordinators of a data directory run: a small file for each, `running/{pid}.json`, written when its port is
//! taken, again when it stands by or serves, and removed when it ends in order. One of a process that was killed says nothing: its process is not there any more, or
//! is another one that was given the same number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use loom_process::stat::{started_at, state_and_start};
use loom_protocol::Timestamp;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

/// How far a coordinator has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It does not serve yet.
    Starts,
    /// Another one owns; it waits.
    StandsBy,
    /// It serves. What a file of an earlier version means, too.
    #[default]
    Serves,
}

/// A coordinator that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// What the operating system says of the start of that process, in a unit of its own.
    started: Option<String>,
    /// Its API.
    pub api: String,
    /// Its NATS, without credentials; empty while a nats-server of its own is started.
    pub nats_url: String,
    /// How far it has come.
    #[serde(default)]
    pub standing: Standing,
    /// Since when it stands there.
    pub since: Timestamp,
}

impl Running {
    /// This very process, which starts.
    pub fn here(api: String, nats_url: String, since: Timestamp) -> Self {
        let pid = std::process::id();
        Self {
            pid,
            started: started_at(pid),
            api,
            nats_url,
            standing: Standing::Starts,
            since,
        }
    }

    /// Writes it down. The file goes when what is given back is dropped.
    ///
    /// # Errors
    /// The data directory cannot be written.
    pub fn note(&self, data_dir: &Path) -> io::Result<Noted> {
        let folder = folder(data_dir);
        fs::create_dir_all(&folder)?;
        let noted = Noted(folder.join(format!("{}.json", self.pid)));
        noted.again(self)?;
        Ok(noted)
    }

    /// The one of this process, if it runs.
    pub fn of(data_dir: &Path, pid: u32) -> Option<Self> {
        let path = folder(data_dir).join(format!("{pid}.json"));
        let noted: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        noted.lives().then_some(noted)
    }

    /// All that run on a data directory, by their start. Files of those that were killed are removed.
    pub fn all(data_dir: &Path) -> Vec<Self> {
        let files = fs::read_dir(folder(data_dir)).into_iter().flatten();
        let mut found: Vec<Self> = files
            .filter_map(|file| {
                let path = file.ok()?.path();
                if path.extension()? != "json" {
                    return None;
                }
                let noted: Self = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
                if !noted.lives() {
                    // Whoever comes second finds nothing to remove.
                    let _ = fs::remove_file(&path);
                    return None;
                }
                Some(noted)
            })
            .collect();
        found.sort_by_key(|running| running.since);
        found
    }

    /// Whether that process is there still.
    pub fn lives(&self) -> bool {
        if !is_there(self.pid) {
            return false;
        }
        match state_and_start(self.pid) {
            // One that has ended and that nobody has asked after is a name without a process.
            Some((state, started)) => state != "Z" && self.started.as_ref() == Some(&started),
            None => self.started.is_none(),
        }
    }

    /// Tells it to end in order.
    ///
    /// # Errors
    /// It is somebody else's process.
    pub fn tell_to_end(&self) -> io::Result<()> {
        match pid_of(self.pid) {
            Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
            None => Ok(()),
        }
    }
}

/// The file of a coordinator that runs.
#[derive(Debug)]
pub struct Noted(PathBuf);

impl Noted {
    /// Writes down what has become of it.
    ///
    /// # Errors
    /// The data directory cannot be written.
    pub fn again(&self, running: &Running) -> io::Result<()> {
        let half = self.0.with_extension("json.new");
        fs::write(&half, serde_json::to_vec(running)?)?;
        fs::rename(&half, &self.0)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // A file that stays says nothing: the process is gone.
        let _ = fs::remove_file(&self.0);
    }
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("running")
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Whether there is a process with this number, be it somebody else's.
fn is_there(pid: u32) -> bool {
    pid_of(pid).is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Running {
        let since = Timestamp::from_millis(1);
        Running::here(
            "http://127.0.0.1:1".into(),
            "nats://127.0.0.1:2".into(),
            since,
        )
    }

    #[test]
    fn who_serves_is_found_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Running::all(dir.path()), []);
        let noted = here().note(dir.path()).unwrap();
        assert_eq!(Running::all(dir.path()), [here()]);
        assert_eq!(Running::of(dir.path(), here().pid), Some(here()));
        drop(noted);
        assert_eq!(Running::all(dir.path()), []);
    }

    #[test]
    fn how_far_it_has_come_is_written_down_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut running = here();
        let noted = running.note(dir.path()).unwrap();
        running.standing = Standing::StandsBy;
        noted.again(&running).unwrap();
        assert_eq!(Running::all(dir.path()), [running]);
        let mut old = serde_json::to_value(here()).unwrap();
        old.as_object_mut().unwrap().remove("standing");
        let old: Running = serde_json::from_value(old).unwrap();
        assert_eq!(old.standing, Standing::Serves);
    }

    #[test]
    fn a_process_that_was_given_the_number_of_another_is_not_that_one() {
        let dir = tempfile::tempdir().unwrap();
        let former = Running {
            started: Some("an earlier time".into()),
            ..here()
        };
        std::mem::forget(former.note(dir.path()).unwrap());
        assert_eq!(Running::of(dir.path(), former.pid), None);
        assert_eq!(Running::all(dir.path()), []);
        assert_eq!(fs::read_dir(folder(dir.path())).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder(dir.path())).unwrap();
        fs::write(folder(dir.path()).join("7.json"), "{").unwrap();
        assert_eq!(Running::all(dir.path()), []);
    }
}
