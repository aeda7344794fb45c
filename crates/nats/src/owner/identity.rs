//! Who this coordinator is: the data directory it lives in, and the process it runs as.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

/// The file in the data directory that holds the instance id, and is locked while a coordinator uses the directory.
const FILE: &str = "instance-id";

/// A coordinator's name towards others on the same NATS. Cheap to clone; the data directory stays locked until the
/// last clone is dropped or the process ends.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(super) instance_id: Uuid,
    pub(super) data_directory: String,
    pub(super) host: String,
    pub(super) pid: u32,
    _lock: Arc<File>,
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process uses it.
    #[error(
        "the data directory {0} is in use by another coordinator on this machine; stop that one, or give this one its own directory"
    )]
    InUse(PathBuf),
    /// The file does not hold an id.
    #[error(
        "{0} does not hold an instance id; remove that file, a new one is made at the next start"
    )]
    Damaged(PathBuf),
    /// The file can't be made, read or locked.
    #[error("{path} can't be used: {source}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Identity {
    /// The identity of the coordinator that lives in `directory`; the same after each restart.
    ///
    /// Makes the directory and its id where they are missing, and locks it against a second process.
    pub fn of_data_directory(directory: &Path) -> Result<Self, IdentityError> {
        let path = directory.join(FILE);
        let failed = |source| IdentityError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => IdentityError::InUse(directory.to_owned()),
            TryLockError::Error(source) => failed(source),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let instance_id = if text.is_empty() {
            let id = Uuid::new_v4();
            file.rewind().map_err(failed)?;
            writeln!(file, "{id}").map_err(failed)?;
            file.sync_all().map_err(failed)?;
            id
        } else {
            let id = text.trim().parse();
            id.map_err(|_| IdentityError::Damaged(path.clone()))?
        };
        let host = rustix::system::uname();
        Ok(Self {
            instance_id,
            data_directory: directory.display().to_string(),
            host: host.nodename().to_string_lossy().into_owned(),
            pid: std::process::id(),
            _lock: Arc::new(file),
        })
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        Path::new(&self.data_directory)
    }

    /// The id of the data directory.
    pub fn instance_id(&self) -> Uuid {
        self.instance_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_id_and_admits_one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let first = Identity::of_data_directory(&directory).unwrap();
        let second = Identity::of_data_directory(&directory).unwrap_err();
        assert!(matches!(second, IdentityError::InUse(_)), "{second}");
        let id = first.instance_id();
        drop(first);
        let again = Identity::of_data_directory(&directory).unwrap();
        assert_eq!(again.instance_id(), id);
    }

    #[test]
    fn a_damaged_id_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "gibberish").unwrap();
        let error = Identity::of_data_directory(directory.path()).unwrap_err();
        assert!(error.to_string().contains("remove that file"), "{error}");
    }
}
