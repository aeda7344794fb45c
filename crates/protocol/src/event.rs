//! Events: one small message per transition, told at most once. Nothing may depend on one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentStatus};
use crate::id::{AgentGuid, SpinUpId, TargetId, WorkId};
use crate::target::{HealthStatus, TargetStatus};
use crate::time::Timestamp;
use crate::work::{Reason, WorkStatus};

/// An event of a project: who it is about, and what happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Event {
    /// About a work item.
    Work(Box<WorkEvent>),
    /// About an agent.
    Agent(Box<AgentEvent>),
    /// About a target.
    Target(Box<TargetEvent>),
    /// About a start of an agent.
    SpinUp(Box<SpinUpEvent>),
}

impl Event {
    /// The name, `topic:type`.
    pub fn name(&self) -> &str {
        match self {
            Self::Work(event) => event.kind.as_str(),
            Self::Agent(event) => event.kind.as_str(),
            Self::Target(event) => event.kind.as_str(),
            Self::SpinUp(event) => event.kind.as_str(),
        }
    }

    /// In which project it happened.
    pub fn project_id(&self) -> &str {
        match self {
            Self::Work(event) => &event.project_id,
            Self::Agent(event) => &event.project_id,
            Self::Target(event) => &event.project_id,
            Self::SpinUp(event) => &event.project_id,
        }
    }
}

/// The names of the events about work items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum WorkEventKind {
    #[serde(rename = "work:submitted")]
    Submitted,
    #[serde(rename = "work:assigned")]
    Assigned,
    #[serde(rename = "work:started")]
    Started,
    #[serde(rename = "work:progress")]
    Progress,
    #[serde(rename = "work:completed")]
    Completed,
    #[serde(rename = "work:failed")]
    Failed,
    #[serde(rename = "work:retried")]
    Retried,
    #[serde(rename = "work:cancelled")]
    Cancelled,
}

impl WorkEventKind {
    /// The name as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "work:submitted",
            Self::Assigned => "work:assigned",
            Self::Started => "work:started",
            Self::Progress => "work:progress",
            Self::Completed => "work:completed",
            Self::Failed => "work:failed",
            Self::Retried => "work:retried",
            Self::Cancelled => "work:cancelled",
        }
    }
}

/// An event about a work item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: WorkEventKind,
    /// When.
    pub timestamp: Timestamp,
    /// In which project.
    pub project_id: String,
    /// To which item.
    pub work_id: WorkId,
    /// Of which task.
    pub task_id: String,
    /// Where it stands now.
    pub status: WorkStatus,
    /// Its fence.
    pub attempt: u32,
    /// The number of the write.
    pub revision: u64,
    /// The agent that has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assigned_to: Option<AgentGuid>,
    /// More about that agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assigned_to_agent: Option<EventAgent>,
    /// What an agent must be able to do for it.
    #[serde(default)]
    pub capability: String,
    /// Where.
    #[serde(default)]
    pub boundary: String,
    /// Of `submitted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub priority: Option<u8>,
    /// Of `submitted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// Of `progress`.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::work::whole_if_whole",
        default
    )]
    pub progress: Option<f64>,
    /// Of `progress`: what the agent said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Of `completed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<String>,
    /// Of `failed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_message: Option<String>,
    /// Of `failed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recoverable: Option<bool>,
    /// Of `failed`, `retried` and `cancelled`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// Of `retried`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_before: Option<Timestamp>,
}

/// The names of the events about agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum AgentEventKind {
    #[serde(rename = "agent:registered")]
    Registered,
    #[serde(rename = "agent:updated")]
    Updated,
    #[serde(rename = "agent:shutdown")]
    Shutdown,
}

impl AgentEventKind {
    /// The name as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "agent:registered",
            Self::Updated => "agent:updated",
            Self::Shutdown => "agent:shutdown",
        }
    }
}

/// Why an agent has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownReason {
    /// It had nothing to do for as long as it may, and was sent home.
    IdleTimeout,
    /// It was told to end, or left by itself.
    Manual,
    /// The coordinator ended it with itself.
    CoordinatorShutdown,
    /// It was silent for too long, or its entry vanished.
    Error,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::IdleTimeout => "idle-timeout",
            Self::Manual => "manual",
            Self::CoordinatorShutdown => "coordinator-shutdown",
            Self::Error => "error",
            Self::Unknown => "unknown",
        })
    }
}

