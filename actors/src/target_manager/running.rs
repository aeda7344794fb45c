//! A start that is recorded and not decided, as the actor holds it.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::Target;
use loom_protocol::{SpinUpId, TargetId};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Reference;
use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::Command;
use super::directory::TargetDirectory;
use super::env::Env;
use super::key::TargetKey;
use super::launching::{Beginning, Launch};
use super::mechanism::Mechanism;
use super::messages::TargetMsg;
use super::tidying::{GRACE, end_and_tidy};
use crate::domain::targets::{Birth, TicketDigest};

/// A start that is recorded.
pub(super) struct Running {
    pub key: TargetKey,
    name: String,
    target: TargetId,
    pub mechanism: Option<Arc<dyn Mechanism>>,
    pub digest: TicketDigest,
    pub reference: Option<Reference>,
    pub phase: Phase,
    pub since: Instant,
    pub timeout: Duration,
    /// What goes on for it; ended when it is replaced.
    pub task: Option<AbortOnDropHandle<()>>,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is begun, or watched.
    Launched,
    /// Its time is over; whether we could hear is found out.
    Suspected,
    /// What was started is ended; then it is given up.
    Ending,
    /// Its agent is born, and the mechanism has not said yet by what it is found.
    Born,
}

impl Running {
    /// One that is begun, or looked for, in a task of its own; or why its target cannot start agents here.
    pub fn launched(
        env: &Env,
        (key, target): (TargetKey, &Target),
        birth: &Birth<Reference>,
        beginning: Beginning,
    ) -> (Self, Option<String>) {
        let id = birth.operation.operation_id;
        let terms = &env.args.births;
        let (mechanism, why_not) = match terms.mechanisms.of(target) {
            Ok(mechanism) => (Some(mechanism), None),
            Err(why_not) => (None, Some(why_not)),
        };
        let task = mechanism.clone().map(|mechanism| {
            let myself = env.myself();
            let launch = Launch {
                id,
                mechanism,
                ownership: env.args.ownership.clone(),
                on_step: terms.on_step.clone(),
                tell: move |news| {
                    let _ = myself.cast(TargetMsg::Launch { id, news });
                },
            };
            AbortOnDropHandle::new(tokio::spawn(launch.run(beginning)))
        });
        let running = Self {
            key,
            name: target.name.clone(),
            target: target.id,
            mechanism,
            digest: birth.ticket.digest,
            reference: birth.reference.clone(),
            phase: Phase::Launched,
            since: Instant::now(),
            timeout: terms.settings.birth_timeout.of(target.mechanism),
            task,
        };
        (running, why_not)
    }

    /// Whether what lies under the name of its target cannot be read.
    pub fn is_unreadable(&self, directory: &TargetDirectory) -> bool {
        directory.unreadable_revision(&self.name).is_some()
    }

    /// Whether it surely never began, and nothing goes on for it.
    pub fn has_never_begun(&self) -> bool {
        let is_waited_for = matches!(self.phase, Phase::Launched | Phase::Suspected);
        is_waited_for && self.task.is_none() && self.reference.is_none() && self.mechanism.is_some()
    }

    /// When its time is over, if we could hear all the while.
    pub fn until(&self) -> Instant {
        self.since + self.timeout
    }

    /// A command of the actor's own about it.
    pub fn request(&self, command: BirthCommand) -> Request {
        Request {
            key: self.key,
            name: self.name.clone(),
            command: Command::Birth {
                id: self.target,
                command,
            },
        }
    }

    /// Ends what was started beside the actor, unless its agent is born late by then.
    pub fn end_later(&self, env: &mut Env, id: SpinUpId) {
        if let Some(mechanism) = self.mechanism.clone() {
            let directory = env.args.directory.clone();
            let is_born = move || {
                let end = directory.end_of(id);
                end.is_some_and(|end| end.operation.agent_guid.is_some())
            };
            let reference = self.reference.clone();
            env.spawn_tidying(end_and_tidy(mechanism, id, reference, is_born, GRACE));
        }
    }
}
