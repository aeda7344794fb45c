//! The folders in which the nats-servers of tests keep their stores.

use std::env;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;

/// How they are called: this, the pid of the process, something random.
const FOLDER_PREFIX: &str = "loom-test-nats-";

/// A new folder for the store of a server; those of dead processes are removed.
pub(crate) fn new_folder() -> Result<TempDir> {
    remove_leftovers();
    tempfile::Builder::new()
        .prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id()))
        .tempdir()
        .context("make a folder for the store of a test's nats-server")
}

/// Removes the folders of test processes that were killed.
fn remove_leftovers() {
    let Ok(entries) = env::temp_dir().read_dir() else {
        return;
    };
    for folder in entries.flatten().map(|entry| entry.path()) {
        if is_leftover(&folder) {
            // Another test process may have been faster.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn is_leftover(folder: &Path) -> bool {
    let owner = folder
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix(FOLDER_PREFIX))
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse().ok())
        .and_then(Pid::from_raw);
    owner.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn only_folders_of_dead_processes_are_leftovers() {
        let folder = |pid: u32| PathBuf::from(format!("/tmp/{FOLDER_PREFIX}{pid}-abc"));
        assert!(!is_leftover(&folder(std::process::id())));
        assert!(is_leftover(&folder(i32::MAX.cast_unsigned())));
        assert!(!is_leftover(Path::new("/tmp/something-else")));
    }
}
