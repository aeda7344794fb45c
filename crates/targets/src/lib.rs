//! The mechanisms that start agents, behind one trait.
//!
//! A [`Launcher`] starts one agent for one target, finds it again, and ends it. It knows neither actors nor settings:
//! what it needs is in the configuration of the target, in the [`StartOrder`] and in the [`Surroundings`].
//!
//! # A start that is in doubt
//! The coordinator may be killed between any two steps. So whoever orders a start writes down the id of it *before*
//! [`Launcher::start`] and the [`Reference`] *after* it; at the next beginning it asks [`Launcher::find`] for each start
//! that is not decided, with the reference where there is one. A start may always be repeated with the same id: while
//! anything of it lives, it is the same start, and is answered with the same reference.
//!
//! | killed | `local` | `ssh` | `webhook` | `github-actions` |
//! |---|---|---|---|---|
//! | before the mechanism did anything | `Absent`, on the same machine | `Absent` | `Unknown` | `Unknown`; `Absent` once the start is noted |
//! | between fork and exec, while the remote script runs, or a request is under way | the lock that the child holds says so; `Running` | the same, by a lock on that machine | – | noted as perhaps sent: never sent again; `Unknown` until its run is there |
//! | started, reference not stored | found by the id in its environment: `Running` | by its file and its environment: `Running` | repeated with the same `Idempotency-Key`, which the receiver takes for the same start | found by the id in its name: `Running`; `Unknown` until it is there |
//! | stored | `Running`, or `Ended` with the end of its output | the same | `Unknown`: only its birth tells | `Running`, or `Ended` with its conclusion and its jobs |
//!
//! [`kubernetes`] has a table of its own: it is found like `local`, by a label, and nothing of it runs before its last step.
//! Without the cargo feature `k8s` (on by default) it is [`Unsupported`].
#![deny(missing_docs)]

pub mod environment;
mod error;
pub mod github;
mod http;
#[cfg(feature = "k8s")]
pub mod kubernetes;
pub mod local;
mod lock_file;
mod order;
mod outcome;
pub mod output;
mod reference;
mod run;
mod shell;
pub mod ssh;
mod steps;
pub mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use loom_protocol::SpinUpId;
#[cfg(not(feature = "k8s"))]
use loom_protocol::target::Mechanism;
use loom_protocol::target::{MechanismConfig, TargetConfig};
use tokio_util::sync::CancellationToken;

pub use error::{ProbeError, StartError, StartErrorKind, StopError, Unsupported};
pub use order::StartOrder;
pub use outcome::{AgentEnd, Found, Probe, Started, Stopped};
pub use reference::{
    GithubReference, KubernetesReference, LocalReference, Reference, SshReference, WebhookReference,
};
pub use ssh::SshProgram;
pub use steps::{Step, StepHook};

/// Starts agents of one target, finds them again, and ends them.
pub trait Launcher: Send + Sync {
    /// Starts an agent. Repeated with the same id it is the same start.
    ///
    /// `cancel` is obeyed at once; what was begun by then is [`StartErrorKind::InDoubt`] and is ended by
    /// [`Launcher::stop`]. Dropping the future is the same.
    fn start<'a>(
        &'a self,
        order: &'a StartOrder,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Started, StartError>>;

    /// What became of a start that was begun, or may have been.
    fn find<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>>;

    /// Where what it starts can be seen, if that is not everywhere: to be recorded with a start, before
    /// [`Launcher::start`].
    fn place(&self) -> Option<String> {
        None
    }

    /// What became of a start without a reference that was recorded at a [`Launcher::place`]. Elsewhere nobody can say
    /// that it was not begun.
    fn find_recorded<'a>(
        &'a self,
        spin_up: SpinUpId,
        place: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>> {
        Box::pin(async move {
            let found = self.find(spin_up, None).await?;
            let here = self.place();
            let is_elsewhere = place.is_some_and(|there| here.is_some_and(|here| here != there));
            Ok(match found {
                Found::Absent if is_elsewhere => Found::Unknown {
                    why: "it was recorded by a coordinator on another machine or in another container, and whether it was begun there cannot be seen from here".to_owned(),
                },
                found => found,
            })
        })
    }

