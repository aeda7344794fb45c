//! What the registry writes: whole entries of agents that registered by request, and its verdict in
//! entries that a client keeps.

use std::borrow::Cow;

use loom_protocol::agent::{Agent, AgentStatus, Directive, Quarantine};
use loom_protocol::event::ShutdownReason;
use loom_protocol::{AgentGuid, Encoding, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check_bounds;
use super::put::{Unreadable, check_size, fields_of};

/// What the registry puts: the agent as clients see it, and the order to end that it has not
/// obeyed yet, so that a restarted coordinator goes on repeating it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnEntry<'a> {
    /// The agent.
    #[serde(flatten)]
    pub agent: Cow<'a, Agent>,
    /// The order, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shutdown_order: Option<Directive>,
    /// What the order was given for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shutdown_cause: Option<ShutdownReason>,
}

/// Reads an entry that the registry wrote.
pub fn read_own(guid: AgentGuid, value: &[u8]) -> Result<OwnEntry<'static>, Unreadable> {
    check_size(value)?;
    let entry: OwnEntry<'static> = Encoding::Json
        .decode_request(value)
        .map_err(|e| Unreadable(format!("it is not an agent as JSON: {e}")))?;
    if entry.agent.guid != guid {
        return Err(Unreadable(format!(
            "its guid is {} and its key is {guid}",
            entry.agent.guid
        )));
    }
    check_bounds(&entry.agent)?;
    Ok(entry)
}

/// Our verdict about an agent, as far as an entry shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `offline`, `paused` or `quarantined`.
    pub status: Option<AgentStatus>,
    paused_until: Option<Timestamp>,
    pause_reason: Option<String>,
    quarantine: Option<Quarantine>,
}

impl Verdict {
    /// What is to be shown of an agent.
    pub fn of(agent: &Agent) -> Self {
        Self {
            status: Some(agent.status).filter(|status| is_ours(*status)),
            paused_until: agent.paused_until,
            pause_reason: agent.pause_reason.clone(),
            quarantine: agent.quarantine.clone(),
        }
    }

    /// What an entry shows.
    pub fn shown_in(value: &[u8]) -> Self {
        let Ok(fields) = fields_of(value) else {
            return Self::default();
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let quarantine = fields.get("quarantine").cloned();
        Self {
            status: text("status")
                .and_then(AgentStatus::parse)
                .filter(|status| is_ours(*status)),
            paused_until: text("pausedUntil").and_then(|until| until.parse().ok()),
            pause_reason: text("pauseReason").map(str::to_owned),
            quarantine: quarantine.and_then(|value| serde_json::from_value(value).ok()),
        }
    }

    /// Whether there is something in it that must outlast us.
    pub const fn is_durable(&self) -> bool {
        self.paused_until.is_some() || self.quarantine.is_some()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether two are the same in what must outlast us.
    pub fn lasts_as(&self, other: &Self) -> bool {
        let lasting = |verdict: &Self| Self {
            status: None,
            ..verdict.clone()
        };
        lasting(self) == lasting(other)
    }

    /// The agent with this verdict: as it was when the entry was written.
    #[must_use]
    pub fn apply(&self, agent: Agent) -> Agent {
        Agent {
            status: self.status.unwrap_or(agent.status),
            paused_until: self.paused_until,
            pause_reason: self.pause_reason.clone(),
            quarantine: self.quarantine.clone(),
            ..agent
        }
    }
}

const fn is_ours(status: AgentStatus) -> bool {
    matches!(
        status,
        AgentStatus::Offline | AgentStatus::Paused | AgentStatus::Quarantined
    )
}

/// A client's entry with our verdict in it; everything else stays as the client wrote it.
pub fn with_verdict(value: &[u8], agent: &Agent) -> Result<Vec<u8>, Unreadable> {
    let mut fields = fields_of(value)?;
    let verdict = Verdict::of(agent);
    fields.insert("status".to_owned(), agent.status.as_str().into());
    set(&mut fields, "pausedUntil", verdict.paused_until.as_ref());
    set(&mut fields, "pauseReason", verdict.pause_reason.as_ref());
    set(&mut fields, "quarantine", verdict.quarantine.as_ref());
    serde_json::to_vec(&fields)
        .map_err(|e| Unreadable(format!("it cannot be written as JSON: {e}")))
}

fn set(fields: &mut Map<String, Value>, name: &str, value: Option<&impl Serialize>) {
    match value.and_then(|value| serde_json::to_value(value).ok()) {
        Some(value) => {
            fields.insert(name.to_owned(), value);
        }
        None => {
            fields.remove(name);
        }
    }
}
