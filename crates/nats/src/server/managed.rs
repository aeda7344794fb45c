use std::fs::{File, TryLockError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use loom_process::ParentDeath;

use super::endpoint::Endpoint;
use super::process::{Process, Survivor, is_locked};
use super::ready::{ask, open_lock, pid_in};
use super::{
    NatsServer, Profile, Running, ServerError, ServerOptions, create_dir, file_error, find_server,
};

/// The pause before the first restart of a server that ended; doubles with each.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A server that ran this long is restarted after the first pause again.
const STABLE_AFTER: Duration = Duration::from_mins(1);
/// A server that lost its parent a moment ago may be about to end. It is adopted if it still runs after this.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a server that holds the store without answering is waited for.
const SURVIVOR_PATIENCE: Duration = Duration::from_secs(20);

/// How the server of a coordinator is to be run.
#[derive(Debug, Clone)]
pub struct ManagedOptions {
    /// The program; none looks for one, see [`find_server`].
    pub binary: Option<PathBuf>,
    /// The coordinator's data directory. The server's folder is `nats` in it.
    pub data_dir: PathBuf,
    /// Where it listens. Port 0 takes a free one at the first start and stays with it from then on.
    pub listen: SocketAddr,
    /// How often written data is synced to the disk.
    pub profile: Profile,
    /// What becomes of the server when the coordinator is killed.
    pub on_parent_death: ParentDeath,
}

impl ManagedOptions {
    /// A safe server below `data_dir`, on a port of loopback, that ends when the coordinator is killed.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            binary: None,
            data_dir,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            profile: Profile::Safe,
            on_parent_death: ParentDeath::Terminate,
        }
    }
}

/// How a managed server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedState {
    /// It can be connected to.
    Running {
        /// Its process.
        pid: u32,
    },
    /// It ended by itself, and is being restarted.
    Down {
        /// Why it is not up yet.
        reason: String,
    },
    /// It was stopped by [`ManagedServer::stop`].
    Stopped,
}

/// The nats-server of a coordinator. At most one per data directory, whatever crashes.
///
/// It is watched and restarted; its URL stays the same over restarts, and over runs of the coordinator for as long as
/// nobody else takes the port. One that survived a killed coordinator is adopted. Dropped, it kills the server.
#[derive(Debug)]
pub struct ManagedServer {
    server: Arc<NatsServer>,
    adopted: bool,
    endpoint_path: PathBuf,
    state: Arc<watch::Sender<ManagedState>>,
    stopping: CancellationToken,
    wanted: Arc<Notify>,
    watcher: JoinHandle<()>,
    /// Locked: no other coordinator may manage this folder.
    _coordinator_lock: File,
}

impl ManagedServer {
    /// Starts the server, or adopts the one that a killed coordinator left behind. Must be called inside of a tokio runtime.
    pub async fn start(options: ManagedOptions) -> Result<Self, ServerError> {
        let binary = find_server(options.binary.as_deref())?;
        let dir = options.data_dir.join("nats");
        create_dir(&dir)?;
        let coordinator_lock = lock_folder(&dir)?;
        let server_options = ServerOptions {
            listen: options.listen,
            profile: options.profile,
            on_parent_death: options.on_parent_death,
            ..ServerOptions::new(binary, dir)
        };
        let endpoint_path = server_options.file("endpoint.json");
        let known = Endpoint::read(&endpoint_path);
        let survivor = await_survivor(&server_options, known.as_ref()).await?;
        let adopted = survivor.is_some();
        let server = match survivor {
            Some(survivor) => survivor,
            None => start_where_it_was(server_options, known.as_ref()).await?,
        };
        write_endpoint(&server, &endpoint_path)?;

        let server = Arc::new(server);
        let state = Arc::new(watch::Sender::new(running_state(&server)));
        let stopping = CancellationToken::new();
        let wanted = Arc::new(Notify::new());
        let watcher = tokio::spawn(watch(
            Arc::clone(&server),
            endpoint_path.clone(),
            Arc::clone(&state),
            stopping.clone(),
            Arc::clone(&wanted),
        ));
        Ok(Self {
            server,
            adopted,
            endpoint_path,
            state,
            stopping,
            wanted,
            watcher,
            _coordinator_lock: coordinator_lock,
        })
    }

