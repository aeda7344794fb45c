//! How everybody else talks to the TargetManager.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use loom_protocol::target::{
    BirthTicket, NewTarget, SpinUpOperation, SpinUpStatus, Target, TargetHealth, TargetUpdates,
};
use loom_protocol::{AgentGuid, ErrorCode, SpinUpId, TargetId, WireError, WorkId};

use super::birth_command::{BirthCommand, refused};
use super::change::Request;
use super::command::{Command, Outcome, not_found};
use super::directory::{LinkedTo, TargetDirectory, TicketOf};
use super::health::LONGEST_LOOK;
use super::key::TargetKey;
use super::messages::{HealthMsg, TargetMsg};
use super::places::PlacesTaken;
use super::terms::BirthTerms;
use super::trigger::{AgentToEnd, Trigger};
use crate::agent_registry::AgentEntry;
use crate::clock::Clock;
use crate::domain::targets::{Definition, Need, OwnedNewborn, TicketRefusal, digest_of};
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
    directory: Arc<TargetDirectory>,
    terms: BirthTerms,
}

impl TargetManagerHandle {
    /// Wraps the actor's handle.
    pub const fn new(
        actor: ActorHandle<TargetMsg>,
        clock: Clock,
        directory: Arc<TargetDirectory>,
        terms: BirthTerms,
    ) -> Self {
        Self {
            actor,
            clock,
            directory,
            terms,
        }
    }

