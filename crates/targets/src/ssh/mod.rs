//! `ssh`: a process on another machine, by the system's `ssh`.
//!
//! - **Nothing is asked**: `BatchMode`, a time limit for connecting, and signs of life, so that no call hangs. What the
//!   user's own configuration says of a host counts, but no connection of theirs is shared, and nothing is forwarded.
//! - **The script** of a start (`start.sh`) goes through the connection's standard input to a `sh -s`, once that has
//!   greeted: what was never sent is in no doubt. It is carried out only when all of it has come. So the environment
//!   reaches the command although the server takes no variables, no quoting but the shell's own is needed, and the ticket
//!   is in no command line, here or there.
//! - **Detached**: the agent leads a session of its own, reads nothing, and writes to a `tail` that keeps the end. It
//!   survives the connection. (Where the system ends all that a user left, that takes `loginctl enable-linger`.)
//! - **Never doubled**: a lock on that machine, in a directory of the account (`loom-spin-ups-UID` in the directory for
//!   temporary files, 0700), is taken before the fork and held by the agent and all that it starts. A repeated start
//!   finds it, and answers with the process that is there. Killed anywhere in between, the coordinator has either
//!   started nothing, or is told so by [`Launcher::find`].
//! - **Ended** is the whole session, and whatever has the spin-up id in its environment.
//! - **`reverseTunnel`**: a [`Tunnel`] is held and renewed by the coordinator, apart from the agents that use it; which
//!   ones, and for how long, is the business of [`Tunnels`].
//!
//! That machine has to have `/proc`, `setsid`, `flock` and `tail`.

mod back;
mod options;
mod script;
mod tunnel;
mod tunnels;
mod way;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use loom_process::secrets::Secrets;
use loom_protocol::SpinUpId;
use loom_protocol::target::SshConfig;
use tokio_util::sync::CancellationToken;

use crate::order::{StartOrder, values};
use crate::outcome::{Found, Probe, Started, Stopped};
use crate::reference::{Reference, SshReference};
use crate::run::{self, Ending, Finished, Outputs};
use crate::steps::Step;
use crate::{Launcher, ProbeError, StartError, StartErrorKind, StopError, Surroundings, output};
use script::{Answer, Process};

pub use tunnel::{Forward, Tunnel, TunnelState};
pub use tunnels::Tunnels;

/// How long a script may take once it is there, beside what it waits for by itself.
const SCRIPT: Duration = Duration::from_secs(30);
/// What `ssh` itself ends with where it could not connect.
const NOT_CONNECTED: i32 = 255;

/// The program `ssh` and what it is told.
#[derive(Debug, Clone)]
pub struct SshProgram {
    /// The program; `ssh` by default.
    pub program: PathBuf,
    /// The configuration that it reads; the user's own by default.
    pub config_file: Option<PathBuf>,
    /// The file of the hosts that are known; the user's own by default.
    pub known_hosts_file: Option<PathBuf>,
}

impl Default for SshProgram {
    fn default() -> Self {
        Self {
            program: "ssh".into(),
            config_file: None,
            known_hosts_file: None,
        }
    }
}

/// Starts agents on another machine.
#[derive(Debug)]
pub struct Ssh {
    config: SshConfig,
    around: Surroundings,
}

/// A connection that did not answer.
enum Failure {
    /// Nothing was done there: the script was never sent.
    NotSent(String),
    /// It is not known what was done there.
    Lost(String),
    /// It was cancelled, before or after the script was sent.
    Cancelled { was_sent: bool },
}

impl Ssh {
    /// For one target.
    pub const fn new(config: SshConfig, around: Surroundings) -> Self {
        Self { config, around }
    }

    fn there(&self) -> String {
        format!(
            "{}@{}:{}",
            self.config.user, self.config.host, self.config.port
        )
    }

    fn connect_limit(&self) -> Duration {
        Duration::from_millis(self.config.connection_timeout_ms)
    }

