//! The agent: what it is, and the requests about it.

mod going;
mod listing;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{AgentGuid, WorkId};
use crate::target::BirthTicket;
use crate::time::Timestamp;
use crate::work::LeaseRef;

pub use going::{DeregisterAnswer, DeregisterRequest, GuidRequest, ShutdownRequest};
pub use listing::{ListAgentsRequest, UnreadableEntry};

/// How many items an agent may hold at the most.
pub const MAX_CONCURRENT_TASKS: u32 = 1000;

/// The longest pause by a usage limit: what is said to be longer is a mistake, or is looked at again by then.
pub const MAX_PAUSE: Duration = Duration::from_hours(31 * 24);

/// How an agent is. The coordinator decides all but `busy` and `draining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AgentStatus {
    /// Alive, and takes work.
    Online,
    /// Alive, and says that it takes no more just now.
    Busy,
    /// Waits for a usage limit to end.
    Paused,
    /// Finishes what it has and takes no more.
    Draining,
    /// Taken out because it failed too often.
    Quarantined,
    /// Silent.
    #[default]
    Offline,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

impl AgentStatus {
    /// Every status that this version writes.
    pub const ALL: [Self; 6] = [
        Self::Online,
        Self::Busy,
        Self::Paused,
        Self::Draining,
        Self::Quarantined,
        Self::Offline,
    ];

    /// The status as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a status that this version writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An agent as clients see it, and as its entry in the agents bucket holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its id, and the key of its entry.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type (`claude-code`, `copilot-cli`, anything).
    pub agent_type: String,
    /// How it is.
    pub status: AgentStatus,
    /// Why it takes no more just now, in its own words; with `busy` only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_reason: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The isolation boundaries that it is in.
    pub boundaries: Vec<String>,
    /// Where it runs; `""` on the wire where that is not known.
    #[serde(with = "crate::always::text", default)]
    #[cfg_attr(any(test, feature = "schemas"), schemars(with = "Option<String>"))]
    pub hostname: Option<String>,
    /// Its project.
    pub project_id: String,
    /// On whose behalf it runs; `""` on the wire where that is not known.
    #[serde(with = "crate::always::text", default)]
    #[cfg_attr(any(test, feature = "schemas"), schemars(with = "Option<String>"))]
    pub username: Option<String>,
    /// Who may see it; `project-only` on the wire where it does not say.
    #[serde(with = "crate::always::visibility", default)]
    #[cfg_attr(any(test, feature = "schemas"), schemars(with = "Option<String>"))]
    pub visibility: Option<String>,
    /// How many items it holds: the greater of its own count and its leases.
    pub current_task_count: u32,
    /// How many it may hold.
    pub max_concurrent_tasks: u32,
    /// How often it beats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heartbeat_interval_ms: Option<u64>,
    /// After how much idleness it may be sent home; 0 on the wire where never.
    #[serde(with = "crate::always::number", default)]
    #[cfg_attr(any(test, feature = "schemas"), schemars(with = "Option<u64>"))]
    pub spindown_after_idle_ms: Option<u64>,
    /// When it last gave a sign of life.
    pub last_heartbeat: Timestamp,
    /// When it last had to do with work.
    pub last_activity: Timestamp,
    /// When it first registered.
    pub registered_at: Timestamp,
    /// The account whose usage limit it shares with others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit_group: Option<String>,
    /// Nothing is offered to it before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused_until: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pause_reason: Option<String>,
    /// It was taken out because it failed too often; an operator lets it in again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quarantine: Option<Quarantine>,
    /// The target that started it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target_id: Option<String>,
    /// Which run of the program it is; a new one means that it forgot what it held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The runs whose place it took, the latest last: what they ask is refused.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub replaced_runs: Vec<ReplacedRun>,
    /// Digests of the runs that were replaced before those, 12 hex digits each, without anything in between.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub earlier_runs: String,
    /// Whatever else it says about itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<serde_json::Value>,
}

/// A run of an agent's program whose place a later one has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReplacedRun {
    /// Which.
    pub instance_id: String,
    /// When the later one registered.
    pub at: Timestamp,
}

/// Why an agent is taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct Quarantine {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

/// `agents.register`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterRequest {
    /// Its name. Required.
    pub handle: String,
    /// Its type. Required.
    pub agent_type: String,
    /// What it can do. Required.
    pub capabilities: Vec<String>,
    /// Its id, where it has one already; a known one keeps its leases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guid: Option<AgentGuid>,
    /// Which run of the program it is; of two the one that registers later is the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Its boundaries; `default` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundaries: Option<Vec<String>>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// On whose behalf it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Who may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// An older word for `visibility`, which counts where both are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How many items it may hold; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_tasks: Option<u32>,
    /// How often it will beat; the coordinator's own where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_ms: Option<u64>,
    /// After how much idleness it may be sent home; 0 and absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spindown_after_idle_ms: Option<u64>,
    /// The account whose usage limit it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_group: Option<String>,
    /// Whatever else it says about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// The single-use ticket of the target that started it. It stands here and nowhere else on the wire.
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "crate::target::handed_on"
    )]
    #[cfg_attr(any(test, feature = "schemas"), schemars(with = "Option<String>"))]
    pub ticket: Option<BirthTicket>,
}

