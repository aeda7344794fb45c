//! Why attempts end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an attempt ended without a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The agent said that it failed.
    AgentError,
    /// The agent's account ran into a usage limit.
    UsageLimit,
    /// No progress for `timeoutMs`.
    Timeout,
    /// The agent died, or no longer knew of the item.
    AgentLost,
    /// The agent never started it.
    NotStarted,
    /// The agent gave it back.
    Released,
    /// Past its deadline.
    Deadline,
    /// The submission broke a rule and could not be refused at once.
    Rejected,
    /// It could not be read.
    Poison,
    /// It was called off.
    Cancelled,
    /// The agent's program ended without a word of what it came to.
    NoResult,
    /// Tools were denied to the agent's program, and it changed nothing.
    Denied,
    /// What the agent checked was not as it should be; `evidence` tells.
    Checks,
    /// More was used up than was allowed.
    Budget,
    /// The provider of the agent's model is in trouble.
    Outage,
    /// A person has to do something about the agent's account.
    Account,
}

impl Reason {
    /// The whole set.
    pub const ALL: [Self; 16] = [
        Self::AgentError,
        Self::UsageLimit,
        Self::Timeout,
        Self::AgentLost,
        Self::NotStarted,
        Self::Released,
        Self::Deadline,
        Self::Rejected,
        Self::Poison,
        Self::Cancelled,
        Self::NoResult,
        Self::Denied,
        Self::Checks,
        Self::Budget,
        Self::Outage,
        Self::Account,
    ];

    /// What an agent may say of a failure (`work.fail`, `work.errors`); the first where it says nothing.
    /// `timeout` is for a limit of its own.
    pub const OF_FAILURE: [Self; 6] = [
        Self::AgentError,
        Self::UsageLimit,
        Self::Timeout,
        Self::NoResult,
        Self::Denied,
        Self::Checks,
    ];
    /// Why an agent may give an item back (`work.release`); the first where it says nothing.
    pub const OF_RELEASE: [Self; 4] = [
        Self::Released,
        Self::UsageLimit,
        Self::Outage,
        Self::Account,
    ];

    /// Reads a reason.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether it is nobody's failure: it costs no attempt, ever, and the agent is paused meanwhile.
    pub const fn pauses(self) -> bool {
        matches!(self, Self::UsageLimit | Self::Outage | Self::Account)
    }

    /// The reason as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentError => "agent-error",
            Self::UsageLimit => "usage-limit",
            Self::Timeout => "timeout",
            Self::AgentLost => "agent-lost",
            Self::NotStarted => "not-started",
            Self::Released => "released",
            Self::Deadline => "deadline",
            Self::Rejected => "rejected",
            Self::Poison => "poison",
            Self::Cancelled => "cancelled",
            Self::NoResult => "no-result",
            Self::Denied => "denied",
            Self::Checks => "checks",
            Self::Budget => "budget",
            Self::Outage => "outage",
            Self::Account => "account",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_written_as_it_is_called_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("bad-mood"), None);
    }

    #[test]
    fn what_pauses_the_agent_is_among_the_reasons_to_give_an_item_back() {
        for reason in Reason::ALL.into_iter().filter(|reason| reason.pauses()) {
            assert!(Reason::OF_RELEASE.contains(&reason), "{reason}");
        }
    }
}
