//! Agents that were born from a target: they register with a ticket, and are linked to it for as long as they live.
//!
//! | step | after a crash in front of the next one |
//! |---|---|
//! | the registration is looked at as the registry will | nothing has happened: it is sent again |
//! | the ticket is redeemed: bound to the agent and this run of it, and the agent is linked | it registers again, which is the same birth; one that does not is freed after `stale_after` |
//! | the registry writes the agent, with its target | it registers again, with its ticket or without |

use loom_protocol::agent::{Agent, RegisterRequest};
use loom_protocol::target::BirthTicket;
use loom_protocol::{AgentGuid, TargetId, WireError};

use super::Project;
use crate::domain::targets::{OwnedNewborn, digest_of};

impl Project {
    /// Takes an agent in, or renews it, with the target from which it was born. Answered when it is durable.
    ///
    /// # Errors
    /// `forbidden` with the details `{"ticket": "refused"}`: it may not register with that ticket, and is to end.
    pub async fn register(&self, mut request: RegisterRequest) -> Result<Agent, WireError> {
        let born_from = match request.ticket.take() {
            Some(ticket) => Some(self.redeem(&ticket, &mut request).await?),
            None => self.renew(&request).await?,
        };
        self.registry.register_born(request, born_from).await
    }

    async fn redeem(
        &self,
        ticket: &BirthTicket,
        request: &mut RegisterRequest,
    ) -> Result<TargetId, WireError> {
        let guid = *request.guid.get_or_insert_with(|| guid_of(ticket));
        // What would be refused anyhow uses up no ticket.
        let newborn = self.drafted(request, guid).await?;
        self.target_manager.redeem(ticket, newborn).await
    }

    /// The target of an agent that registers without its ticket, where this is the run that was born: it is no more than
    /// its ticket was for either. Another run is another agent, and the one that was born has gone.
    async fn renew(&self, request: &RegisterRequest) -> Result<Option<TargetId>, WireError> {
        let Some(guid) = request.guid else {
            return Ok(None);
        };
        let Some(linked) = self.target_manager.linked(guid).await? else {
            return Ok(None);
        };
        let agent = self.drafted(request, guid).await?;
        let entry = self.agents.get(guid);
        let renewed = self.target_manager.renew(linked, &agent, entry.as_deref());
        renewed.await
    }

    /// What an agent is, as the registry takes it.
    async fn drafted(
        &self,
        request: &RegisterRequest,
        guid: AgentGuid,
    ) -> Result<OwnedNewborn, WireError> {
        let agent = self.registry.draft(request, guid).await?;
        Ok(OwnedNewborn {
            guid,
            instance_id: agent.instance_id,
            agent_type: agent.agent_type,
            capabilities: agent.capabilities,
            boundaries: agent.boundaries,
        })
    }
}

/// The id of an agent that names none: made of its ticket, so that the same registration again is of the same agent.
fn guid_of(ticket: &BirthTicket) -> AgentGuid {
    let digest = digest_of(ticket);
    // Not its beginning: the digest is what is kept of the ticket.
    let mut last = [0; 16];
    last.copy_from_slice(&digest[16..]);
    AgentGuid::from_digest(last)
}
