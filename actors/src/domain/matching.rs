//! Who may take what, and why not. The only place that decides it: a claim, what is given again, `work.explain` and
//! whoever asks whether an agent is still wanted all ask here, so that none of them can be more generous than another.
//!
//! The two indexes by which a claim finds its item and an item its claim are held against [`fits`] by property tests.

use std::fmt;
use std::sync::Arc;

use loom_protocol::agent::AgentStatus;

/// What an agent brings to the question whether it may take an item.
#[derive(Debug, Clone, Copy)]
pub struct AgentProfile<'a> {
    /// Its type.
    pub agent_type: &'a str,
    /// What it can do.
    pub capabilities: &'a [String],
    /// The boundaries that it is in.
    pub boundaries: &'a [String],
    /// How it is.
    pub status: AgentStatus,
    /// How many items it has leased.
    pub leases: u32,
    /// How many it may have leased.
    pub slots: u32,
    /// Whether it gave this very item back a moment ago, so that others are asked first.
    pub cooling_down: bool,
}

/// The part of an agent that does not change with what it is doing; of a claim, as far as the claim asks for it.
#[derive(Debug, Clone, Copy)]
pub struct FilterRef<'a> {
    /// The agent's type.
    pub agent_type: &'a str,
    /// What it can do.
    pub capabilities: &'a [String],
    /// Where it is.
    pub boundaries: &'a [String],
}

impl<'a> AgentProfile<'a> {
    /// The part that does not change with what the agent is doing.
    pub const fn filter(&self) -> FilterRef<'a> {
        FilterRef {
            agent_type: self.agent_type,
            capabilities: self.capabilities,
            boundaries: self.boundaries,
        }
    }

    /// The agent where it is heard of just now: that it was silent before does not count, nor does a status that
    /// only a later version knows.
    #[must_use]
    pub const fn heard_now(self) -> Self {
        match self.status {
            AgentStatus::Offline | AgentStatus::Unknown => Self {
                status: AgentStatus::Online,
                ..self
            },
            _ => self,
        }
    }
}

/// What an item needs of an agent. Items with the same needs share one value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirements {
    /// The capability.
    pub capability: Arc<str>,
    /// The boundary.
    pub boundary: Arc<str>,
    /// The only agent type that may take it.
    pub required_agent_type: Option<Arc<str>>,
    /// The agent type that is served first.
    pub preferred_agent_type: Option<Arc<str>>,
}

impl Requirements {
    /// Whether these texts say the same.
    pub fn are(
        &self,
        capability: &str,
        boundary: &str,
        required_agent_type: Option<&str>,
        preferred_agent_type: Option<&str>,
    ) -> bool {
        *self.capability == *capability
            && *self.boundary == *boundary
            && self.required_agent_type.as_deref() == required_agent_type
            && self.preferred_agent_type.as_deref() == preferred_agent_type
    }
}

/// The rule that keeps an agent from an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// It lacks the capability.
    Capability,
    /// It is not in the boundary.
    Boundary,
    /// It is not of the required type.
    AgentType,
    /// It takes nothing in its present status.
    Status,
    /// It has as many leases as it may have.
    Slots,
    /// It gave the item back a moment ago.
    HeldOff,
}

