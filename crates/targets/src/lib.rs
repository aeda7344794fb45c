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
//! | killed | `local` | `ssh` | `webhook` |
//! |---|---|---|---|
//! | before the mechanism did anything | `Absent` | `Absent` | `Unknown` |
//! | between fork and exec, or while the remote script runs | the lock that the child holds says so; `Running` | the same, by a lock on that machine | – |
//! | started, reference not stored | found by the id in its environment: `Running` | by its file and its environment: `Running` | repeated with the same `Idempotency-Key`, which the receiver takes for the same start |
//! | stored | `Running`, or `Ended` with the end of its output | the same | `Unknown`: only its birth tells |
//!
//! [`kubernetes`] has a table of its own: it is found like `local`, by a label, and nothing of it runs before its last step.
//!
//! `github-actions` is not here yet: [`mechanism_for`] says [`Unsupported`]. It will be one more module beside [`local`],
//! with a variant of [`Reference`]. Without the cargo feature `k8s` (on by default) `kubernetes` is [`Unsupported`] too.
#![deny(missing_docs)]

pub mod environment;
mod error;
#[cfg(feature = "k8s")]
pub mod kubernetes;
pub mod local;
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
use loom_protocol::target::{Mechanism, MechanismConfig, TargetConfig};
use tokio_util::sync::CancellationToken;

pub use error::{ProbeError, StartError, StartErrorKind, StopError, Unsupported};
pub use order::StartOrder;
pub use outcome::{AgentEnd, Found, Probe, Started, Stopped};
pub use reference::{
    KubernetesReference, LocalReference, Reference, SshReference, WebhookReference,
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

    /// Why an agent that was started has not begun to run yet, in words; none where it runs, or nobody can tell.
    fn waits_for<'a>(
        &'a self,
        _spin_up: SpinUpId,
        _reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Option<String>, ProbeError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Removes what is kept of a start that is decided, once nothing of it lives: locks and output.
    fn forget(&self, spin_up: SpinUpId) -> BoxFuture<'_, ()>;
}

/// What mechanisms find around them.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// A directory of the coordinator for what is kept of starts; made where it is not there.
    pub folder: PathBuf,
    /// Where the coordinator itself listens; no webhook goes there.
    pub own_addresses: Vec<SocketAddr>,
    /// Whether webhooks may go to link-local addresses and those of cloud metadata.
    pub allow_link_local: bool,
    /// The program `ssh` and what it is told.
    pub ssh: SshProgram,
    /// The kubeconfig; what `KUBECONFIG` names or `~/.kube/config` where absent, and in a pod of a cluster that cluster.
    pub kubeconfig: Option<PathBuf>,
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
        MechanismConfig::GithubActions(_) => return Err(Unsupported(Mechanism::GithubActions)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::target::RawConfig;
    use serde_json::json;

    #[test]
    fn what_is_not_there_yet_says_so() {
        let github = json!({"repo": "o/r", "workflow": "w.yml"});
        let mut missing = vec![(Mechanism::GithubActions, github)];
        if cfg!(not(feature = "k8s")) {
            let kubernetes = json!({"namespace": "n", "jobNamePrefix": "j", "image": "i"});
            missing.push((Mechanism::Kubernetes, kubernetes));
        }
        for (mechanism, config) in missing {
            let raw: RawConfig = serde_json::from_value(config).unwrap();
            let config = TargetConfig::read(mechanism, &raw).unwrap();
            let unsupported = mechanism_for(&config, &Surroundings::default())
                .err()
                .unwrap();
            let text = unsupported.to_string();
            assert!(text.contains(mechanism.as_str()), "{text}");
            let is_built_out = mechanism == Mechanism::Kubernetes;
            assert_eq!(text.contains("cargo feature k8s"), is_built_out, "{text}");
        }
    }
}