    /// Where clients connect to.
    pub fn client_url(&self) -> String {
        self.server.client_url()
    }

    /// The process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// The version that the server told.
    pub fn version(&self) -> Option<String> {
        self.server.version()
    }

    /// Whether it is a survivor of an earlier coordinator.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// How it is, and each change of that.
    pub fn state(&self) -> watch::Receiver<ManagedState> {
        self.state.subscribe()
    }

    /// What whoever watches over its store needs.
    pub fn control(&self) -> ServerControl {
        ServerControl {
            store: self.server.options.store_path(),
            log: self.server.options.log_path(),
            limit_is_its_own: self.server.options.max_file_store.is_none(),
            state: self.state.subscribe(),
            wanted: Arc::clone(&self.wanted),
        }
    }

    /// Ends it in order. To be called last, after everything that talks to it.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Err(error) = (&mut self.watcher).await {
            tracing::error!(%error, "the watcher of the nats-server was lost");
        }
        let last = endpoint_of(&self.server);
        self.server.stop().await;
        let last = Endpoint { pid: None, ..last };
        if let Err(error) = last.write(&self.endpoint_path) {
            tracing::warn!(%error, "the next start may take another port");
        }
        self.state.send_replace(ManagedState::Stopped);
    }
}

/// Where a managed server keeps its store, how it is, and a way to have it restarted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerControl {
    store: PathBuf,
    log: PathBuf,
    limit_is_its_own: bool,
    state: watch::Receiver<ManagedState>,
    wanted: Arc<Notify>,
}

impl ServerControl {
    /// The folder of the store.
    pub fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// Whether JetStream may hold as much as the disk does, and not what somebody configured.
    pub const fn limit_is_its_own(&self) -> bool {
        self.limit_is_its_own
    }

    /// How the server is.
    pub fn state(&self) -> ManagedState {
        self.state.borrow().clone()
    }

    /// Has it stopped in order and started again.
    pub fn restart(&self) {
        self.wanted.notify_one();
    }
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// A nats-server that runs on the store of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundServer {
    /// Its process, where that is known.
    pub pid: Option<u32>,
    /// Where it was told to listen, where that is known.
    pub url: Option<String>,
    /// The folder of its store.
    pub store: PathBuf,
}

/// The server that runs on the store of a data directory, whoever started it: that of a running coordinator, or one
/// that survived its coordinator.
pub fn server_on(data_dir: &Path) -> Option<FoundServer> {
    let dir = data_dir.join("nats");
    let lock = dir.join("server.lock");
    if !is_locked(&lock) {
        return None;
    }
    let url = Endpoint::read(&dir.join("endpoint.json")).map(|endpoint| endpoint.url);
    Some(FoundServer {
        pid: pid_in(&lock),
        url,
        store: dir.join("store"),
    })
}

/// Refuses a second coordinator on this folder.
fn lock_folder(dir: &Path) -> Result<File, ServerError> {
    let path = dir.join("coordinator.lock");
    let lock = open_lock(&path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(ServerError::Managed {
                dir: dir.to_owned(),
                pid: pid_in(&path),
            });
        }
        Err(TryLockError::Error(error)) => return Err(file_error("lock", &path)(error)),
    }
    std::fs::write(&path, format!("{}\n", std::process::id()))
        .map_err(file_error("write", &path))?;
    Ok(lock)
}

