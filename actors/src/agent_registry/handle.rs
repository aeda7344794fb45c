//! The one way to the AgentRegistry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::agent::{Agent, AgentStatus, Directive, HeartbeatRequest, RegisterRequest};
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, TargetId, Timestamp, WireError};
use ractor::RpcReplyPort;

use super::actor::AgentRegistry;
use super::messages::{Msg, Registration};
use super::requests::not_registered;
use super::shared_news::{SharedNews, SharedRefusal};
use super::{AgentDirectory, AgentRegistryArgs, drafting};
use crate::actor_name::ActorName;
use crate::clock::Clock;
use crate::domain::agent::Terms;
use crate::supervision::{ActorHandle, ChildSpec, RestartPolicy};
use crate::unavailable::not_reached;

/// How long a request waits for its answer: less than the 3 s in which it must be answered.
const WITHIN: Duration = Duration::from_millis(2800);

/// Reaches the AgentRegistry of a project, whichever incarnation of it lives. Cheap to clone.
///
/// A request during a restart waits. Errors are refusals ready for the wire; `unavailable` means
/// that no answer came in time, and that the change may happen all the same.
///
/// ```no_run
/// use loom_actors::agent_registry::AgentRegistryHandle;
/// use loom_actors::project::Project;
/// use loom_protocol::WireError;
/// use loom_protocol::agent::RegisterRequest;
///
/// async fn one_more(project: &Project) -> Result<(), WireError> {
///     let registry: &AgentRegistryHandle = &project.registry;
///     let request = RegisterRequest {
///         handle: "ann".into(),
///         agent_type: "reviewer".into(),
///         capabilities: vec!["rust".into()],
///         ..RegisterRequest::default()
///     };
///     let agent = registry.register(request).await?;
///     println!("{} is {}", agent.guid, agent.status);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct AgentRegistryHandle {
    actor: ActorHandle<Msg>,
    pub(super) directory: Arc<AgentDirectory>,
    clock: Clock,
    project: ProjectId,
    heartbeat_every: Duration,
    pub(super) default_grace: Duration,
}

impl AgentRegistryHandle {
    /// A handle for the registry that will run with `args`. Nothing runs yet.
    pub fn new(args: &AgentRegistryArgs) -> Self {
        Self {
            actor: ActorHandle::new(format!(
                "{} of project {}",
                ActorName::AgentRegistry.as_str(),
                args.project
            )),
            directory: Arc::clone(&args.directory),
            clock: args.clock.clone(),
            project: args.project.clone(),
            heartbeat_every: args.settings.heartbeat_every,
            default_grace: args.settings.idle_grace,
        }
    }

    /// What a supervisor needs to run the registry behind this handle.
    pub fn child_spec(&self, policy: RestartPolicy, args: AgentRegistryArgs) -> ChildSpec {
        let args = Arc::new(args);
        let make = move || (AgentRegistry, args.clone());
        ChildSpec::actor(
            ActorName::AgentRegistry.as_str(),
            self.actor.clone(),
            policy,
            make,
        )
        .drain_with(|reply| Msg::Drain { reply })
    }

    /// The read model: everything that only asks goes there.
    pub const fn directory(&self) -> &Arc<AgentDirectory> {
        &self.directory
    }

    /// Waits until the bucket has been read once: from then on an agent that is not in the
    /// directory does not exist.
    pub async fn ready(&self, within: Duration) -> Result<(), WireError> {
        let answer = self.actor.call(within, |reply| Msg::Ready { reply });
        answer.await.map_err(|error| not_reached(&error))
    }

    /// Refuses what comes from another run of an agent than the one that is registered, without a round
    /// trip; waits only until it is known who is there. One that names no run, or an agent that is not
    /// there, is let in.
    pub async fn admit(&self, guid: AgentGuid, run: Option<&str>) -> Result<(), WireError> {
        if run.is_none() {
            return Ok(());
        }
        if self.directory.get(guid).is_none() && !self.directory.is_loaded() {
            self.ready(WITHIN).await?;
        }
        let known = self.directory.get(guid);
        known.map_or(Ok(()), |entry| entry.admit(run))
    }

    /// Registers an agent, answered when it is durable. A known guid keeps its `registeredAt`;
    /// the other fields that are the agent's are taken anew.
    pub async fn register(&self, request: RegisterRequest) -> Result<Agent, WireError> {
        self.register_born(request, None).await
    }

    /// As [`AgentRegistryHandle::register`], of an agent that was born from a target. Its ticket is not asked for
    /// here, and is dropped.
    pub async fn register_born(
        &self,
        mut request: RegisterRequest,
        born_from: Option<TargetId>,
    ) -> Result<Agent, WireError> {
        request.ticket = None;
        let guid = request.guid.unwrap_or_else(AgentGuid::generate);
        let registration = Box::new(Registration { request, born_from });
        self.ask(|reply| Msg::Register {
            guid,
            registration: registration.clone(),
            reply,
        })
        .await
    }

