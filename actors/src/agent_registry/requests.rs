//! The verbs of requests.

use std::sync::Arc;

use loom_protocol::agent::{
    Agent, AgentStatus, Directive, DirectiveKind, HeartbeatRequest, RegisterRequest, ShutdownNotice,
};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WireError};
use tokio::time::Instant;

use super::AgentEntry;
use super::actor::State;
use super::drafting::{draft, goes_on};
use super::entry_state::PendingRequest;
use super::messages::{RETRY_AFTER, Registration, Reply, ShutdownCommand, answer};
use crate::domain::agent::{
    self, effective_status, mark_offline, on_heartbeat, reason_heard, request_scale_in, with_status,
};
use crate::liveness::Marker;

/// The refusal of a request that names an agent which is not there.
pub(super) fn not_registered(guid: AgentGuid) -> WireError {
    WireError::new(
        ErrorCode::NotRegistered,
        format!("no agent {guid} is registered; register it (again)"),
    )
}

impl State {
    pub fn register(
        &mut self,
        guid: AgentGuid,
        registration: Box<Registration>,
        reply: Reply<Agent>,
    ) {
        let known = self.args.directory.get(guid);
        let run = registration.request.instance_id.as_deref();
        // What a replaced run asks is no sign of life.
        let may = known.map_or(Ok(()), |known| agent::may_register(known.agent(), run));
        if let Err(error) = may {
            return answer(reply, Err(error));
        }
        self.args.directory.touch(guid, self.now());
        // Refused here, before the bucket is asked for anything.
        match self.draft(guid, &registration) {
            Ok(_) => self.push_request(
                guid,
                PendingRequest::Register {
                    registration,
                    reply,
                },
            ),
            Err(error) => answer(reply, Err(error)),
        }
    }

    pub fn deregister(&mut self, guid: AgentGuid, reply: Reply<()>) {
        if self.args.directory.get(guid).is_some() {
            return self.push_request(guid, PendingRequest::Deregister { reply });
        }
        answer(reply, Err(not_registered(guid)));
    }

    /// The agent that a registration would make now.
    pub fn draft(&self, guid: AgentGuid, registration: &Registration) -> Result<Agent, WireError> {
        let directory = &self.args.directory;
        let mut agent = draft(directory, &registration.request, guid, &self.terms())?;
        if let Some(target) = registration.born_from {
            agent.target_id = Some(target.to_string());
        }
        let known = directory.snapshot(guid);
        Ok(self.apply_group_pause(known.as_ref(), agent))
    }

    /// Whether a registration comes from the run of the program that is known already.
    pub fn goes_on(&self, guid: AgentGuid, request: &RegisterRequest) -> bool {
        goes_on(&self.args.directory, guid, request)
    }

    pub fn heartbeat(&mut self, heartbeat: &HeartbeatRequest) -> Result<Vec<Directive>, WireError> {
        let entry = self.known(heartbeat.guid)?;
        entry.admit(heartbeat.instance_id.as_deref())?;
        if let Some(count) = heartbeat.current_task_count {
            self.args.directory.count(&entry, count);
        }
        self.record_sign_of_life(&entry, heartbeat.status, heartbeat.status_reason.as_deref());
        Ok(entry.directives())
    }

    /// A published heartbeat cannot be answered; an agent that is not known is told to register. A run
    /// that was replaced hears it when it asks for something.
    pub fn published_heartbeat(&mut self, heartbeat: &HeartbeatRequest) {
        match self.heartbeat(heartbeat) {
            Ok(_) => return,
            Err(error) if error.details.is_some() => return,
            Err(_) => {}
        }
        let directive = Directive {
            kind: DirectiveKind::Register,
            work_item_id: None,
            attempt: None,
            reason: Some("the coordinator does not know this agent".to_owned()),
            grace_ms: None,
            instance_id: heartbeat.instance_id.clone(),
        };
        self.outbox.publish_directive(heartbeat.guid, &directive);
    }

    /// What came before has been applied, unless it is held until the bucket has been read.
    pub fn marker(&self, marker: Marker) {
        if self.args.directory.is_loaded() {
            marker.arrived();
        }
    }

    pub fn sign_of_life(&mut self, guid: AgentGuid) -> Result<(), WireError> {
        let entry = self.known(guid)?;
        self.record_sign_of_life(&entry, None, None);
        Ok(())
    }

    /// Any → what a sign of life makes of it.
    fn record_sign_of_life(
        &mut self,
        entry: &AgentEntry,
        reported: Option<AgentStatus>,
        reason: Option<&str>,
    ) {
        let agent = entry.agent();
        entry.touch(self.now());
        let found = effective_status(agent, self.now());
        let status = on_heartbeat(found, reported, entry.is_leaving());
        let status_reason = reason_heard(agent.status_reason.as_deref(), reported, reason);
        if status != agent.status || status_reason != agent.status_reason {
            let agent = Agent {
                status_reason,
                ..with_status(agent, status)
            };
            let guid = agent.guid;
            self.upsert_agent(agent, true);
            self.mark_dirty(guid);
        }
    }

