//! Which target starts an agent for what waits, and why another one does not. The only place that decides it: the
//! TargetManager that starts and `work.explain` that tells both ask here.
//!
//! What waits is seen as a *level*, not as an event: a [`Need`] with the number of its items. However often it is looked
//! at, and by however many clients the items were submitted, [`missing`] gives the number of agents that are still to be
//! started, and nothing once they are there or being born.
//!
//! | question | answered by |
//! |---|---|
//! | may this target ever serve the need? | [`serves`]: capability, boundary, type; the same rules by which [`fits`](super::matching::fits) judges agents |
//! | may it start an agent now? | [`may_start`]: enabled, its group not paused, healthy, free, cool |
//! | how many agents are still to be started? | [`missing`] |
//! | which target starts the next one? | [`Roster::pick`]: of the preferred type, then the least recently used |

mod birth_times;
mod born_run;
mod choice;
mod codec;
mod differing;
mod editing;
mod expected;
mod health;
mod late;
mod places;
mod record;
#[cfg(test)]
mod record_tests;
mod roster;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tickets;

use std::fmt;
use std::sync::Arc;

use loom_protocol::Timestamp;

pub use self::birth_times::BirthTimes;
pub use self::born_run::BornRun;
pub use self::codec::{NotARecord, decode, decode_end, encode, encode_end};
pub(crate) use self::differing::differing;
pub(crate) use self::editing::BY_CONFIG;
pub use self::editing::{Definition, MechanismInUse, StillInUse};
pub use self::health::Checkup;
pub use self::places::Places;
pub use self::record::{Birth, DecidedBirth, LinkedAgent, TargetRecord};
pub use self::roster::Roster;
pub use self::tickets::{
    Newborn, OwnedNewborn, TicketDigest, TicketRefusal, TicketTerms, digest_of,
};
use super::matching::{Requirements, listed};

/// What an agent must bring to take an item. The preferred type is no part of it: it orders targets and keeps none out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Need {
    /// The capability.
    pub capability: Arc<str>,
    /// The boundary.
    pub boundary: Arc<str>,
    /// The only agent type that will do.
    pub required_agent_type: Option<Arc<str>>,
}

impl From<&Requirements> for Need {
    fn from(requirements: &Requirements) -> Self {
        Self {
            capability: requirements.capability.clone(),
            boundary: requirements.boundary.clone(),
            required_agent_type: requirements.required_agent_type.clone(),
        }
    }
}

impl From<&loom_protocol::target::Need> for Need {
    fn from(need: &loom_protocol::target::Need) -> Self {
        Self {
            capability: need.capability.as_str().into(),
            boundary: need.boundary.as_str().into(),
            required_agent_type: need.required_agent_type.as_deref().map(Arc::from),
        }
    }
}

impl From<&Need> for loom_protocol::target::Need {
    fn from(need: &Need) -> Self {
        Self {
            capability: need.capability.to_string(),
            boundary: need.boundary.to_string(),
            required_agent_type: need.required_agent_type.as_deref().map(str::to_owned),
        }
    }
}

impl From<&loom_protocol::target::Target> for TargetProfile {
    fn from(target: &loom_protocol::target::Target) -> Self {
        let shared = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        Self {
            agent_type: target.agent_type.as_str().into(),
            capabilities: shared(&target.capabilities),
            boundaries: shared(&target.boundaries),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "capability {:?} in boundary {:?}",
            self.capability, self.boundary
        )?;
        match &self.required_agent_type {
            Some(required) => write!(f, " of type {required:?}"),
            None => Ok(()),
        }
    }
}

/// The part of a target that says for whom it starts agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetProfile {
    /// The type of its agents.
    pub agent_type: Arc<str>,
    /// What its agents can do.
    pub capabilities: Vec<Arc<str>>,
    /// Where they work. Empty: anywhere; the agent that is started gets the boundary of its need.
    pub boundaries: Vec<Arc<str>>,
}

/// The part of a target that changes while it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetCondition {
    /// Whether a person has not switched it off.
    pub is_enabled: bool,
    /// Whether its group of agents rests, because the account that they share has reached its limit.
    pub is_group_paused: bool,
    /// Whether its last health check failed. One that was never checked is no reason to wait.
    pub is_unhealthy: bool,
    /// How many agents it has: those linked to it and those being born.
    pub agents: u32,
    /// How many it may have.
    pub max_agents: u32,
    /// Until when it rests after a failure.
    pub cools_until: Option<Timestamp>,
}