    /// Ends an agent and all that it has started: TERM, and KILL for what is left after `grace`. One that has ended
    /// already is what is wanted.
    fn stop<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, StopError>>;

    /// Whether an agent could be started, without starting one. Ends within `limit`.
    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<Probe, ProbeError>>;

    /// Whether something is kept here of a start, by which it is found again. Asks nobody else.
    fn keeps(&self, spin_up: SpinUpId) -> bool {
        let _ = spin_up;
        false
    }

    /// Removes what is kept of a start that is decided, once nothing of it lives: locks and output.
    fn forget(&self, spin_up: SpinUpId) -> BoxFuture<'_, ()>;
}

/// What mechanisms find around them.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// A directory of the coordinator for what is kept of starts; made where it is not there.
    pub folder: PathBuf,
    /// Among which processes the coordinator runs: what the system says of its machine and container where absent.
    pub place: Option<String>,
    /// Where the coordinator itself listens; no webhook goes there.
    pub own_addresses: Vec<SocketAddr>,
    /// Whether webhooks may go to link-local addresses and those of cloud metadata.
    pub allow_link_local: bool,
    /// The program `ssh` and what it is told.
    pub ssh: SshProgram,
    /// The tunnels by which agents on other machines reach NATS; shared by all that start them.
    pub tunnels: ssh::Tunnels,
    /// The kubeconfig; what `KUBECONFIG` names or `~/.kube/config` where absent, and in a pod of a cluster that cluster.
    pub kubeconfig: Option<PathBuf>,
    /// How fast GitHub may be asked with each token: shared by all that are to obey one limit.
    pub github_limits: github::TokenLimits,
    /// Is told each step of a start, before it is done.
    pub on_step: StepHook,
}

/// The mechanism of a target.
///
/// # Errors
/// This version can't start agents by that mechanism.
pub fn mechanism_for(
    config: &TargetConfig,
    surroundings: &Surroundings,
) -> Result<Box<dyn Launcher>, Unsupported> {
    let around = surroundings.clone();
    Ok(match config.of() {
        MechanismConfig::Local(config) => Box::new(local::Local::new(config.clone(), around)),
        MechanismConfig::Ssh(config) => Box::new(ssh::Ssh::new(config.clone(), around)),
        MechanismConfig::Webhook(config) => Box::new(webhook::Webhook::new(config.clone(), around)),
        #[cfg(feature = "k8s")]
        MechanismConfig::Kubernetes(config) => {
            Box::new(kubernetes::Kubernetes::new(config.clone(), around))
        }
        #[cfg(not(feature = "k8s"))]
        MechanismConfig::Kubernetes(_) => return Err(Unsupported(Mechanism::Kubernetes)),
        MechanismConfig::GithubActions(config) => {
            Box::new(github::Github::new(config.clone(), around))
        }
    })
}

#[cfg(all(test, not(feature = "k8s")))]
mod tests {
    use super::*;
    use loom_protocol::target::RawConfig;
    use serde_json::json;

    #[test]
    fn a_mechanism_that_was_left_out_says_how_to_get_it() {
        let kubernetes = json!({"namespace": "n", "jobNamePrefix": "j", "image": "i"});
        let raw: RawConfig = serde_json::from_value(kubernetes).unwrap();
        let config = TargetConfig::read(Mechanism::Kubernetes, &raw).unwrap();
        let unsupported = mechanism_for(&config, &Surroundings::default());
        let text = unsupported.err().unwrap().to_string();
        assert!(
            text.contains("kubernetes") && text.contains("cargo feature k8s"),
            "{text}"
        );
    }
}
