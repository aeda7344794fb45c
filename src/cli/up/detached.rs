//! `loom up -d`: the coordinator as a process of its own, with its log in the data directory.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::cli::Context;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{beside, block};
use crate::running::{Running, Standing};

/// How long the start may take: a large store is read first. Then it goes on by itself.
const STARTS_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much of the log of a failed start is shown, in bytes.
const SHOWN_OF_LOG: u64 = 4 * 1024;
/// What asks for it on the command line.
pub(super) const FLAGS: [&str; 2] = ["-d", "--detach"];

/// Starts the same command line without the flag, and waits until it serves, or stands by.
pub(super) async fn run(context: &Context, data_dir: &Path) -> CliResult<ExitCode> {
    let failed = |what: &str, error: std::io::Error| CliError::Failed(format!("{what}: {error}"));
    fs::create_dir_all(data_dir)
        .map_err(|error| failed(&format!("cannot make {}", data_dir.display()), error))?;
    let path = data_dir.join("loom.log");
    let log = OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|error| failed(&format!("cannot write {}", path.display()), error))?;
    let began = log.metadata().map_or(0, |meta| meta.len());
    let mut child = start(&log).map_err(|error| failed("cannot start the coordinator", error))?;
    let deadline = Instant::now() + STARTS_WITHIN;
    loop {
        let running = Running::of(data_dir, child.id());
        if let Some(running) = running.filter(|running| running.standing != Standing::Starts) {
            return tell(context, &running, &path);
        }
        if let Ok(Some(status)) = child.try_wait() {
            // It has said who it is itself.
            beside(&block(said_since(&path, began).trim_end()));
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
        if Instant::now() >= deadline {
            return Err(CliError::Unreachable(format!(
                "the coordinator (pid {}) does not serve after {} s and goes on starting; see {}, `loom down` ends it",
                child.id(),
                STARTS_WITHIN.as_secs(),
                path.display()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn start(log: &File) -> std::io::Result<Child> {
    let mut words = std::env::args_os().skip(1);
    let words: Vec<OsString> = words
        .by_ref()
        .filter(|word| !FLAGS.iter().any(|flag| word == flag))
        .collect();
    Command::new(std::env::current_exe()?)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        // What interrupts this terminal does not concern it.
        .process_group(0)
        .spawn()
}

fn tell(context: &Context, running: &Running, log: &Path) -> CliResult<ExitCode> {
    if context.out.is_json() {
        let shown = json!({"running": running, "log": log});
        context.out.json(&shown)?;
    } else {
        let does = match running.standing {
            Standing::StandsBy => "stands by",
            Standing::Starts | Standing::Serves => "is up",
        };
        context.out.text(&format!(
            "loom {does} · API {} · NATS {} · pid {} · log {}",
            running.api,
            running.nats_url,
            running.pid,
            log.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The end of what was logged since.
fn said_since(path: &Path, began: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut log = File::open(path)?;
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(began.max(end.saturating_sub(SHOWN_OF_LOG))))?;
        let mut bytes = Vec::new();
        log.take(SHOWN_OF_LOG).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("{}: {error}", path.display()))
}
