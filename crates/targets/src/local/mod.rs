//! `local`: a process beside the coordinator, in a group of its own.
//!
//! - **Environment**: of the coordinator's only what is on the list of [`environment`], then the
//!   target's `env`, then the variables of the order.
//! - **It outlives the coordinator** (`detached`), unless whoever stops the coordinator stops more than that: below
//!   systemd that takes `KillMode=process`. Not detached, it gets TERM when the coordinator dies.
//! - **Found again** by its number, the time of its start and the start of the system; and, where those were not
//!   stored, by the spin-up id in its environment.
//! - **Never doubled**: a lock on a file, taken before the fork and held by the child and all that it starts. While it
//!   stands, a second start with the same id is the first one.
//! - **Output** goes through a pipe to a `tail` of its own, which keeps the end in memory, writes it when the last
//!   writer has ended, and outlives the coordinator too: nobody gets SIGPIPE, and no disk is filled.
//! - **It belongs to a machine**: a coordinator on another one, or in another container, sees neither the process nor the
//!   lock. A start that was recorded elsewhere is surely not begun only for whoever is there ([`Launcher::find_recorded`]).
//! - **Ended** is the whole group, and whatever left it with the spin-up id in its environment.
//!
//! A system without `/proc` finds nothing again: [`Found::Unknown`].

mod files;
mod members;
mod program;
mod sweep;

use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use loom_process::group::end_all;
use loom_process::secrets::Secrets;
use loom_process::stat;
use loom_process::{OwnChild, ParentDeath, Released, lend};
use loom_protocol::SpinUpId;
use loom_protocol::target::LocalConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::order::{StartOrder, values};
use crate::outcome::{AgentEnd, Found, Probe, Started, Stopped};
use crate::reference::{LocalReference, Reference};
use crate::steps::Step;
use crate::{
    Launcher, ProbeError, StartError, StartErrorKind, StopError, Surroundings, environment,
};
use files::{Files, Lock};
use members::{living, members};
pub use sweep::sweep;

/// How long somebody else's start of the same agent may take to be seen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the output of what has ended may take to be written down.
const OUTPUT_WITHIN: Duration = Duration::from_secs(1);

/// Starts agents beside the coordinator.
#[derive(Debug)]
pub struct Local {
    config: LocalConfig,
    around: Surroundings,
}

impl Local {
    /// For one target.
    pub const fn new(config: LocalConfig, around: Surroundings) -> Self {
        Self { config, around }
    }

    fn files(&self, spin_up: SpinUpId) -> Files {
        Files::new(&self.around.folder, spin_up)
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(values(&self.config.env))
    }