/// The answer to `agents.register`: the agent (with the heartbeat interval that applies) and the terms.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RegisterAnswer {
    /// The agent.
    #[serde(flatten)]
    pub agent: Agent,
    /// After how much silence it counts as gone.
    pub stale_after_ms: u64,
    /// What it still holds.
    pub leases: Vec<LeaseRef>,
    /// The version of the wire.
    pub protocol: u32,
    /// What this coordinator can do beyond it.
    pub features: Vec<String>,
    /// Which ownership this is; a new one means a new coordinator process.
    pub epoch: u64,
}

/// `agents.heartbeat`, also as a message to `loom.{p}.agent.heartbeat.{guid}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatRequest {
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// `online`, `busy` or `draining`; anything else is not the agent's to say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<AgentStatus>,
    /// With `busy`: why it takes no more just now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_reason: Option<String>,
    /// How many items it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub current_task_count: Option<u32>,
    /// Everything that it holds; what it does not name goes back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holding: Option<Vec<LeaseRef>>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct HeartbeatAnswer {
    /// Always true.
    pub ok: bool,
    /// What it named and does not hold (any more).
    pub lost: Vec<LeaseRef>,
    /// What it is to do.
    pub directives: Vec<Directive>,
    /// Which ownership answers: another one than before knows nothing of a claim that is open.
    #[serde(default)]
    pub epoch: u64,
}

/// What a directive asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DirectiveKind {
    /// Stop one item.
    Cancel,
    /// End.
    Shutdown,
    /// Take nothing more for a while.
    Pause,
    /// Go on.
    Resume,
    /// Register anew.
    Register,
    /// Of a later version: to be passed over.
    #[serde(other)]
    Unknown,
}

/// An order to an agent; repeated by the heartbeat answer until it is obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Directive {
    /// What to do.
    pub kind: DirectiveKind,
    /// With which item.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub work_item_id: Option<WorkId>,
    /// Of which attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Within which time, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grace_ms: Option<u64>,
    /// For which run of the agent it is; another one passes it over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
}

impl Directive {
    /// To stop one attempt at an item, for this reason, within the usual grace.
    pub fn cancel(lease: LeaseRef, reason: Option<String>) -> Self {
        Self {
            kind: DirectiveKind::Cancel,
            work_item_id: Some(lease.id),
            attempt: Some(lease.attempt),
            reason,
            grace_ms: None,
            instance_id: None,
        }
    }
}

/// A message on `loom.{p}.agents.{guid}.shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShutdownNotice {
    /// The agent.
    pub guid: AgentGuid,
    /// Why.
    pub reason: String,
    /// Whether it may finish what it has.
    pub graceful: bool,
    /// Within which time, in milliseconds.
    pub grace_period_ms: u64,
    /// For which run of the agent it is; another one passes it over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_the_wire() {
        for status in AgentStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn an_agent_round_trips_through_the_register_answer() {
        let agent = Agent {
            guid: AgentGuid::generate(),
            handle: "a".into(),
            agent_type: "t".into(),
            status: AgentStatus::Online,
            status_reason: None,
            capabilities: vec!["c".into()],
            boundaries: vec!["default".into()],
            hostname: None,
            project_id: "p".into(),
            username: None,
            visibility: None,
            current_task_count: 0,
            max_concurrent_tasks: 1,
            heartbeat_interval_ms: Some(10_000),
            spindown_after_idle_ms: None,
            last_heartbeat: Timestamp::default(),
            last_activity: Timestamp::default(),
            registered_at: Timestamp::default(),
            limit_group: None,
            paused_until: None,
            pause_reason: None,
            quarantine: None,
            target_id: None,
            instance_id: None,
            replaced_runs: vec![],
            earlier_runs: String::new(),
            metadata: Some(serde_json::json!({"k": [1]})),
        };
        let answer = RegisterAnswer {
            agent: agent.clone(),
            stale_after_ms: 30_000,
            leases: vec![],
            protocol: 1,
            features: vec![],
            epoch: 7,
        };
        for encoding in [crate::Encoding::Json, crate::Encoding::MessagePack] {
            let bytes = encoding.encode(&answer).unwrap();
            assert_eq!(
                encoding.decode::<RegisterAnswer>(&bytes).unwrap().agent,
                agent
            );
        }
    }
}