impl Rule {
    /// The rule as it stands in the answer to `work.explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Boundary => "boundary",
            Self::AgentType => "agent-type",
            Self::Status => "status",
            Self::Slots => "slots",
            Self::HeldOff => "held-off",
        }
    }

    /// The rule as a sentence about this agent and this item.
    pub fn sentence(self, agent: &AgentProfile<'_>, needs: &Requirements) -> String {
        match self {
            Self::Capability => format!(
                "it can do {}, and the item asks for {:?}",
                listed(agent.capabilities),
                needs.capability
            ),
            Self::Boundary => format!(
                "it is in the boundary {}, and the item belongs to {:?}",
                listed(agent.boundaries),
                needs.boundary
            ),
            Self::AgentType => format!(
                "it is of the type {:?}, and the item asks for {:?}",
                agent.agent_type,
                needs.required_agent_type.as_deref().unwrap_or_default()
            ),
            Self::Status => format!("it is {} and takes no work", agent.status),
            Self::Slots => format!(
                "it has {} of the {} items that it may have",
                agent.leases, agent.slots
            ),
            Self::HeldOff => "it gave this item back a moment ago".into(),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

pub(super) fn listed(tokens: &[impl std::borrow::Borrow<str>]) -> String {
    match tokens {
        [] => "nothing".into(),
        tokens => format!("{:?}", tokens.join(", ")),
    }
}

/// Whether an agent may take an item now; if not, the first rule against it.
///
/// The rules that never change for this pair come first (capability, boundary, type), so that
/// a refusal by a later one means "not now" and one by an earlier one means "never".
pub fn may_take(agent: &AgentProfile<'_>, needs: &Requirements) -> Result<(), Rule> {
    fits(&agent.filter(), needs)?;
    free_slots(agent)?;
    if agent.cooling_down {
        return Err(Rule::HeldOff);
    }
    Ok(())
}

/// How many more items an agent may be given now, whichever they are: one at the least, or the rule against it.
pub const fn free_slots(agent: &AgentProfile<'_>) -> Result<u32, Rule> {
    match agent.status {
        AgentStatus::Online | AgentStatus::Busy => {}
        AgentStatus::Paused
        | AgentStatus::Draining
        | AgentStatus::Quarantined
        | AgentStatus::Offline
        | AgentStatus::Unknown => return Err(Rule::Status),
    }
    match agent.slots.saturating_sub(agent.leases) {
        0 => Err(Rule::Slots),
        free => Ok(free),
    }
}

/// Whether an agent may have an item again that was its own at an attempt. `waits_at`: the attempt at which the item
/// waits in the queue, `None` where it does not.
pub fn may_resume(
    agent: &FilterRef<'_>,
    needs: &Requirements,
    waits_at: Option<u32>,
    attempt: u32,
) -> bool {
    waits_at == Some(attempt) && fits(agent, needs).is_ok()
}

/// Whether an agent could ever take an item; if not, the first rule against it.
pub fn fits(agent: &FilterRef<'_>, needs: &Requirements) -> Result<(), Rule> {
    if !contains(agent.capabilities, &needs.capability) {
        return Err(Rule::Capability);
    }
    if !contains(agent.boundaries, &needs.boundary) {
        return Err(Rule::Boundary);
    }
    if !is_of_type(agent.agent_type, needs) {
        return Err(Rule::AgentType);
    }
    Ok(())
}

/// Whether an agent of this type may take an item, as far as types go: the part of [`fits`] that no index answers.
pub fn is_of_type(agent_type: &str, needs: &Requirements) -> bool {
    let required = needs.required_agent_type.as_deref();
    required.is_none_or(|required| required == agent_type)
}

fn contains(tokens: &[String], token: &str) -> bool {
    tokens.iter().any(|own| own == token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKENS: [&str; 4] = ["rust", "typescript", "node.js", "c++"];

    #[derive(Debug, Clone)]
    struct Pair {
        agent_type: String,
        capabilities: Vec<String>,
        boundaries: Vec<String>,
        status: AgentStatus,
        leases: u32,
        slots: u32,
        cooling_down: bool,
        capability: String,
        boundary: String,
        required: Option<String>,
    }

    impl Pair {
        fn candidate(&self) -> AgentProfile<'_> {
            AgentProfile {
                agent_type: &self.agent_type,
                capabilities: &self.capabilities,
                boundaries: &self.boundaries,
                status: self.status,
                leases: self.leases,
                slots: self.slots,
                cooling_down: self.cooling_down,
            }
        }

        fn needs(&self) -> Requirements {
            Requirements {
                capability: self.capability.as_str().into(),
                boundary: self.boundary.as_str().into(),
                required_agent_type: self.required.as_deref().map(Into::into),
                preferred_agent_type: None,
            }
        }
    }

    fn token() -> impl Strategy<Value = String> {
        prop::sample::select(&TOKENS[..]).prop_map(String::from)
    }

    fn pair() -> impl Strategy<Value = Pair> {
        let tokens = || prop::collection::vec(token(), 0..3);
        let agent = (
            token(),
            tokens(),
            tokens(),
            prop::sample::select(&AgentStatus::ALL[..]),
        );
        let load = (0u32..4, 0u32..4, any::<bool>());
        let item = (token(), token(), prop::option::of(token()));
        (agent, load, item).prop_map(
            |(
                (agent_type, capabilities, boundaries, status),
                (leases, slots, cooling_down),
                (capability, boundary, required),
            )| Pair {
                agent_type,
                capabilities,
                boundaries,
                status,
                leases,
                slots,
                cooling_down,
                capability,
                boundary,
                required,
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_reaches_an_agent_that_does_not_fit(pair in pair()) {
            let fits = pair.capabilities.contains(&pair.capability)
                && pair.boundaries.contains(&pair.boundary)
                && pair.required.as_ref().is_none_or(|r| *r == pair.agent_type);
            let free = matches!(pair.status, AgentStatus::Online | AgentStatus::Busy)
                && pair.leases < pair.slots
                && !pair.cooling_down;
            let verdict = may_take(&pair.candidate(), &pair.needs());
            prop_assert_eq!(verdict.is_ok(), fits && free);
        }

        #[test]
        fn a_refusal_names_a_rule_that_is_broken(pair in pair()) {
            if let Err(rule) = may_take(&pair.candidate(), &pair.needs()) {
                let broken = match rule {
                    Rule::Capability => !pair.capabilities.contains(&pair.capability),
                    Rule::Boundary => !pair.boundaries.contains(&pair.boundary),
                    Rule::AgentType => pair.required.as_deref() != Some(pair.agent_type.as_str()),
                    Rule::Status => {
                        !matches!(pair.status, AgentStatus::Online | AgentStatus::Busy)
                    }
                    Rule::Slots => pair.leases >= pair.slots,
                    Rule::HeldOff => pair.cooling_down,
                };
                prop_assert!(broken, "{rule}");
                let sentence = rule.sentence(&pair.candidate(), &pair.needs());
                prop_assert!(sentence.starts_with("it "), "{sentence}");
            }
        }

        #[test]
        fn an_agent_that_claims_is_refused_by_the_same_rules_but_its_silence(pair in pair()) {
            let (claimant, needs) = (pair.candidate().heard_now(), pair.needs());
            let by_parts = fits(&claimant.filter(), &needs).is_ok()
                && free_slots(&claimant).is_ok()
                && !claimant.cooling_down;
            prop_assert_eq!(may_take(&claimant, &needs).is_ok(), by_parts);
            if !matches!(pair.status, AgentStatus::Offline | AgentStatus::Unknown) {
                prop_assert_eq!(may_take(&claimant, &needs), may_take(&pair.candidate(), &needs));
            }
            if let Ok(free) = free_slots(&claimant) {
                prop_assert!(free > 0 && free + claimant.leases == claimant.slots);
            }
        }

        #[test]
        fn only_what_waits_at_the_same_attempt_is_had_again(
            pair in pair(), waits_at in prop::option::of(0..3u32), attempt in 0..3u32,
        ) {
            let (filter, needs) = (pair.candidate().filter(), pair.needs());
            let may = may_resume(&filter, &needs, waits_at, attempt);
            prop_assert_eq!(may, waits_at == Some(attempt) && fits(&filter, &needs).is_ok());
        }
    }
}