    async fn start_or_find(
        &self,
        order: &StartOrder,
        cancel: &CancellationToken,
    ) -> Result<Started, StartError> {
        let files = self.files(order.spin_up);
        self.around.on_step.tell(Step::Begin);
        let until = Instant::now() + PATIENCE;
        loop {
            if cancel.is_cancelled() {
                return Err(StartError::cancelled(&order.spin_up.to_string()));
            }
            let lock = files.lock().map_err(|error| {
                let folder = self.around.folder.display();
                let message = format!(
                    "no agent was started: the folder {folder} of the coordinator can't be written ({error}); make room or mend its rights"
                );
                StartError::new(StartErrorKind::Unavailable, message)
            })?;
            if let Some(lock) = lock {
                if let Some(reference) = lock.noted(order.spin_up) {
                    // It was started and has ended since.
                    return Ok(started(reference, true, None));
                }
                let launched = self.launch(order, &files, &lock).await;
                drop(lock);
                if launched.is_err() {
                    files.remove();
                }
                return launched;
            }
            if let Some(found) = self.existing(order.spin_up, until).await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn launch(
        &self,
        order: &StartOrder,
        files: &Files,
        lock: &Lock,
    ) -> Result<Started, StartError> {
        program::check(&self.config).map_err(StartError::refused)?;
        let output = files.keep_output(self.config.detached).await;
        let mut command = program::command(&self.config);
        self.dress(&mut command, order);
        if let Some(output) = output {
            output.into_both(&mut command);
        } else {
            let nowhere = std::process::Stdio::null;
            command.stdout(nowhere()).stderr(nowhere());
        }
        command.stdin(std::process::Stdio::null());
        let not_started = |error: std::io::Error| {
            let command = &self.config.command;
            if is_for_want(&error) {
                let message = format!(
                    "the command {command:?} was not started: this machine has no more processes, files or memory to give ({error}); try again later"
                );
                return StartError::new(StartErrorKind::Unavailable, message);
            }
            let message =
                format!("the command {command:?} was not started: {error}; mend the target");
            StartError::refused(message)
        };
        lend(&mut command, lock.shared().map_err(not_started)?);
        let death = if self.config.detached {
            ParentDeath::Outlive
        } else {
            ParentDeath::Terminate
        };
        self.around.on_step.tell(Step::Launch);
        // By its environment it can be found from its fork on. Its agent may have registered with the next coordinator
        // when this one stood still meanwhile and its start is dropped.
        let child = OwnChild::spawn_released(command, death).await;
        let Released { pid, end: exit } = child.map_err(not_started)?;
        self.around.on_step.tell(Step::Record);
        let reference = LocalReference {
            spin_up: order.spin_up,
            pid,
            started_at: stat::started_at(pid).unwrap_or_default(),
            boot_id: stat::boot_id().unwrap_or_default(),
            place: self.place(),
        };
        if let Err(error) = lock.note(&reference) {
            // It is found by its environment too.
            tracing::warn!(%error, pid = reference.pid, "not noted which process an agent is");
        }
        let end = told_end(exit, files.clone(), order.secrets(&self.config.env));
        self.around.on_step.tell(Step::Answer);
        Ok(started(reference, false, Some(end)))
    }

    fn dress(&self, command: &mut Command, order: &StartOrder) {
        command
            .env_clear()
            .envs(environment::inherited())
            .envs(self.config.env.expose())
            .envs(order.variables());
    }

    /// The agent that an earlier order has started; none where it is not to be seen yet.
    async fn existing(
        &self,
        spin_up: SpinUpId,
        until: Instant,
    ) -> Result<Option<Started>, StartError> {
        if let Some(reference) = living(spin_up, None, self.place().as_deref()).await {
            return Ok(Some(started(reference, true, None)));
        }
        if Instant::now() < until {
            return Ok(None);
        }
        if let Some(reference) = self.files(spin_up).noted() {
            // It has ended; what holds the lock is something that it left behind.
            return Ok(Some(started(reference, true, None)));
        }
        let message = format!(
            "the start {spin_up} is under way elsewhere, and its process is not to be seen yet; look again later"
        );
        Err(StartError::new(StartErrorKind::InDoubt, message))
    }

    async fn look(&self, spin_up: SpinUpId, reference: Option<&LocalReference>) -> Found {
        if stat::boot_id().is_none() {
            let why = "this system has no /proc to find a process in".to_owned();
            return Found::Unknown { why };
        }
        let here = self.place();
        if let Some(away) = reference.filter(|there| !there.is_seen_from(here.as_deref())) {
            return Found::Unknown {
                why: elsewhere(away),
            };
        }
        let files = self.files(spin_up);
        let until = Instant::now() + PATIENCE;
        loop {
            // Read first: one that is noted while its process is looked for has not ended.
            let noted = reference.cloned().or_else(|| files.noted());
            let was_started = noted.is_some();
            if let Some(reference) = living(spin_up, noted, here.as_deref()).await {
                return Found::Running(Reference::Local(reference));
            }
            let is_held = files.is_held() || (!was_started && files.noted().is_some());
            if is_held && !was_started && Instant::now() < until {
                // A child between fork and exec, whose environment is not its own yet.
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            return if was_started || is_held {
                Found::Ended {
                    output: files.output(&self.secrets(), OUTPUT_WITHIN).await,
                }
            } else {
                Found::Absent
            };
        }
    }

    async fn end(
        &self,
        spin_up: SpinUpId,
        reference: Option<LocalReference>,
        grace: Duration,
    ) -> Result<Stopped, StopError> {
        if stat::boot_id().is_none() {
            let why = "this system has no /proc to find a process in".to_owned();
            return Ok(Stopped::NotPossible { why });
        }
        let here = self.place();
        if let Some(away) = reference
            .as_ref()
            .filter(|there| !there.is_seen_from(here.as_deref()))
        {
            return Ok(Stopped::NotPossible {
                why: elsewhere(away),
            });
        }
        let files = self.files(spin_up);
        let reference = reference.or_else(|| files.noted());
        // Once nobody is found the lock tells whether one is just being forked.
        let found = {
            let files = files.clone();
            std::sync::Arc::new(move || members(spin_up, reference.as_ref(), &files))
        };
        let mut report = end_all(found.clone(), grace).await;
        let until = Instant::now() + PATIENCE;
        while report.found == 0
            && files.noted().is_none()
            && files.is_held()
            && Instant::now() < until
        {
            tokio::time::sleep(LOOK_EVERY).await;
            report = end_all(found.clone(), grace).await;
        }
        if !report.left.is_empty() {
            let message = format!(
                "the processes {:?} of the start {spin_up} do not end, not even by KILL: they hang in the system; look at what they wait for",
                report.left
            );
            return Err(StopError(message));
        }
        Ok(Stopped::Ended {
            processes: report.found,
            killed: report.killed,
            output: files.output(&self.secrets(), OUTPUT_WITHIN).await,
        })
    }
}

impl Launcher for Local {
    fn start<'a>(
        &'a self,
        order: &'a StartOrder,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Started, StartError>> {
        async move { self.start_or_find(order, &cancel).await }.boxed()
    }

    fn find<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>> {
        async move { Ok(self.look(spin_up, of(reference)).await) }.boxed()
    }

    fn stop<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, StopError>> {
        self.end(spin_up, of(reference).cloned(), grace).boxed()
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<Probe, ProbeError>> {
        async move {
            let config = self.config.clone();
            // A network drive that is away keeps whoever asks for it.
            let looking = tokio::task::spawn_blocking(move || program::check(&config));
            let Ok(seen) = tokio::time::timeout(limit, looking).await else {
                let command = &self.config.command;
                let message = format!("the file of the command {command:?} did not answer within {limit:?}; look at its drive");
                return Err(ProbeError(message));
            };
            let seen = seen.map_err(|error| ProbeError(error.to_string()))?;
            Ok(Probe {
                seen: seen.map_err(ProbeError)?,
            })
        }
        .boxed()
    }

    fn place(&self) -> Option<String> {
        self.around.place.clone().or_else(stat::place)
    }

    fn keeps(&self, spin_up: SpinUpId) -> bool {
        self.files(spin_up).are_there()
    }

    fn forget(&self, spin_up: SpinUpId) -> BoxFuture<'_, ()> {
        async move { self.files(spin_up).remove() }.boxed()
    }
}

fn elsewhere(reference: &LocalReference) -> String {
    format!(
        "its process {} was started by a coordinator on another machine or in another container, and cannot be seen from here",
        reference.pid
    )
}

const fn of(reference: Option<&Reference>) -> Option<&LocalReference> {
    match reference {
        Some(Reference::Local(reference)) => Some(reference),
        _ => None,
    }
}

fn started(
    reference: LocalReference,
    existing: bool,
    end: Option<watch::Receiver<Option<AgentEnd>>>,
) -> Started {
    Started {
        reference: Reference::Local(reference),
        existing,
        end,
        output: None,
        waits: None,
    }
}

/// Whether something could not be started because the system has run out of something.
fn is_for_want(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let want = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| want.contains(&errno))
}

/// Tells the end of a child of this coordinator, with what it said last.
fn told_end(
    mut exit: watch::Receiver<Option<ExitStatus>>,
    files: Files,
    secrets: Secrets,
) -> watch::Receiver<Option<AgentEnd>> {
    let (tell, end) = watch::channel(None);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = exit.wait_for(Option::is_some) => ended.ok().and_then(|status| *status),
            () = tell.closed() => return,
        };
        let output = files.output(&secrets, OUTPUT_WITHIN).await;
        tell.send_replace(Some(AgentEnd {
            success: ended.is_some_and(|status| status.success()),
            how: ended.map_or_else(
                || "nobody knows how".to_owned(),
                |status| status.to_string(),
            ),
            output: output.unwrap_or_default(),
        }));
    });
    end
}