    /// The agent that a registration would make now, for whoever has to know before it is written.
    ///
    /// # Errors
    /// The registration would be refused.
    pub async fn draft(
        &self,
        request: &RegisterRequest,
        guid: AgentGuid,
    ) -> Result<Agent, WireError> {
        if !self.directory.is_loaded() {
            self.ready(WITHIN).await?;
        }
        let terms = Terms {
            project: &self.project,
            heartbeat_every: self.heartbeat_every,
            now: self.clock.now(),
        };
        drafting::draft(&self.directory, request, guid, &terms)
    }

    /// Applies a heartbeat and answers the orders that are open. `not-registered` for an unknown
    /// agent. Works from memory while NATS is away.
    pub async fn heartbeat(
        &self,
        heartbeat: HeartbeatRequest,
    ) -> Result<Vec<Directive>, WireError> {
        self.note_asked(heartbeat.guid);
        if let Some(directives) = self.directory.beat(&heartbeat, self.clock.now()) {
            return Ok(directives);
        }
        self.ask(|reply| Msg::Heartbeat {
            heartbeat: heartbeat.clone(),
            reply,
        })
        .await
    }

    /// Notes that a request named the agent: an offline one is online again when this returns.
    /// `not-registered` for an unknown one.
    pub async fn sign_of_life(&self, guid: AgentGuid) -> Result<(), WireError> {
        self.note_asked(guid);
        match self.directory.touch(guid, self.clock.now()) {
            Some(AgentStatus::Offline) => {}
            Some(_) => return Ok(()),
            None if self.directory.is_loaded() => return Err(not_registered(guid)),
            None => {}
        }
        self.ask(|reply| Msg::SignOfLife { guid, reply }).await
    }

    fn note_asked(&self, guid: AgentGuid) {
        if let Some(entry) = self.directory.get(guid) {
            entry.note_asked();
        }
    }

    /// Applies what the reader of all agents tells of this project; answers what could not be taken.
    pub async fn shared_news(
        &self,
        news: Arc<[SharedNews]>,
    ) -> Result<Vec<SharedRefusal>, WireError> {
        let answer = self.actor.call(WITHIN, |reply| Msg::Shared {
            news: news.clone(),
            reply,
        });
        answer.await.map_err(|error| not_reached(&error))
    }

    /// Removes an agent, answered when that is durable. `not-registered` for an unknown one.
    pub async fn deregister(&self, guid: AgentGuid) -> Result<(), WireError> {
        let known = self.directory.get(guid).is_some();
        match self.ask(|reply| Msg::Deregister { guid, reply }).await {
            // The actor died after it removed the agent and was asked again.
            Err(error) if known && error.code == ErrorCode::NotRegistered => Ok(()),
            outcome => outcome,
        }
    }

    /// Marks an agent offline, unless it was heard of after `silent_since`. Whether it is
    /// offline now.
    pub async fn mark_offline(
        &self,
        guid: AgentGuid,
        silent_since: Timestamp,
    ) -> Result<bool, WireError> {
        self.ask(|reply| Msg::MarkOffline {
            guid,
            silent_since,
            reply,
        })
        .await
    }

    /// Removes the entry of an agent that is offline, unless it was heard of after `silent_since`;
    /// answered when that is durable. Whether it is gone.
    pub async fn bury(&self, guid: AgentGuid, silent_since: Timestamp) -> Result<bool, WireError> {
        self.ask(|reply| Msg::Bury {
            guid,
            silent_since,
            reply,
        })
        .await
    }

    /// Keeps an agent, and all of its `limitGroup`, from work until then; 31 days at the most. A
    /// shorter pause than the present one changes nothing.
    pub async fn pause(
        &self,
        guid: AgentGuid,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), WireError> {
        self.ask(|reply| Msg::Pause {
            guid,
            until,
            reason: reason.to_owned(),
            reply: Some(reply),
        })
        .await
    }

    /// As [`AgentRegistryHandle::pause`], without waiting; lost where the actor is not up.
    pub fn pause_in_background(&self, guid: AgentGuid, until: Timestamp, reason: String) {
        let _ = self.actor.cast(Msg::Pause {
            guid,
            until,
            reason,
            reply: None,
        });
    }

    /// Takes an agent out until an operator lets it in, without waiting; lost where the actor is
    /// not up.
    pub fn quarantine_in_background(&self, guid: AgentGuid, reason: String) {
        let _ = self.actor.cast(Msg::Quarantine { guid, reason });
    }

    /// Ends the quarantine of an agent and its pause (not that of its group).
    pub async fn release_from_quarantine(&self, guid: AgentGuid) -> Result<Agent, WireError> {
        self.ask(|reply| Msg::ReleaseFromQuarantine { guid, reply })
            .await
    }

    /// Fault injection: kills the present incarnation. `false` when there is none.
    pub fn kill(&self) -> bool {
        self.actor.kill()
    }

    /// How often the actor was restarted.
    pub fn restarts(&self) -> u64 {
        self.actor.restarts()
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        make: impl Fn(RpcReplyPort<Result<T, WireError>>) -> Msg + Send + Sync,
    ) -> Result<T, WireError> {
        let answer = self.actor.call(WITHIN, make).await;
        answer.map_err(|error| not_reached(&error))?
    }
}

impl fmt::Debug for AgentRegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentRegistryHandle")
            .field(&self.actor.name())
            .finish()
    }
}
