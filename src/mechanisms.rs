//! The mechanisms that start agents, as the TargetManager wants them: what it orders, in the words of `loom-targets`, and
//! what they answer, in its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use loom_actors::clock::Clock;
use loom_actors::settings::BirthTimeoutSettings;
use loom_actors::target_manager::{
    AgentEnd, FailureKind, Found, Mechanism, Mechanisms, Start, StartFailure, Started, Stopped,
};
use loom_protocol::SpinUpId;
use loom_protocol::target::{Mechanism as Kind, MechanismConfig, Target};
use loom_targets::local::sweep;
use loom_targets::ssh::Tunnels;
use loom_targets::{
    Launcher, Reference, StartError, StartErrorKind, StartOrder, Surroundings, mechanism_for,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Where in the data directory it is kept what is kept of starts.
const FOLDER: &str = "starts";

/// The mechanisms of a process.
#[derive(Debug, Clone)]
pub struct Launchers {
    around: Surroundings,
    /// Where agents find NATS; without credentials.
    nats_url: String,
    clock: Clock,
}

impl Launchers {
    /// Of a coordinator whose API listens at `own`. Agents find NATS at `nats_url`, and through a tunnel the one that this
    /// process reaches at `own_nats_url`. What is kept of starts is below `data_dir`, whichever of the
    /// coordinators of this user and machine has begun them.
    pub fn new(
        data_dir: &Path,
        own: SocketAddr,
        (nats_url, own_nats_url): (String, &str),
        clock: Clock,
    ) -> Self {
        Self {
            around: Surroundings {
                folder: data_dir.join(FOLDER),
                own_addresses: vec![own],
                tunnels: Tunnels::to(own_nats_url),
                ..Surroundings::default()
            },
            nats_url,
            clock,
        }
    }
}

/// Removes what starts have left below `data_dir` and nobody came for, once: when each start that an earlier coordinator has
/// recorded is decided by this one.
pub async fn sweep_starts(data_dir: PathBuf, timeouts: BirthTimeoutSettings) {
    let of_each = Kind::ALL.map(|kind| timeouts.of(kind)).into_iter();
    let age = of_each.max().unwrap_or_default();
    tokio::time::sleep(age).await;
    let folder = data_dir.join(FOLDER);
    let swept = tokio::task::spawn_blocking(move || sweep(&folder, age)).await;
    if let Ok(removed @ 1..) = swept {
        tracing::info!("removed what {removed} starts have left behind");
    }
}

impl Mechanisms for Launchers {
    fn of(&self, target: &Target) -> Result<Arc<dyn Mechanism>, String> {
        let launcher = mechanism_for(&target.config, &self.around);
        Ok(Arc::new(ByLauncher {
            launcher: launcher.map_err(|unsupported| unsupported.to_string())?,
            nats_url: self.nats_url.clone(),
            clock: self.clock.clone(),
        }))
    }

    fn in_use(&self, target: &Target, starts: &[Option<&Value>]) {
        if !matches!(target.config.of(), MechanismConfig::Ssh(_)) {
            return;
        }
        let starts: Vec<_> = starts.iter().map(|start| read(*start)).collect();
        let Surroundings { tunnels, ssh, .. } = &self.around;
        tunnels.keep(target.id, &target.config, ssh, &starts);
    }
}

/// The mechanism of one target.
struct ByLauncher {
    launcher: Box<dyn Launcher>,
    nats_url: String,
    clock: Clock,
}

impl ByLauncher {
    fn order(&self, start: &Start) -> StartOrder {
        let operation = &start.operation;
        let need = operation.need.as_ref();
        StartOrder {
            spin_up: operation.operation_id,
            target_id: operation.target_id,
            target_name: operation.target_name.clone(),
            agent_type: start.agent_type.clone(),
            project: start.project.clone(),
            capabilities: start.capabilities.clone(),
            boundaries: start.boundaries.clone(),
            capability: need.map(|need| need.capability.clone()),
            boundary: need.map(|need| need.boundary.clone()),
            work_item: operation.work_item_id,
            nats_url: self.nats_url.clone(),
            ticket: start.ticket.clone(),
            ordered_at: self.clock.now(),
        }
    }
}

impl Mechanism for ByLauncher {
    fn start<'a>(&'a self, start: &'a Start) -> BoxFuture<'a, Result<Started, StartFailure>> {
        async move {
            let order = self.order(start);
            let started = self.launcher.start(&order, CancellationToken::new()).await;
            let started = started.map_err(|error| failure(&error))?;
            let reference = written(&started.reference).map_err(|message| StartFailure {
                kind: FailureKind::InDoubt,
                message,
                output: None,
            })?;
            let end = started.end.map(|mut end| {
                async move {
                    let ended = end.wait_for(Option::is_some).await;
                    let ended = ended.ok().and_then(|ended| ended.clone());
                    ended.map_or_else(
                        || AgentEnd {
                            how: "nobody knows how".into(),
                            success: false,
                            output: None,
                        },
                        |ended| AgentEnd {
                            how: ended.how,
                            success: ended.success,
                            output: Some(ended.output).filter(|output| !output.is_empty()),
                        },
                    )
                }
                .boxed()
            });
            Ok(Started {
                reference,
                end,
                output: started.output,
                waits: started.waits,
            })
        }
        .boxed()
    }

    fn find<'a>(
        &'a self,
        id: SpinUpId,
        reference: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Found, String>> {
        async move {
            let reference = read(reference);
            let found = self.launcher.find(id, reference.as_ref()).await;
            told(found.map_err(|error| error.to_string())?)
        }
        .boxed()
    }

    fn place(&self) -> Option<String> {
        self.launcher.place()
    }

    fn find_recorded<'a>(
        &'a self,
        id: SpinUpId,
        place: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Found, String>> {
        async move {
            let found = self.launcher.find_recorded(id, place).await;
            told(found.map_err(|error| error.to_string())?)
        }
        .boxed()
    }

    fn stop<'a>(
        &'a self,
        id: SpinUpId,
        reference: Option<&'a Value>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, String>> {
        async move {
            let reference = read(reference);
            let stopped = self.launcher.stop(id, reference.as_ref(), grace).await;
            Ok(match stopped.map_err(|error| error.to_string())? {
                loom_targets::Stopped::Ended {
                    processes,
                    killed,
                    output,
                } => {
                    if processes > 0 {
                        tracing::info!(%id, processes, killed, "what was started is ended (killed: did not obey TERM)");
                    }
                    Stopped::Ended { output }
                }
                loom_targets::Stopped::NotPossible { why } => Stopped::NotPossible { why },
            })
        }
        .boxed()
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<String, String>> {
        async move {
            let probe = self.launcher.probe(limit).await;
            let seen = probe.map(|probe| probe.seen);
            seen.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn keeps(&self, id: SpinUpId) -> bool {
        self.launcher.keeps(id)
    }

    fn forget(&self, id: SpinUpId) -> BoxFuture<'_, ()> {
        self.launcher.forget(id)
    }
}

fn told(found: loom_targets::Found) -> Result<Found, String> {
    Ok(match found {
        loom_targets::Found::Running(reference) => Found::Running(written(&reference)?),
        loom_targets::Found::Waiting { reference, why } => Found::Waiting {
            reference: written(&reference)?,
            why,
        },
        loom_targets::Found::Ended { output } => Found::Ended { output },
        loom_targets::Found::Absent => Found::Absent,
        loom_targets::Found::Unknown { why } => Found::Unknown { why },
    })
}

fn failure(error: &StartError) -> StartFailure {
    StartFailure {
        kind: match error.kind() {
            StartErrorKind::Refused | StartErrorKind::Unavailable | StartErrorKind::Cancelled => {
                FailureKind::NotStarted
            }
            StartErrorKind::InDoubt => FailureKind::InDoubt,
        },
        message: error.to_string(),
        output: error.output().map(ToOwned::to_owned),
    }
}

/// A reference as it is stored.
fn written(reference: &Reference) -> Result<Value, String> {
    let written = serde_json::to_value(reference);
    written.map_err(|error| format!("where a started agent is cannot be written down: {error}"))
}

/// One that was stored; one of a later version says nothing, and the start is found by its id.
fn read(reference: Option<&Value>) -> Option<Reference> {
    serde_json::from_value(reference?.clone()).ok()
}
