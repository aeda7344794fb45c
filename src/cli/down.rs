//! `loom down`: ends a coordinator that runs on this machine, in order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use loom_actors::nats::server::{FoundServer, server_on};
use serde_json::json;
use tokio::time::Instant;

use super::Context;
use super::exit::{CliError, CliResult};
use super::output::note;
use crate::coordinator::data_directory;
use crate::running::Running;
use crate::settings::{Override, Sources, load};

/// How long a coordinator may take to end: it drains its actors and stops its nats-server.
const ENDS_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// End the coordinator that runs here on the data directory of the configuration; exit 0 where none runs.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The data directory that it was started with.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Only the one with this process id, where several run on that directory.
    #[arg(long)]
    pid: Option<u32>,
}

/// Ends it, and says what still runs.
pub async fn run(context: &Context, args: &DownArgs) -> CliResult {
    let data_dir = data_dir(context, args.data_dir.as_deref())?;
    let mut running = Running::all(&data_dir);
    if let Some(pid) = args.pid {
        running.retain(|running| running.pid == pid);
    }
    let ended = match &running[..] {
        [] => None,
        [one] => {
            end(one).await?;
            Some(one.pid)
        }
        several => {
            let pids: Vec<String> = several.iter().map(|one| one.pid.to_string()).collect();
            return Err(CliError::Usage(format!(
                "several coordinators run on {}: {}; name one with --pid",
                data_dir.display(),
                pids.join(", ")
            )));
        }
    };
    // Of a coordinator that goes on, the server is its own.
    let left = if Running::all(&data_dir).is_empty() {
        server_on(&data_dir)
    } else {
        None
    };
    if context.out.is_json() {
        let left = left
            .as_ref()
            .map(|left| json!({"pid": left.pid, "store": left.store}));
        return context.out.json(&json!({"ended": ended, "survivor": left}));
    }
    if let Some(left) = &left {
        note(&survivor(left));
    }
    context.out.text(&match ended {
        Some(pid) => format!("the coordinator (pid {pid}) has ended"),
        None => format!("no coordinator runs on {}", data_dir.display()),
    })
}

/// What a nats-server is whose coordinator was killed, and what to do about it.
pub(super) fn survivor(left: &FoundServer) -> String {
    let (pid, stop) = match left.pid {
        Some(pid) => (format!("pid {pid}"), format!(", or `kill {pid}` stops it")),
        None => ("pid unknown".into(), String::new()),
    };
    format!(
        "the nats-server of a coordinator that was killed still runs ({pid}, store {}): `loom up` takes it over{stop}",
        left.store.display()
    )
}

/// The data directory that the command line names, or the configuration.
pub(super) fn data_dir(context: &Context, named: Option<&Path>) -> CliResult<PathBuf> {
    let named = named.map(Path::display);
    let flags = Override::given("--data-dir", "nats.data_dir", named);
    let flags = flags.into_iter().collect();
    let loaded = load(&Sources::of_process(context.config_file(), flags))?;
    Ok(data_directory(&loaded.settings.nats)?)
}

async fn end(running: &Running) -> CliResult {
    let pid = running.pid;
    running.tell_to_end().map_err(|error| {
        CliError::Failed(format!(
            "the coordinator (pid {pid}) cannot be told to end: {error}"
        ))
    })?;
    let deadline = Instant::now() + ENDS_WITHIN;
    while running.lives() {
        if Instant::now() >= deadline {
            return Err(CliError::Failed(format!(
                "the coordinator (pid {pid}) was told to end and has not after {} s; see its log, or `kill -9 {pid}`: nothing that it answered is lost",
                ENDS_WITHIN.as_secs()
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
