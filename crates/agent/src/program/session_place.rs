//! Where the conversations of a program lie, so that another attempt can be told where to go on.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use loom_protocol::work::Session;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Adapter;
use crate::directory_name::push_hex;

/// The file that the id of this machine and user stands in, below the user's data directory.
const HOST_ID: &str = "loom/host-id";
/// How much of a digest is told, in hex digits.
const DIGITS: usize = 32;

/// What is the same of all conversations of an agent.
#[derive(Debug, Clone)]
pub struct SessionPlace {
    agent_type: &'static str,
    host_id: String,
    hostname: String,
    store: String,
}

impl SessionPlace {
    /// Where this program keeps them, for the user that this process runs as.
    pub fn of(adapter: &dyn Adapter) -> Self {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = variable("HOME").unwrap_or_default();
        let data = variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
        let host_id = host_id(&data.join(HOST_ID)).unwrap_or_else(|error| {
            tracing::debug!(%error, "this host has no id that lasts; the agent makes one for itself");
            Uuid::new_v4().to_string()
        });
        let (name, below_home) = adapter.config_directory();
        let store = name
            .and_then(variable)
            .unwrap_or_else(|| home.join(below_home));
        let node = rustix::system::uname();
        Self {
            agent_type: adapter.agent_type(),
            host_id,
            hostname: node.nodename().to_string_lossy().into_owned(),
            store: digest(&store),
        }
    }

    /// Of a machine that does not exist, for tests.
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        Self {
            agent_type: "sample",
            host_id: "host-1".into(),
            hostname: "build-1".into(),
            store: "store-1".into(),
        }
    }

    /// A conversation there, of a run in this directory.
    pub fn session(&self, id: &str, path: Option<&str>) -> Session {
        Session {
            agent_type: self.agent_type.into(),
            id: id.into(),
            host_id: self.host_id.clone(),
            hostname: self.hostname.clone(),
            agent_guid: None,
            store: self.store.clone(),
            path: path.map(str::to_owned),
        }
    }
}

/// The id that stands in a file; where there is none, a new one, which is the same for all that make it at once.
fn host_id(file: &Path) -> io::Result<String> {
    let read = || -> io::Result<String> {
        let text = std::fs::read_to_string(file)?;
        let id = Uuid::parse_str(text.trim())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(id.to_string())
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        known => return known,
    }
    let directory = file.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut made = tempfile::NamedTempFile::new_in(directory)?;
    writeln!(made, "{}", Uuid::new_v4())?;
    made.as_file().sync_all()?;
    match made.persist_noclobber(file) {
        Err(lost) if lost.error.kind() != io::ErrorKind::AlreadyExists => Err(lost.error),
        _ => read(),
    }
}

fn digest(directory: &Path) -> String {
    let whole = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let mut digits = String::with_capacity(DIGITS);
    push_hex(&mut digits, "", &digest[..DIGITS / 2]);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_ask_at_once_get_the_same_id_and_so_does_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/host-id");
        let ids: Vec<String> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| host_id(&file).unwrap()))
                .collect();
            asked.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(host_id(&file).unwrap(), ids[0]);
        std::fs::write(&file, "").unwrap();
        assert!(
            host_id(&file).is_err(),
            "what is no id is not taken for one"
        );
    }

    #[test]
    fn another_directory_is_another_store() {
        let (one, other) = (digest(Path::new("/no/one")), digest(Path::new("/no/other")));
        assert_ne!(one, other);
        assert_eq!(
            (one.len(), one.clone()),
            (DIGITS, digest(Path::new("/no/one")))
        );
    }
}