    /// Runs a script there, and reads its answer.
    async fn ask(
        &self,
        script: &str,
        limit: Duration,
        secrets: &Secrets,
        cancel: &CancellationToken,
    ) -> Result<(Answer, String), Failure> {
        let command = options::command(&self.config, &self.around.ssh, options::Use::Script);
        let there = self.there();
        let input = run::Input {
            greeting: script::GREETING,
            ready: script::READY,
            rest: script,
        };
        let finished = run::to_its_end(command, input, limit, cancel).await;
        let finished = finished.map_err(|error| {
            let program = self.around.ssh.program.display();
            Failure::NotSent(format!(
                "the program {program} could not be run ({error}); install openssh-client"
            ))
        })?;
        let Finished {
            how,
            was_ready,
            said,
        } = finished;
        if let Some(answer) = script::answer(&said.stdout.text(usize::MAX)) {
            return Ok((answer, told(&said, secrets)));
        }
        let words = words(&said, secrets);
        let message = match how {
            Ending::Cancelled => {
                let was_sent = was_ready;
                return Err(Failure::Cancelled { was_sent });
            }
            Ending::TooLong => format!(
                "{there} did not answer within {limit:?}; look whether it is reachable{words}"
            ),
            Ending::Exited(status) if status.code() == Some(NOT_CONNECTED) => {
                format!("no connection to {there}: mend host, port, key or known hosts{words}")
            }
            Ending::Exited(status) => format!(
                "{there} ended with {status} and without an answer; look whether the shell of {} runs sh -s{words}",
                self.config.user
            ),
        };
        Err(if was_ready {
            Failure::Lost(message)
        } else {
            Failure::NotSent(message)
        })
    }

    async fn start_there(
        &self,
        order: &StartOrder,
        cancel: &CancellationToken,
    ) -> Result<Started, StartError> {
        let secrets = order.secrets(&self.config.env);
        self.around.on_step.tell(Step::Begin);
        if cancel.is_cancelled() {
            return Err(StartError::cancelled(&order.spin_up.to_string()));
        }
        let way = if self.config.reverse_tunnel {
            Some(self.way_back(order, cancel).await?)
        } else {
            None
        };
        let (tunnel, order) = match &way {
            Some((_lent, port, order)) => (Some(*port), order),
            None => (None, order),
        };
        let script = script::start(&self.config, order, tunnel);
        self.around.on_step.tell(Step::Launch);
        let limit = self.connect_limit() + SCRIPT;
        let asked = self.ask(&script, limit, &secrets, cancel).await;
        self.around.on_step.tell(Step::Record);
        let there = self.there();
        let (answer, said) = asked.map_err(|failure| match failure {
            Failure::NotSent(why) => StartError::new(StartErrorKind::Unavailable, why),
            Failure::Lost(why) => StartError::new(
                StartErrorKind::InDoubt,
                format!("{why} (an agent may have been started)"),
            ),
            Failure::Cancelled { was_sent: false } => {
                StartError::cancelled(&order.spin_up.to_string())
            }
            Failure::Cancelled { was_sent: true } => {
                let message = format!(
                    "the start {} on {there} was cancelled while it was under way",
                    order.spin_up
                );
                StartError::new(StartErrorKind::InDoubt, message)
            }
        })?;
        let started = match answer {
            Answer::Started(process) => self.started(order.spin_up, process, false, said),
            Answer::Existing(process) => self.started(order.spin_up, process, true, said),
            Answer::Refused(why) => {
                return Err(
                    StartError::refused(format!("{there} started nothing: {why}"))
                        .with_output(said),
                );
            }
            Answer::Pending => {
                let message = format!(
                    "the start {} on {there} is under way by another connection; look again later",
                    order.spin_up
                );
                return Err(StartError::new(StartErrorKind::InDoubt, message));
            }
            _ => {
                return Err(StartError::new(
                    StartErrorKind::InDoubt,
                    format!("{there} answered something else"),
                ));
            }
        };
        self.around.on_step.tell(Step::Answer);
        Ok(started)
    }

    fn started(
        &self,
        spin_up: SpinUpId,
        process: Process,
        existing: bool,
        said: String,
    ) -> Started {
        Started {
            reference: Reference::Ssh(self.reference(spin_up, process)),
            existing,
            end: None,
            output: Some(said).filter(|said| !said.is_empty()),
            waits: None,
        }
    }

    fn reference(&self, spin_up: SpinUpId, process: Process) -> SshReference {
        SshReference {
            spin_up,
            host: self.config.host.clone(),
            pid: process.pid,
            started_at: process.started_at,
            boot_id: process.boot_id,
            tunnel_port: process.tunnel,
        }
    }

    /// The host of the target may have been changed since: another machine says nothing of a process.
    fn check_host(&self, reference: Option<&SshReference>) -> Result<(), String> {
        match reference {
            Some(there) if there.host != self.config.host => Err(format!(
                "the process {} was started on {}, and the target leads to {} now: it can be seen and ended there only; set the host back until its agent has gone",
                there.pid, there.host, self.config.host
            )),
            _ => Ok(()),
        }
    }