/// The rule that keeps a target from starting an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetRule {
    /// Its agents lack the capability.
    Capability,
    /// Its agents are not in the boundary.
    Boundary,
    /// Its agents are not of the required type.
    AgentType,
    /// A person has switched it off.
    Disabled,
    /// Its group of agents is paused.
    Paused,
    /// Its last health check failed.
    Unhealthy,
    /// It has as many agents as it may have.
    Full,
    /// It rests after a failure.
    CoolingDown,
}

impl TargetRule {
    /// The rule as it stands in the answer to `work.explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Boundary => "boundary",
            Self::AgentType => "agent-type",
            Self::Disabled => "disabled",
            Self::Paused => "paused",
            Self::Unhealthy => "unhealthy",
            Self::Full => "full",
            Self::CoolingDown => "cooldown",
        }
    }

    /// The rule as a sentence about this target and this need.
    pub fn sentence(
        self,
        target: &TargetProfile,
        condition: &TargetCondition,
        need: &Need,
    ) -> String {
        match self {
            Self::Capability => format!(
                "its agents can do {}, and the item asks for {:?}",
                listed(&target.capabilities),
                need.capability
            ),
            Self::Boundary => format!(
                "its agents are in the boundary {}, and the item belongs to {:?}",
                listed(&target.boundaries),
                need.boundary
            ),
            Self::AgentType => format!(
                "its agents are of the type {:?}, and the item asks for {:?}",
                target.agent_type,
                need.required_agent_type.as_deref().unwrap_or_default()
            ),
            Self::Disabled | Self::Paused | Self::Unhealthy | Self::Full | Self::CoolingDown => {
                self.sentence_about(condition)
            }
        }
    }

    /// The rule as a sentence about this target, where nobody's need is meant.
    pub fn sentence_about(self, condition: &TargetCondition) -> String {
        match self {
            Self::Capability => "its agents lack the capability".into(),
            Self::Boundary => "its agents are not in the boundary".into(),
            Self::AgentType => "its agents are not of the required type".into(),
            Self::Disabled => "it is disabled".into(),
            Self::Paused => "its group of agents is paused".into(),
            Self::Unhealthy => "its last health check failed".into(),
            Self::Full => format!(
                "it has {} of the {} agents that it may have",
                condition.agents, condition.max_agents
            ),
            Self::CoolingDown => match condition.cools_until {
                Some(until) => format!("it rests until {until} after a failure"),
                None => "it rests after a failure".into(),
            },
        }
    }
}

impl fmt::Display for TargetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether the agents of a target could ever take what is needed; if not, the first rule against it.
pub fn serves(target: &TargetProfile, need: &Need) -> Result<(), TargetRule> {
    if !target.capabilities.contains(&need.capability) {
        return Err(TargetRule::Capability);
    }
    if !target.boundaries.is_empty() && !target.boundaries.contains(&need.boundary) {
        return Err(TargetRule::Boundary);
    }
    let required = need.required_agent_type.as_ref();
    if required.is_some_and(|required| *required != target.agent_type) {
        return Err(TargetRule::AgentType);
    }
    Ok(())
}

/// Whether a target may start an agent now; if not, the first rule against it.
///
/// What only a person changes comes first (disabled, paused), what changes by itself last.
pub fn may_start(condition: &TargetCondition, now: Timestamp) -> Result<(), TargetRule> {
    if !condition.is_enabled {
        return Err(TargetRule::Disabled);
    }
    if condition.is_group_paused {
        return Err(TargetRule::Paused);
    }
    if condition.is_unhealthy {
        return Err(TargetRule::Unhealthy);
    }
    if condition.agents >= condition.max_agents {
        return Err(TargetRule::Full);
    }
    if condition.cools_until.is_some_and(|until| until > now) {
        return Err(TargetRule::CoolingDown);
    }
    Ok(())
}

/// How many agents are still to be started for a need.
///
/// `capacity`: how many agents the targets that serve it may have together. `pending`: how many of its items wait.
/// `items_per_agent`: how many of them one agent is started for; 0 counts as 1. `there`: the agents that may take it by
/// the rules that never change and are online or busy, and those that are being born.
pub fn missing(capacity: u64, pending: u64, items_per_agent: u32, there: u64) -> u64 {
    let asked_for = pending.div_ceil(u64::from(items_per_agent.max(1)));
    capacity.min(asked_for).saturating_sub(there)
}
