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
//! | before the mechanism did anything | `Absent` | `Absent` | `Unknown` | `Unknown`; `Absent` once the start is noted |
//! | between fork and exec, while the remote script runs, or a request is under way | the lock that the child holds says so; `Running` | the same, by a lock on that machine | – | noted as perhaps sent: never sent again; `Unknown` until its run is there |
//! | started, reference not stored | found by the id in its environment: `Running` | by its file and its environment: `Running` | repeated with the same `Idempotency-Key`, which the receiver takes for the same start | found by the id in its name: `Running`; `Unknown` until it is there |
//! | stored | `Running`, or `Ended` with the end of its output | the same | `Unknown`: only its birth tells | `Running`, or `Ended` with its conclusion and its jobs |
//!
//! `kubernetes` is not here yet: [`mechanism_for`] says [`Unsupported`]. It will be one more module beside [`local`],
//! with a variant of [`Reference`].
#![deny(missing_docs)]

pub mod environment;
mod error;
pub mod github;
mod http;
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
pub use reference::{GithubReference, LocalReference, Reference, SshReference, WebhookReference};
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
        MechanismConfig::Kubernetes(_) => return Err(Unsupported(Mechanism::Kubernetes)),
        MechanismConfig::GithubActions(config) => {
            Box::new(github::Github::new(config.clone(), around))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom_protocol::target::RawConfig;
    use serde_json::json;

    #[test]
    fn what_is_not_there_yet_says_so() {
        let kubernetes = json!({"namespace": "n", "jobNamePrefix": "j", "image": "i"});
        let raw: RawConfig = serde_json::from_value(kubernetes).unwrap();
        let config = TargetConfig::read(Mechanism::Kubernetes, &raw).unwrap();
        let unsupported = mechanism_for(&config, &Surroundings::default())
            .err()
            .unwrap();
        assert!(unsupported.to_string().contains("kubernetes"));
    }
}
