//! From a written configuration to a server that can be connected to.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

use loom_process::OwnChild;

use super::process::Process;
use super::{Running, ServerError, ServerOptions, config, connectable, create_dir, file_error};

/// How often is looked whether the server is ready: it usually takes about 10 ms.
const POLL: Duration = Duration::from_millis(5);
/// How long a port of ours that is taken may stay so; a client that reconnects may hold it for a moment.
const PORT_PATIENCE: Duration = Duration::from_secs(3);
/// How many free ports are tried, when others take them first.
const PORT_TRIES: usize = 20;
/// Where free ports are looked for: below those that systems give to outgoing connections, so that nobody takes the port
/// while the server is down.
const PORTS: std::ops::Range<u16> = 14_000..30_000;

/// What a server says to everyone who connects.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Ready {
    pub(super) server_id: String,
    pub(super) version: String,
}

/// Starts a server where `listen` says; port 0 takes a free one.
pub(super) async fn launch(
    options: &ServerOptions,
    listen: SocketAddr,
) -> Result<(SocketAddr, Running), ServerError> {
    if listen.port() != 0 {
        let patience = Instant::now() + PORT_PATIENCE;
        loop {
            match launch_at(options, listen).await {
                Err(ServerError::PortTaken { .. }) if Instant::now() < patience => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome.map(|running| (listen, running)),
            }
        }
    }
    let mut outcome = Err(ServerError::PortTaken {
        listen,
        reason: "no free port was found".to_owned(),
    });
    for _ in 0..PORT_TRIES {
        let candidate = SocketAddr::new(listen.ip(), fastrand::u16(PORTS));
        outcome = launch_at(options, candidate)
            .await
            .map(|running| (candidate, running));
        if !matches!(outcome, Err(ServerError::PortTaken { .. })) {
            break;
        }
    }
    outcome
}

async fn launch_at(options: &ServerOptions, listen: SocketAddr) -> Result<Running, ServerError> {
    check_port(listen)?;
    create_dir(&options.dir)?;
    let lock = take_lock(options)?;
    forget_former_run(options)?;
    config::write(options, listen)?;

    let log_start = fs::metadata(options.log_path()).map_or(0, |meta| meta.len());
    let startup_log = options.file("startup.log");
    let log = File::create(&startup_log).map_err(file_error("write", &startup_log))?;
    let also_log = log.try_clone().map_err(file_error("write", &startup_log))?;
    let mut command = Command::new(&options.binary);
    command
        .arg("-c")
        .arg(options.file("nats-server.conf"))
        .stdin(Stdio::from(lock))
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(also_log));
    let child = OwnChild::spawn(command, options.on_parent_death)
        .await
        .map_err(|e| ServerError::NotRunnable {
            path: options.binary.clone(),
            reason: e.to_string(),
        })?;
    let process = Arc::new(Process::Child(child));
    note_pid(options, process.pid())?;

    let ready = async {
        loop {
            if process.has_ended() {
                return Err(why_ended(options, &process, listen, log_start).await);
            }
            if told_its_port(options, process.pid()) {
                match ask(listen).await {
                    Ok(ready) => return Ok(ready),
                    Err(error) => tracing::debug!(%listen, %error, "nats-server is not ready yet"),
                }
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let outcome = tokio::time::timeout(options.ready_within, ready).await;
    let outcome = outcome.unwrap_or_else(|_| {
        Err(ServerError::NotReady {
            within: options.ready_within,
            log: options.log_path(),
        })
    });
    let ready = outcome?;
    Ok(Running {
        process,
        version: ready.version,
        server_id: ready.server_id,
    })
}

/// Connects and reads the first line, in which a server introduces itself. JetStream is up by then.
pub(super) async fn ask(listen: SocketAddr) -> io::Result<Ready> {
    let stream = TcpStream::connect(connectable(listen)).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let info = line.strip_prefix("INFO ").ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "what listens there is no nats-server",
        )
    })?;
    serde_json::from_str(info).map_err(io::Error::from)
}

/// Whether somebody else listens there.
fn check_port(listen: SocketAddr) -> Result<(), ServerError> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) => Err(ServerError::PortTaken {
            listen,
            reason: error.to_string(),
        }),
    }
}

/// Locks the store, for the child to inherit.
fn take_lock(options: &ServerOptions) -> Result<File, ServerError> {
    let path = options.lock_path();
    let lock = open_lock(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ServerError::StoreInUse {
            dir: options.dir.clone(),
            pid: pid_in(&path),
        }),
        Err(TryLockError::Error(error)) => Err(file_error("lock", &path)(error)),
    }
}

pub(super) fn open_lock(path: &Path) -> Result<File, ServerError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(file_error("open", path))
}

/// The pid that is written in a lock file.
pub(super) fn pid_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn note_pid(options: &ServerOptions, pid: u32) -> Result<(), ServerError> {
    let path = options.lock_path();
    fs::write(&path, format!("{pid}\n")).map_err(file_error("write", &path))
}

/// A killed server leaves its ports file behind.
fn forget_former_run(options: &ServerOptions) -> Result<(), ServerError> {
    let run_dir = options.run_dir();
    match fs::remove_dir_all(&run_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_error("clear", &run_dir)(error))
        }
        _ => Ok(()),
    }
}

/// Whether *this* process listens: it writes a file named by its pid once it does.
fn told_its_port(options: &ServerOptions, pid: u32) -> bool {
    options
        .run_dir()
        .join(format!("nats-server_{pid}.ports"))
        .exists()
}

/// Why it ended, from what it wrote into its log since `log_start`.
async fn why_ended(
    options: &ServerOptions,
    process: &Process,
    listen: SocketAddr,
    log_start: u64,
) -> ServerError {
    let status = process
        .ended()
        .await
        .map_or_else(|| "status unknown".to_owned(), |status| status.to_string());
    let log = options.log_path();
    let reason = last_complaint(&log, log_start)
        .or_else(|| last_complaint(&options.file("startup.log"), 0))
        .unwrap_or_else(|| "it gave no reason".to_owned());
    if reason.contains("address already in use") {
        return ServerError::PortTaken { listen, reason };
    }
    ServerError::Ended {
        status,
        reason,
        log,
    }
}

/// The last line after `start` that tells of an error, without what stands before the text.
fn last_complaint(log: &Path, start: u64) -> Option<String> {
    let mut text = String::new();
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    file.read_to_string(&mut text).ok()?;
    let complaint = |line: &str| {
        let marks = ["[FTL] ", "[ERR] ", "nats-server: "];
        marks
            .iter()
            .find_map(|mark| Some(line.split_once(mark)?.1.to_owned()))
    };
    text.lines().rev().find_map(complaint)
}
