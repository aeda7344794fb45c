//! A nats-server of our own, as a child process: on loopback, with JetStream, on a store in its own folder.
//!
//! | file | what it holds |
//! |---|---|
//! | [`find`](find_server) | which binary, and whether it is new enough |
//! | `config` | the configuration file |
//! | `process` | the child: dies with its parent, is waited for, gets signals |
//! | `ready` | when it may be connected to |
//! | [`managed`](ManagedServer) | the one of `loom up`: watched, restarted, adopted after a crash |
//!
//! In the server's folder: `store/`, `nats-server.conf`, `nats-server.log`, `startup.log` and `server.lock`, which is
//! locked for as long as a server runs on the store. The lock is the *child's* (it has the locked file as its standard
//! input), because nats-server takes none by itself: two of them start on one store without a complaint.

mod config;
mod endpoint;
mod error;
mod find;
mod managed;
mod process;
mod ready;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

pub use config::{ClusterOptions, Profile};
pub use error::ServerError;
pub use find::{MINIMUM_VERSION, ServerVersion, find_server};
use loom_process::ParentDeath;
pub use managed::{
    FoundServer, ManagedOptions, ManagedServer, ManagedState, ServerControl, server_on,
};
use process::Process;

/// How long a server may take to end after SIGTERM before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// How a nats-server is to be run.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The program; see [`find_server`].
    pub binary: PathBuf,
    /// The server's own folder; made where it is missing. The store is `store/` in it.
    pub dir: PathBuf,
    /// Where it listens; port 0 takes a free one, and keeps it over restarts.
    pub listen: SocketAddr,
    /// How often written data is synced to the disk.
    pub profile: Profile,
    /// How much a message may carry, in bytes; `None`: the server's own default, 1 MiB.
    pub max_payload: Option<usize>,
    /// What becomes of the server when this process dies without stopping it.
    pub on_parent_death: ParentDeath,
    /// The most that JetStream may hold on the disk, in bytes; none: as much as the disk holds.
    pub max_file_store: Option<u64>,
    /// The cluster that it is one of; none: it is alone.
    pub cluster: Option<ClusterOptions>,
    /// How long it may take until it can be connected to. A large store takes a while after a crash.
    pub ready_within: Duration,
}

impl ServerOptions {
    /// A server in `dir` on a free port of loopback: safe, killed with its parent, ready within a minute.
    pub fn new(binary: PathBuf, dir: PathBuf) -> Self {
        Self {
            binary,
            dir,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            profile: Profile::Safe,
            max_payload: None,
            on_parent_death: ParentDeath::Kill,
            max_file_store: None,
            cluster: None,
            ready_within: Duration::from_mins(1),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Locked for as long as a server runs on the store; holds its pid.
    fn lock_path(&self) -> PathBuf {
        self.file("server.lock")
    }

    /// Where JetStream keeps what it holds.
    fn store_path(&self) -> PathBuf {
        self.file("store")
    }

    fn log_path(&self) -> PathBuf {
        self.file("nats-server.log")
    }

    /// Where the server tells the port it listens on.
    fn run_dir(&self) -> PathBuf {
        self.file("run")
    }
}

/// A running nats-server, or one that was stopped and can be started again on the same store and port.
///
/// Works with any tokio runtime, and from several at once. Dropped, it kills the server, and waits until it is gone.
#[derive(Debug)]
pub struct NatsServer {
    options: ServerOptions,
    /// With the real port.
    listen: SocketAddr,
    /// Held while it is started or stopped.
    turn: tokio::sync::Mutex<()>,
    /// The last process; it may have ended.
    running: Mutex<Running>,
}

#[derive(Debug, Clone)]
struct Running {
    process: Arc<Process>,
    version: String,
    /// Made anew by the server at each start.
    server_id: String,
}

impl NatsServer {
    /// Starts a server and waits until it can be connected to.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let (listen, running) = ready::launch(&options, options.listen).await?;
        Ok(Self {
            options,
            listen,
            turn: tokio::sync::Mutex::new(()),
            running: Mutex::new(running),
        })
    }

    /// Takes over a server that runs already, which its endpoint told.
    fn adopted(options: ServerOptions, listen: SocketAddr, running: Running) -> Self {
        Self {
            options,
            listen,
            turn: tokio::sync::Mutex::new(()),
            running: Mutex::new(running),
        }
    }

    /// Where clients connect to: `nats://127.0.0.1:PORT`. Stays the same over restarts.
    pub fn client_url(&self) -> String {
        format!("nats://{}", connectable(self.listen))
    }

    /// The process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.alive().map(|running| running.process.pid())
    }

    /// The version that the running server told.
    pub fn version(&self) -> Option<String> {
        self.alive().map(|running| running.version)
    }

    /// The server's own folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Ends it in order: SIGTERM, and SIGKILL after 20 s. Does nothing to one that has ended.
    pub async fn stop(&self) {
        let _turn = self.turn.lock().await;
        self.stop_in_turn().await;
    }

    async fn stop_in_turn(&self) {
        let Some(running) = self.alive() else {
            return;
        };
        running.process.signal(Signal::TERM);
        // A paused server would never see the SIGTERM.
        running.process.signal(Signal::CONT);
        let in_time = tokio::time::timeout(STOP_GRACE, running.process.ended()).await;
        if in_time.is_err() {
            let pid = running.process.pid();
            tracing::warn!(pid, "nats-server did not stop in time and is killed");
            running.process.signal(Signal::KILL);
            running.process.ended().await;
        }
    }

    /// `kill -9`, and waits until it is gone. Does nothing to one that has ended.
    pub async fn kill(&self) {
        let _turn = self.turn.lock().await;
        if let Some(running) = self.alive() {
            running.process.signal(Signal::KILL);
            running.process.ended().await;
        }
    }

    /// Starts it again on the same store and the same port; one that still runs is stopped first.
    pub async fn restart(&self) -> Result<(), ServerError> {
        let _turn = self.turn.lock().await;
        self.stop_in_turn().await;
        let (_, running) = ready::launch(&self.options, self.listen).await?;
        *self.running.lock() = running;
        Ok(())
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&self) -> Result<(), ServerError> {
        self.tell_running(Process::pause)
    }

    /// SIGCONT: the end of [`NatsServer::pause`].
    pub fn resume(&self) -> Result<(), ServerError> {
        self.tell_running(|process| process.signal(Signal::CONT))
    }

    /// Returns when the process has ended, with what it ended with where that can be known.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let process = Arc::clone(&self.running.lock().process);
        process.ended().await
    }

    fn tell_running(&self, act: impl FnOnce(&Process) -> bool) -> Result<(), ServerError> {
        let process = Arc::clone(&self.running.lock().process);
        if act(&process) {
            return Ok(());
        }
        Err(ServerError::NotRunning {
            dir: self.options.dir.clone(),
        })
    }

    fn alive(&self) -> Option<Running> {
        let running = self.running.lock().clone();
        (!running.process.has_ended()).then_some(running)
    }
}

/// Where a client on this machine reaches what listens there.
fn connectable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, listen.port())
}

/// A failed access to a file as a [`ServerError`].
fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ServerError {
    let path = path.to_owned();
    move |source| ServerError::File {
        action,
        path,
        source,
    }
}

/// Makes the folder that a server needs.
fn create_dir(path: &Path) -> Result<(), ServerError> {
    fs::create_dir_all(path).map_err(file_error("make the folder", path))
}
