//! How everybody else talks to the TargetManager.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_protocol::target::{NewTarget, Target, TargetUpdates};
use loom_protocol::{TargetId, WireError};

use super::actor::TargetMsg;
use super::change::Request;
use super::command::{Command, Outcome, not_found};
use super::key::TargetKey;
use crate::clock::Clock;
use crate::domain::targets::Definition;
use crate::supervision::ActorHandle;
use crate::unavailable::not_reached;

/// How long an answer may take: less than the 3 s in which a request must be answered.
const WITHIN: Duration = Duration::from_millis(2800);

/// The handle of a project's TargetManager. Cheap to clone. Every method is answered when it is durable;
/// `unavailable` means that no answer came in time, and that the change may happen all the same.
///
/// ```no_run
/// use loom_actors::project::Project;
/// use loom_actors::target_manager::TargetManagerHandle;
/// use loom_protocol::WireError;
///
/// async fn switch_off(project: &Project, name: &str) -> Result<(), WireError> {
///     let manager: &TargetManagerHandle = &project.target_manager;
///     let id = project.targets.id_of_name(name);
///     if let Some(target) = id.and_then(|id| project.targets.get(id)) {
///         manager.switch(&target, false).await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct TargetManagerHandle {
    actor: ActorHandle<TargetMsg>,
    clock: Clock,
}

impl TargetManagerHandle {
    /// Wraps the actor's handle.
    pub const fn new(actor: ActorHandle<TargetMsg>, clock: Clock) -> Self {
        Self { actor, clock }
    }

    /// The actor's handle, for supervision and fault injection.
    pub const fn actor(&self) -> &ActorHandle<TargetMsg> {
        &self.actor
    }

    /// Registers a target.
    ///
    /// # Errors
    /// `already-exists`: there is one of that name, in whatever case; or there are too many.
    pub async fn register(&self, new: NewTarget, by: String) -> Result<Outcome, WireError> {
        let target = new.into_target(TargetId::generate(), by, self.clock.now());
        let name = target.name.clone();
        self.ask(&name, Command::Register(target.into())).await
    }

    /// Registers what the configuration file defines, or changes it to that.
    ///
    /// # Errors
    /// `already-exists`: there is one of that name that somebody else has registered.
    pub async fn define(&self, definition: Definition) -> Result<Outcome, WireError> {
        let name = definition.target.name.clone();
        let command = Command::Define {
            definition: definition.into(),
            id: TargetId::generate(),
        };
        self.ask(&name, command).await
    }

    /// Changes some fields.
    ///
    /// # Errors
    /// A field is wrong, or the target is gone.
    pub async fn update(
        &self,
        target: &Target,
        updates: TargetUpdates,
    ) -> Result<Outcome, WireError> {
        let command = Command::Update {
            id: target.id,
            updates: updates.into(),
        };
        self.ask(&target.name, command).await
    }

    /// Switches a target on or off.
    ///
    /// # Errors
    /// It is gone.
    pub async fn switch(&self, target: &Target, on: bool) -> Result<Outcome, WireError> {
        let command = Command::Switch { id: target.id, on };
        self.ask(&target.name, command).await
    }

    /// Removes a target.
    ///
    /// # Errors
    /// It is gone, or has agents.
    pub async fn remove(&self, target: &Target) -> Result<Outcome, WireError> {
        let command = Command::Remove {
            known: target.clone().into(),
            is_repeated: false,
        };
        self.ask(&target.name, command).await
    }

    async fn ask(&self, name: &str, command: Command) -> Result<Outcome, WireError> {
        let key = TargetKey::of(name).ok_or_else(|| not_found(name))?;
        let request = Arc::new(Request {
            key,
            name: name.to_owned(),
            command,
        });
        let was_sent = AtomicBool::new(false);
        let answer = self.actor.call(WITHIN, |reply| {
            // Its actor has died since: what was asked may be done already.
            let request = if was_sent.swap(true, Ordering::Relaxed) {
                Arc::new(request.once_more())
            } else {
                request.clone()
            };
            TargetMsg::CarryOut { request, reply }
        });
        answer.await.map_err(|error| not_reached(&error))?
    }
}

impl Request {
    /// The request, sent once more because its answer got lost.
    fn once_more(&self) -> Self {
        let mut request = self.clone();
        if let Command::Remove { is_repeated, .. } = &mut request.command {
            *is_repeated = true;
        }
        request
    }
}
