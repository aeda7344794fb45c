//! What one coordinator tells the next about the server that it started.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ServerError, file_error};

/// The endpoint file. Written after each start of the server; kept after its stop, so that the port stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    /// Where clients of this machine connect to.
    pub(super) url: String,
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// None once it was stopped in order.
    pub(super) pid: Option<u32>,
    pub(super) version: String,
    /// Proves that who answers is this very process.
    pub(super) server_id: String,
}

impl Endpoint {
    /// None where there is no such file. An unreadable one is reported and counts as none: it costs a new port at most.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let read = fs::read(path)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match read {
            Ok(endpoint) => Some(endpoint),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the endpoint file can't be read and is not used");
                None
            }
        }
    }

    /// Replaces the file as a whole, so that nobody reads half of it.
    pub(super) fn write(&self, path: &Path) -> Result<(), ServerError> {
        let half = path.with_extension("json.new");
        serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&half, bytes))
            .and_then(|()| fs::rename(&half, path))
            .map_err(file_error("write", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            url: "nats://127.0.0.1:14222".to_owned(),
            listen: "127.0.0.1:14222".parse().unwrap(),
            pid: Some(7),
            version: "2.15.1".to_owned(),
            server_id: "NABC".to_owned(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoint.json");
        assert_eq!(Endpoint::read(&path), None);
        endpoint().write(&path).unwrap();
        assert_eq!(Endpoint::read(&path), Some(endpoint()));
    }

    #[test]
    fn a_torn_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoint.json");
        fs::write(&path, "{\"url\": \"nats://127").unwrap();
        assert_eq!(Endpoint::read(&path), None);
    }
}