/// The server that runs on the store already, if there is one; waits for the end of one that is about to end.
async fn await_survivor(
    options: &ServerOptions,
    known: Option<&Endpoint>,
) -> Result<Option<NatsServer>, ServerError> {
    let lock = options.lock_path();
    let began = Instant::now();
    while is_locked(&lock) {
        if began.elapsed() >= SETTLE
            && let Some(server) = adopt(options, known).await
        {
            return Ok(Some(server));
        }
        if began.elapsed() >= SURVIVOR_PATIENCE {
            return Err(ServerError::StoreInUse {
                dir: options.dir.clone(),
                pid: pid_in(&lock),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(None)
}

/// Takes over the server that the endpoint file tells of, if it is this one that answers.
async fn adopt(options: &ServerOptions, known: Option<&Endpoint>) -> Option<NatsServer> {
    let known = known?;
    let answer = tokio::time::timeout(Duration::from_secs(2), ask(known.listen)).await;
    let ready = answer.ok()?.ok()?;
    if ready.server_id != known.server_id {
        return None;
    }
    let survivor = Survivor::new(known.pid?, options.lock_path())?;
    tracing::info!(pid = known.pid, url = %known.url, "took over the nats-server of an earlier run");
    let running = Running {
        process: Arc::new(Process::Survivor(survivor)),
        version: ready.version,
        server_id: ready.server_id,
    };
    Some(NatsServer::adopted(options.clone(), known.listen, running))
}

/// Starts on the port of the last run, where none is prescribed.
async fn start_where_it_was(
    options: ServerOptions,
    known: Option<&Endpoint>,
) -> Result<NatsServer, ServerError> {
    let former = known
        .map(|known| known.listen)
        .filter(|former| options.listen.port() == 0 && former.ip() == options.listen.ip());
    let Some(former) = former else {
        return NatsServer::start(options).await;
    };
    let there = ServerOptions {
        listen: former,
        ..options.clone()
    };
    match NatsServer::start(there).await {
        Err(ServerError::PortTaken { reason, .. }) => {
            let server = NatsServer::start(options).await?;
            tracing::warn!(
                former = %former, %reason, now = %server.client_url(),
                "the port of the last run is taken: agents that know the old URL must be told the new one"
            );
            Ok(server)
        }
        outcome => outcome,
    }
}

/// Restarts the server whenever it ends or somebody wants it, until told to stop.
async fn watch(
    server: Arc<NatsServer>,
    endpoint_path: PathBuf,
    state: Arc<watch::Sender<ManagedState>>,
    stopping: CancellationToken,
    wanted: Arc<Notify>,
) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let started = Instant::now();
        let ended = async {
            tokio::select! {
                status = server.ended() => ended_by_itself(status),
                () = wanted.notified() => {
                    server.stop().await;
                    "it is restarted because of its store".to_owned()
                }
            }
        };
        let Some(mut reason) = stopping.run_until_cancelled(ended).await else {
            return;
        };
        if started.elapsed() >= STABLE_AFTER {
            backoff = BACKOFF_FIRST;
        }
        loop {
            tracing::error!(%reason, ?backoff, "nats-server is down and will be restarted");
            state.send_replace(ManagedState::Down { reason });
            let pause = tokio::time::sleep(backoff);
            if stopping.run_until_cancelled(pause).await.is_none() {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            match server.restart().await {
                Ok(()) => break,
                Err(error) => reason = error.to_string(),
            }
        }
        if let Err(error) = write_endpoint(&server, &endpoint_path) {
            tracing::warn!(%error, "after a crash the next run would not find this server");
        }
        tracing::info!(pid = server.pid(), "nats-server is up again");
        state.send_replace(running_state(&server));
    }
}

fn ended_by_itself(status: Option<ExitStatus>) -> String {
    status.map_or_else(
        || "nats-server ended".to_owned(),
        |status| format!("nats-server ended ({status})"),
    )
}

fn running_state(server: &NatsServer) -> ManagedState {
    let pid = server.running.lock().process.pid();
    ManagedState::Running { pid }
}

fn endpoint_of(server: &NatsServer) -> Endpoint {
    let running = server.running.lock().clone();
    Endpoint {
        url: server.client_url(),
        listen: server.listen,
        pid: Some(running.process.pid()),
        version: running.version,
        server_id: running.server_id,
    }
}

/// Writes the endpoint file.
fn write_endpoint(server: &NatsServer, path: &Path) -> Result<(), ServerError> {
    endpoint_of(server).write(path)
}
