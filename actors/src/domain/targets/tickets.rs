//! The ticket of a start: what its agent proves with that it is the one that was started, and what that agent may be.

use loom_protocol::AgentGuid;
use loom_protocol::target::{BirthTicket, Need as WireNeed, Target};
use loom_protocol::work::DEFAULT_BOUNDARY;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Need;

/// The digest of a ticket: the ticket itself is known to the agent only.
pub type TicketDigest = [u8; 32];

/// The digest under which a ticket is kept.
pub fn digest_of(ticket: &BirthTicket) -> TicketDigest {
    Sha256::digest(ticket.expose().as_bytes()).into()
}

/// What the agent of a ticket may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketTerms {
    /// The digest.
    pub digest: TicketDigest,
    /// Its type.
    pub agent_type: String,
    /// What it may do, at the most.
    pub capabilities: Vec<String>,
    /// Where it may work, at the most.
    pub boundaries: Vec<String>,
}

/// An agent that registers with a ticket.
#[derive(Debug, Clone, Copy)]
pub struct Newborn<'a> {
    /// Its id.
    pub guid: AgentGuid,
    /// Its run.
    pub instance_id: Option<&'a str>,
    /// Its type.
    pub agent_type: &'a str,
    /// What it says that it can do.
    pub capabilities: &'a [String],
    /// Where it says that it works.
    pub boundaries: &'a [String],
}

/// A [`Newborn`] that may be sent and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedNewborn {
    /// Its id.
    pub guid: AgentGuid,
    /// Its run.
    pub instance_id: Option<String>,
    /// Its type.
    pub agent_type: String,
    /// What it says that it can do.
    pub capabilities: Vec<String>,
    /// Where it says that it works.
    pub boundaries: Vec<String>,
}

impl OwnedNewborn {
    /// As it is looked at.
    pub fn view(&self) -> Newborn<'_> {
        Newborn {
            guid: self.guid,
            instance_id: self.instance_id.as_deref(),
            agent_type: &self.agent_type,
            capabilities: &self.capabilities,
            boundaries: &self.boundaries,
        }
    }
}

/// Why an agent may not register with its ticket. It is to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefusal {
    /// No start of this project has it, or it is too long ago.
    #[error("no start of an agent is known by this ticket")]
    Unknown,
    /// Somebody else was born by it.
    #[error("agent {0} has registered with this ticket already; a ticket is for one agent")]
    Used(AgentGuid),
    /// It was used, and that agent has gone since.
    #[error("the agent of this ticket has gone; a ticket is for one agent")]
    Gone,
    /// The agent was born by another ticket.
    #[error("agent {0} was born by another ticket and lives")]
    Twice(AgentGuid),
    /// The agent is more than it was started as.
    #[error("the ticket is for {expected}, and the agent says {said}")]
    OtherThan {
        /// What it was started as.
        expected: String,
        /// What it says that it is.
        said: String,
    },
    /// Its start was given up, and the target has no room or is not to be used any more.
    #[error("the start of this agent was given up, and its target {0}")]
    TooLate(String),
}

impl TicketTerms {
    /// What the agent may be that a target starts for this need: all that the target can do, in the boundaries of the
    /// target, or where it has none in that of the need.
    pub fn of(target: &Target, need: Option<&WireNeed>, digest: TicketDigest) -> Self {
        let of_need = || need.map_or(DEFAULT_BOUNDARY, |need| &need.boundary);
        let boundaries = match target.boundaries.as_slice() {
            [] => vec![of_need().to_owned()],
            own => own.to_vec(),
        };
        Self {
            digest,
            agent_type: target.agent_type.clone(),
            capabilities: target.capabilities.clone(),
            boundaries,
        }
    }

    /// Whether the agent of the ticket may take what is needed.
    pub fn serves(&self, need: &Need) -> bool {
        let has = |names: &[String], wanted: &str| names.iter().any(|name| name == wanted);
        let required = need.required_agent_type.as_deref();
        has(&self.capabilities, &need.capability)
            && has(&self.boundaries, &need.boundary)
            && required.is_none_or(|required| required == self.agent_type)
    }

    /// Whether an agent is what the ticket was made for: its type, and neither more capabilities nor more boundaries.
    pub(crate) fn check(&self, newborn: &Newborn<'_>) -> Result<(), TicketRefusal> {
        let beyond = |said: &[String], allowed: &[String]| {
            said.iter().find(|one| !allowed.contains(one)).cloned()
        };
        let other = |what: &str, expected: String, said: &str| TicketRefusal::OtherThan {
            expected: format!("{what} {expected}"),
            said: format!("{said:?}"),
        };
        if newborn.agent_type != self.agent_type {
            let expected = format!("{:?}", self.agent_type);
            return Err(other("the type", expected, newborn.agent_type));
        }
        if let Some(said) = beyond(newborn.capabilities, &self.capabilities) {
            let expected = format!("{:?}", self.capabilities.join(", "));
            return Err(other("the capabilities", expected, &said));
        }
        if let Some(said) = beyond(newborn.boundaries, &self.boundaries) {
            let expected = format!("{:?}", self.boundaries.join(", "));
            return Err(other("the boundaries", expected, &said));
        }
        Ok(())
    }
}