    async fn look(
        &self,
        spin_up: SpinUpId,
        reference: Option<&SshReference>,
    ) -> Result<Found, ProbeError> {
        self.check_host(reference).map_err(ProbeError)?;
        let secrets = Secrets::new(values(&self.config.env));
        let script = script::find(spin_up, reference);
        let never = CancellationToken::new();
        let limit = self.connect_limit() + SCRIPT;
        let (answer, _) = self.ask(&script, limit, &secrets, &never).await?;
        Ok(match answer {
            Answer::Running(process) => {
                let mut found = self.reference(spin_up, process);
                let noted = reference.and_then(|reference| reference.tunnel_port);
                found.tunnel_port = found.tunnel_port.or(noted);
                Found::Running(Reference::Ssh(found))
            }
            Answer::Ended(said) => {
                let told = output::told(&said, &secrets);
                Found::Ended {
                    output: Some(told).filter(|told| !told.is_empty()),
                }
            }
            Answer::Absent => Found::Absent,
            Answer::Pending => Found::Unknown {
                why: format!("a start is under way on {}", self.there()),
            },
            Answer::Refused(why) => return Err(ProbeError(format!("{}: {why}", self.there()))),
            _ => {
                return Err(ProbeError(format!(
                    "{} answered something else",
                    self.there()
                )));
            }
        })
    }

    async fn end(
        &self,
        spin_up: SpinUpId,
        reference: Option<&SshReference>,
        grace: Duration,
    ) -> Result<Stopped, StopError> {
        self.check_host(reference).map_err(StopError)?;
        let secrets = Secrets::new(values(&self.config.env));
        let script = script::stop(spin_up, reference, grace);
        let never = CancellationToken::new();
        let limit = self.connect_limit() + SCRIPT + grace;
        let (answer, _) = self
            .ask(&script, limit, &secrets, &never)
            .await
            .map_err(ProbeError::from)?;
        let there = self.there();
        match answer {
            Answer::Stopped {
                processes,
                killed,
                said,
            } => {
                let told = output::told(&said, &secrets);
                Ok(Stopped::Ended {
                    processes,
                    killed,
                    output: Some(told).filter(|told| !told.is_empty()),
                })
            }
            Answer::Refused(why) => Err(StopError(format!("{there}: {why}"))),
            _ => Err(StopError(format!("{there} answered something else"))),
        }
    }

    async fn look_around(&self, limit: Duration) -> Result<Probe, ProbeError> {
        let begun = Instant::now();
        let script = script::probe(&self.config);
        let never = CancellationToken::new();
        let (answer, _) = self
            .ask(&script, limit, &Secrets::default(), &never)
            .await?;
        match answer {
            Answer::Fine => {
                let mut seen = format!("{} answers, and the command is there", self.there());
                if self.config.reverse_tunnel {
                    self.try_tunnel(limit.saturating_sub(begun.elapsed()))
                        .await?;
                    seen.push_str("; a tunnel leads from there here");
                }
                Ok(Probe { seen })
            }
            Answer::Refused(why) => Err(ProbeError(format!("{}: {why}", self.there()))),
            _ => Err(ProbeError(format!(
                "{} answered something else",
                self.there()
            ))),
        }
    }
}

impl From<Failure> for ProbeError {
    fn from(failure: Failure) -> Self {
        Self(match failure {
            Failure::NotSent(why) | Failure::Lost(why) => why,
            Failure::Cancelled { .. } => "it was cancelled".to_owned(),
        })
    }
}

/// What `ssh` and the shell there said about themselves.
fn told(said: &Outputs, secrets: &Secrets) -> String {
    output::told(said.stderr.text(usize::MAX).as_bytes(), secrets)
}

fn words(said: &Outputs, secrets: &Secrets) -> String {
    let told = told(said, secrets);
    if told.is_empty() {
        String::new()
    } else {
        format!(" ({})", told.replace(['\r', '\n'], " "))
    }
}

const fn of(reference: Option<&Reference>) -> Option<&SshReference> {
    match reference {
        Some(Reference::Ssh(reference)) => Some(reference),
        _ => None,
    }
}

impl Launcher for Ssh {
    fn start<'a>(
        &'a self,
        order: &'a StartOrder,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Started, StartError>> {
        async move { self.start_there(order, &cancel).await }.boxed()
    }

    fn find<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>> {
        self.look(spin_up, of(reference)).boxed()
    }

    fn stop<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, StopError>> {
        self.end(spin_up, of(reference), grace).boxed()
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<Probe, ProbeError>> {
        self.look_around(limit).boxed()
    }

    fn forget(&self, spin_up: SpinUpId) -> BoxFuture<'_, ()> {
        async move {
            let script = script::forget(spin_up);
            let never = CancellationToken::new();
            let limit = self.connect_limit() + SCRIPT;
            if let Err(failure) = self.ask(&script, limit, &Secrets::default(), &never).await {
                // The system there removes it some day.
                let error = ProbeError::from(failure);
                tracing::debug!(%error, %spin_up, "what is kept of a start stays behind");
            }
        }
        .boxed()
    }
}