    /// Which starts take the places of `targets.max_concurrent`, where all are taken: nobody is started until one of
    /// them is decided or has taken its place for its time.
    pub fn places_taken(&self) -> Option<PlacesTaken> {
        let (terms, directory, now) = (&self.terms, &self.directory, self.clock.now());
        PlacesTaken::are_all(terms, directory, now).then(|| PlacesTaken::now(terms, directory, now))
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

    /// An agent registers with a ticket: binds the ticket to this agent and this run of it, and links the agent to its
    /// target. To be called before the registry writes the agent, each time that it registers; the same again is the
    /// same birth. A start that was given up is taken all the same while its target has room. The target is given back.
    ///
    /// # Errors
    /// `forbidden` with the details `{"ticket": "refused"}`: the agent may not be there, and is to end. The ticket is
    /// unknown, was used by another agent or another run, or the agent is more than it was started as. `unavailable`: it
    /// is unknown, and something cannot be read that may know it.
    pub async fn redeem(
        &self,
        ticket: &BirthTicket,
        newborn: OwnedNewborn,
    ) -> Result<TargetId, WireError> {
        self.directory.ready(WITHIN).await?;
        let mut of = self.directory.ticket_of(ticket);
        loop {
            let outcome = self.redeem_of(of.as_ref(), ticket, &newborn).await;
            let again = self.directory.ticket_of(ticket);
            match (outcome, &of, &again) {
                // It was given up just now: a late birth.
                (Err(error), Some(TicketOf::Target(..)), Some(TicketOf::Decided(_)))
                    if error.code == ErrorCode::Forbidden =>
                {
                    of = again;
                }
                (outcome, ..) => return outcome,
            }
        }
    }

    /// From which target an agent was born, as soon as that is known; none where it came by itself.
    ///
    /// # Errors
    /// `unavailable`: the targets have not been read yet.
    pub async fn linked(&self, guid: AgentGuid) -> Result<Option<LinkedTo>, WireError> {
        self.directory.ready(WITHIN).await?;
        Ok(self.directory.linked(guid))
    }

    /// An agent that was born registers without its ticket: its target, where this is the run that was born. Another run,
    /// or one that does not say which it is, is another agent: it has no target, and the link is gone before it registers.
    /// `entry`: what the registry has of that id. Where the one that was born has not come yet, its link stays: it takes
    /// the place of this one when it comes, and loses the link when it does not.
    ///
    /// # Errors
    /// `forbidden` with the details `{"ticket": "refused"}`: it is more than its ticket was for. `unavailable`: it is not
    /// known whether the link has gone.
    pub async fn renew(
        &self,
        linked: LinkedTo,
        agent: &OwnedNewborn,
        entry: Option<&AgentEntry>,
    ) -> Result<Option<TargetId>, WireError> {
        if let Some(target) = self.directory.renewed(agent)? {
            return Ok(Some(target));
        }
        if !entry.is_some_and(|entry| linked.is_of(entry)) {
            return Ok(None);
        }
        let command = BirthCommand::Unlink {
            guid: agent.guid,
            born_by: linked.operation_id,
        };
        let id = linked.target_id;
        let unlinked = self.ask(&linked.target_name, Command::Birth { id, command });
        match unlinked.await {
            // The target has gone, and its links with it.
            Err(error) if error.code != ErrorCode::NotFound => Err(error),
            _ => Ok(None),
        }
    }

    async fn redeem_of(
        &self,
        of: Option<&TicketOf>,
        ticket: &BirthTicket,
        newborn: &OwnedNewborn,
    ) -> Result<TargetId, WireError> {
        let newborn = newborn.clone();
        let guid = newborn.guid;
        let (name, id, command) = match of {
            None => return Err(self.directory.unknown_ticket()),
            Some(TicketOf::Target(name, id)) => {
                let digest = digest_of(ticket);
                (name.clone(), *id, BirthCommand::Redeem { digest, newborn })
            }
            Some(TicketOf::Decided(end)) if end.operation.status == SpinUpStatus::Success => {
                // Its link may stand where nobody can read it, or was to be written there.
                let unreadable = self.directory.unreadable_now(&end.operation.target_name);
                return Err(unreadable.unwrap_or_else(|| refused(&TicketRefusal::Gone)));
            }
            Some(TicketOf::Decided(end)) => {
                let operation = &end.operation;
                let given_up = Box::new((**end).clone());
                let command = BirthCommand::RedeemLate { given_up, newborn };
                (operation.target_name.clone(), operation.target_id, command)
            }
        };
        let elsewhere = self.directory.linked(guid);
        if elsewhere.is_some_and(|linked| linked.target_id != id) {
            return Err(refused(&TicketRefusal::Twice(guid)));
        }
        let outcome = self.ask(&name, Command::Birth { id, command }).await;
        let outcome = outcome.map_err(|error| match error.code {
            // The target was removed: nobody may be born from it.
            ErrorCode::NotFound => refused(&TicketRefusal::TooLate("is gone".into())),
            _ => error,
        })?;
        let is_known = outcome.operation.is_some() || self.directory.linked(guid).is_some();
        if is_known {
            Ok(outcome.target.id)
        } else {
            Err(refused(&TicketRefusal::Gone))
        }
    }

    /// A person asks for an agent: it waits neither for the health of the target nor for the end of its rest. Answered
    /// when the start is decided; what becomes of it, [`TargetDirectory::operation`] tells.
    ///
    /// # Errors
    /// `terminal-state` (409) with the details `{"rule": …}`: the target is disabled, has as many agents as it may, or
    /// its group is paused. `overloaded`: as many starts are under way as may be.
    pub async fn trigger(
        &self,
        target: &Target,
        need: Option<Need>,
        work_item: Option<WorkId>,
    ) -> Result<SpinUpOperation, WireError> {
        let trigger = Arc::new(Trigger {
            operation: SpinUpId::generate(),
            target: target.clone(),
            need,
            work_item,
        });
        let answer = self.actor.call(WITHIN, |reply| TargetMsg::Trigger {
            trigger: trigger.clone(),
            reply,
        });
        let outcome = answer.await.map_err(|error| not_reached(&error))??;
        let operation = outcome.operation.map(|operation| *operation);
        operation.ok_or_else(|| not_found(&target.name))
    }

    /// Ends an agent that was born from a target, by the mechanism that started it, which gives it `grace` between TERM
    /// and KILL. To be called after the agent was told by a directive. Answered when the end was ordered; what can't be
    /// ended by its mechanism is left to that directive.
    ///
    /// # Errors
    /// `not-found`: no target has started it.
    pub async fn end_agent(&self, guid: AgentGuid, grace: Duration) -> Result<(), WireError> {
        let order = AgentToEnd { guid, grace };
        let answer = self
            .actor
            .call(WITHIN, |reply| TargetMsg::EndAgent { order, reply });
        answer.await.map_err(|error| not_reached(&error))?
    }

    /// Looks whether an agent could be started at a target. A look that is under way is shared.
    ///
    /// # Errors
    /// It is gone, too many ask, or it is not known in time.
    pub async fn test(&self, target: &Target) -> Result<TargetHealth, WireError> {
        let answer = self.actor.call(LONGEST_LOOK + WITHIN, |reply| {
            let target = Box::new(target.clone());
            TargetMsg::Health(HealthMsg::Test { target, reply })
        });
        answer.await.map_err(|error| not_reached(&error))?
    }

    /// Removes what lies under a name and cannot be read as a target.
    ///
    /// # Errors
    /// There is no such thing, or it is not known to be gone.
    pub async fn discard_unreadable(&self, name: &str) -> Result<(), WireError> {
        let times_sent = AtomicU32::new(0);
        let answer = self.actor.call(WITHIN, |reply| {
            times_sent.fetch_add(1, Ordering::Relaxed);
            let name = name.to_owned();
            TargetMsg::Discard { name, reply }
        });
        match answer.await.map_err(|error| not_reached(&error))? {
            // The actor before this one has done it, and did not live to say so.
            Err(error) if error.code == ErrorCode::NotFound && times_sent.into_inner() > 1 => {
                Ok(())
            }
            outcome => outcome,
        }
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
