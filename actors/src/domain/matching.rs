//! Who may take what. The only place that decides it: a claim, a re-match and `work.explain` all
//! ask here, so that none of them can be more generous than another.

use std::fmt;

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
    pub held_off: bool,
}

/// What an item asks of an agent.
#[derive(Debug, Clone, Copy)]
pub struct Requirements<'a> {
    /// The capability that its agent must have.
    pub capability: &'a str,
    /// The boundary that its agent must be in.
    pub boundary: &'a str,
    /// The only agent type that may take it, where there is one.
    pub required_agent_type: Option<&'a str>,
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
    pub fn sentence(self, agent: &AgentProfile<'_>, needs: &Requirements<'_>) -> String {
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
                needs.required_agent_type.unwrap_or_default()
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

fn listed(tokens: &[String]) -> String {
    match tokens {
        [] => "nothing".into(),
        tokens => format!("{:?}", tokens.join(", ")),
    }
}

/// Whether an agent may take an item now; if not, the first rule against it.
///
/// The rules that never change for this pair come first (capability, boundary, type), so that
/// a refusal by a later one means "not now" and one by an earlier one means "never".
pub fn may_take(agent: &AgentProfile<'_>, needs: &Requirements<'_>) -> Result<(), Rule> {
    fits(agent, needs)?;
    if !matches!(agent.status, AgentStatus::Online | AgentStatus::Busy) {
        return Err(Rule::Status);
    }
    if agent.leases >= agent.slots {
        return Err(Rule::Slots);
    }
    if agent.held_off {
        return Err(Rule::HeldOff);
    }
    Ok(())
}

/// Whether an agent could ever take an item; if not, the first rule against it.
pub fn fits(agent: &AgentProfile<'_>, needs: &Requirements<'_>) -> Result<(), Rule> {
    if !contains(agent.capabilities, needs.capability) {
        return Err(Rule::Capability);
    }
    if !contains(agent.boundaries, needs.boundary) {
        return Err(Rule::Boundary);
    }
    if needs
        .required_agent_type
        .is_some_and(|required| required != agent.agent_type)
    {
        return Err(Rule::AgentType);
    }
    Ok(())
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
        held_off: bool,
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
                held_off: self.held_off,
            }
        }

        fn needs(&self) -> Requirements<'_> {
            Requirements {
                capability: &self.capability,
                boundary: &self.boundary,
                required_agent_type: self.required.as_deref(),
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
                (leases, slots, held_off),
                (capability, boundary, required),
            )| Pair {
                agent_type,
                capabilities,
                boundaries,
                status,
                leases,
                slots,
                held_off,
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
                && !pair.held_off;
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
                    Rule::HeldOff => pair.held_off,
                };
                prop_assert!(broken, "{rule}");
                let sentence = rule.sentence(&pair.candidate(), &pair.needs());
                prop_assert!(sentence.starts_with("it "), "{sentence}");
            }
        }
    }
}