    /// Any → offline, unless it was heard of after `silent_since`. Whether it is offline now.
    pub fn mark_offline(
        &mut self,
        guid: AgentGuid,
        silent_since: Timestamp,
    ) -> Result<bool, WireError> {
        let entry = self.known(guid)?;
        if entry.last_seen() > silent_since {
            return Ok(entry.agent().status == AgentStatus::Offline);
        }
        if let Some(agent) = mark_offline(entry.agent()) {
            self.upsert_agent(agent, true);
            self.mark_dirty(guid);
        }
        Ok(true)
    }

    /// Offline → gone, unless it was heard of after `silent_since`. Who is not there is buried.
    pub fn bury(&mut self, guid: AgentGuid, silent_since: Timestamp, reply: Reply<bool>) {
        match self.args.directory.get(guid) {
            None => answer(reply, Ok(true)),
            Some(entry) if is_dead(&entry, silent_since) => {
                self.push_request(
                    guid,
                    PendingRequest::Bury {
                        silent_since,
                        reply,
                    },
                );
            }
            Some(_) => answer(reply, Ok(false)),
        }
    }

    /// Alive → draining, with the order to end.
    pub fn request_shutdown(
        &mut self,
        guid: AgentGuid,
        order: ShutdownCommand,
    ) -> Result<Agent, WireError> {
        let entry = self.known(guid)?;
        let grace_ms = u64::try_from(order.grace.as_millis()).unwrap_or(u64::MAX);
        let directive = Directive {
            kind: DirectiveKind::Shutdown,
            work_item_id: None,
            attempt: None,
            reason: Some(order.reason.clone()),
            grace_ms: Some(grace_ms),
            instance_id: None,
        };
        self.give(&entry, directive)?;
        entry.set_end_cause(Some(order.cause));
        let notice = ShutdownNotice {
            guid,
            reason: order.reason,
            graceful: order.graceful,
            grace_period_ms: grace_ms,
            instance_id: entry.agent().instance_id.clone(),
        };
        self.outbox.publish_shutdown(&notice);
        if let Some(agent) = request_scale_in(entry.agent()) {
            self.upsert_agent(agent, true);
        }
        self.mark_dirty(guid);
        self.known(guid).map(|entry| entry.snapshot())
    }

    /// Online → draining, with the order to end, of one that has nothing to do. Whether it is given: not where the agent
    /// has an item or something else to do by now, nor from `before` on, when it may be offered one.
    pub fn scale_in_if_idle(
        &mut self,
        guid: AgentGuid,
        order: ShutdownCommand,
        before: Instant,
    ) -> Result<bool, WireError> {
        let entry = self.known(guid)?;
        let is_idle = entry.agent().status == AgentStatus::Online && entry.leases() == 0;
        if !is_idle || Instant::now() >= before {
            return Ok(false);
        }
        self.request_shutdown(guid, order).map(|_| true)
    }

    pub fn add_directive(
        &mut self,
        guid: AgentGuid,
        directive: &Directive,
    ) -> Result<(), WireError> {
        let entry = self.known(guid)?;
        self.give(&entry, directive.clone())
    }

    pub fn clear_directive(
        &mut self,
        guid: AgentGuid,
        directive: &Directive,
    ) -> Result<(), WireError> {
        let entry = self.known(guid)?;
        entry.clear_directive(directive);
        if directive.kind == DirectiveKind::Shutdown {
            self.mark_dirty(guid);
        }
        Ok(())
    }

    /// The order is for the run that is registered now.
    fn give(&mut self, entry: &AgentEntry, directive: Directive) -> Result<(), WireError> {
        let guid = entry.agent().guid;
        let directive = Directive {
            instance_id: entry.agent().instance_id.clone(),
            ..directive
        };
        if !entry.add_directive(directive.clone()) {
            let message = format!("agent {guid} has too many open orders; it must obey some first");
            return Err(WireError::overloaded(message, RETRY_AFTER));
        }
        self.outbox.publish_directive(guid, &directive);
        Ok(())
    }

    pub fn known(&self, guid: AgentGuid) -> Result<Arc<AgentEntry>, WireError> {
        let entry = self.args.directory.get(guid);
        entry.ok_or_else(|| not_registered(guid))
    }
}

/// Whether an agent is offline and was not heard of after `silent_since`.
pub(super) fn is_dead(entry: &AgentEntry, silent_since: Timestamp) -> bool {
    entry.agent().status == AgentStatus::Offline && entry.last_seen() <= silent_since
}
