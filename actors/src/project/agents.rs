//! What a project does with an agent across its actors: takes its leases back, keeps it from work, tells it something.

use loom_protocol::agent::{AgentStatus, Directive, DirectiveKind};
use loom_protocol::work::{LeaseRef, Reason};
use loom_protocol::{AgentGuid, Encoding, ErrorCode, Timestamp, WireError, names};

use super::{Project, READY_WITHIN};
use crate::domain::agent::pause_end;
use crate::leases::Leases;
use crate::work_ledger::LeaseInfo;

impl Project {
    /// Takes leases of an agent back, those that `which` names. Gives those that were taken back.
    pub async fn revoke_leases(
        &self,
        guid: AgentGuid,
        reason: Reason,
        which: impl Fn(&LeaseInfo) -> bool,
    ) -> Result<Vec<LeaseRef>, WireError> {
        Leases::of(&self.work, &self.ledger)
            .revoke(guid, reason, which)
            .await
    }

    /// Takes an agent out and its leases back. Gives those leases.
    pub async fn deregister(&self, guid: AgentGuid) -> Result<Vec<LeaseRef>, WireError> {
        // The registry's word of it has them taken back too, maybe sooner.
        let held = self.work.leases_of(guid);
        self.registry.deregister(guid).await?;
        Leases::of(&self.work, &self.ledger)
            .revoke_all(guid, Reason::Released, held)
            .await
    }

    /// Tells a ghost apart: whoever names an agent that is not registered may be one that was buried.
    pub fn heard<T>(&self, guid: AgentGuid, outcome: Result<T, WireError>) -> Result<T, WireError> {
        outcome.inspect_err(|error| {
            if error.code == ErrorCode::NotRegistered {
                self.reaper.unregistered_agent_heard(guid);
            }
        })
    }

    /// Keeps an agent from work, and all who share its limit, before it gives back an item because of
    /// that limit. Only whoever holds the item is believed.
    pub async fn pause_holder(
        &self,
        guid: AgentGuid,
        lease: LeaseRef,
        until: Option<Timestamp>,
        reason: &str,
    ) -> Result<(), WireError> {
        let held = self.work.lease(lease.id);
        if held.is_none_or(|(holder, held)| holder != guid || held.attempt != lease.attempt) {
            return Ok(());
        }
        let until = pause_end(until, self.clock.now());
        let paused = self.registry.pause(guid, until, reason).await;
        match paused {
            Err(error) if error.code == ErrorCode::NotRegistered => Ok(()),
            paused => paused,
        }
    }

    /// Tells every agent that may have a claim open to make it again.
    pub async fn greet_agents(&self, client: &async_nats::Client) -> Result<(), WireError> {
        self.registry.ready(READY_WITHIN).await?;
        let greeting = Directive {
            kind: DirectiveKind::Resume,
            work_item_id: None,
            attempt: None,
            reason: Some("the coordinator has started".into()),
            grace_ms: None,
            instance_id: None,
        };
        for entry in &self.agents.all() {
            let agent = entry.agent();
            if !matches!(agent.status, AgentStatus::Online | AgentStatus::Busy) {
                continue;
            }
            let greeting = Directive {
                instance_id: agent.instance_id.clone(),
                ..greeting.clone()
            };
            let payload = Encoding::Json
                .encode(&greeting)
                .map_err(|error| WireError::new(ErrorCode::Internal, error.to_string()))?;
            let subject = names::directive(&self.id, agent.guid);
            if let Err(error) = client.publish(subject, payload.into()).await {
                tracing::debug!(guid = %agent.guid, "an agent could not be greeted: {error}");
            }
        }
        Ok(())
    }
}