/// An agent as it stands in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EventAgent {
    /// Its id.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type.
    pub agent_type: String,
    /// Where it runs; `""` on the wire where that is not known.
    #[serde(with = "crate::always::text", default)]
    #[cfg_attr(any(test, feature = "schemas"), schemars(with = "Option<String>"))]
    pub hostname: Option<String>,
}

impl From<&Agent> for EventAgent {
    fn from(agent: &Agent) -> Self {
        Self {
            guid: agent.guid,
            handle: agent.handle.clone(),
            agent_type: agent.agent_type.clone(),
            hostname: agent.hostname.clone(),
        }
    }
}

/// An event about an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: AgentEventKind,
    /// When.
    pub timestamp: Timestamp,
    /// In which project.
    pub project_id: String,
    /// To which agent.
    pub agent: EventAgent,
    /// Of `registered`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capabilities: Option<Vec<String>>,
    /// Of `registered`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boundaries: Option<Vec<String>>,
    /// Of `registered`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<AgentStatus>,
    /// Of `updated`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous_status: Option<AgentStatus>,
    /// Of `updated`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_status: Option<AgentStatus>,
    /// Of `updated`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub current_task_count: Option<u32>,
    /// Of `shutdown`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<ShutdownReason>,
    /// Of `shutdown`: the reason in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// Of `shutdown`: whether it could finish what it had.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub graceful: Option<bool>,
}

/// The names of the events about targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum TargetEventKind {
    #[serde(rename = "target:registered")]
    Registered,
    #[serde(rename = "target:updated")]
    Updated,
    #[serde(rename = "target:disabled")]
    Disabled,
    #[serde(rename = "target:removed")]
    Removed,
    #[serde(rename = "target:health-changed")]
    HealthChanged,
}

impl TargetEventKind {
    /// The name as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "target:registered",
            Self::Updated => "target:updated",
            Self::Disabled => "target:disabled",
            Self::Removed => "target:removed",
            Self::HealthChanged => "target:health-changed",
        }
    }
}

/// An event about a target. Nothing of its configuration is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TargetEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: TargetEventKind,
    /// When.
    pub timestamp: Timestamp,
    /// In which project.
    pub project_id: String,
    /// To which target.
    pub target_id: TargetId,
    /// Its name.
    pub target_name: String,
    /// What it was before; of `updated`, `disabled` and `removed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous_status: Option<TargetStatus>,
    /// What it is now; of all but `removed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_status: Option<TargetStatus>,
    /// Of `health-changed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous_health: Option<HealthStatus>,
    /// Of `health-changed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_health: Option<HealthStatus>,
    /// Of `health-changed`: why no agent could be started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// The names of the events about starts of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub enum SpinUpEventKind {
    /// It is decided.
    #[serde(rename = "spin-up:triggered")]
    Triggered,
    /// Its mechanism has begun.
    #[serde(rename = "spin-up:started")]
    Started,
    /// Its agent has registered.
    #[serde(rename = "spin-up:completed")]
    Completed,
    /// There will be no agent: it failed, or took too long.
    #[serde(rename = "spin-up:failed")]
    Failed,
}

impl SpinUpEventKind {
    /// The name as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Triggered => "spin-up:triggered",
            Self::Started => "spin-up:started",
            Self::Completed => "spin-up:completed",
            Self::Failed => "spin-up:failed",
        }
    }
}

/// An event about a start of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SpinUpEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: SpinUpEventKind,
    /// When.
    pub timestamp: Timestamp,
    /// In which project.
    pub project_id: String,
    /// Which start.
    pub operation_id: SpinUpId,
    /// By which target.
    pub target_id: TargetId,
    /// Its name.
    pub target_name: String,
    /// The type of the agent.
    pub agent_type: String,
    /// The capability that is needed, where it is started for one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capability: Option<String>,
    /// The boundary that is needed, where it is started for one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub boundary: Option<String>,
    /// The item that asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub work_id: Option<WorkId>,
    /// Of `completed`: the agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_guid: Option<AgentGuid>,
    /// Of `completed` and `failed`: how long it took from the decision on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    /// Of `failed`: why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_message: Option<String>,
}
