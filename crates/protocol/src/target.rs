//! The target: where and how an agent can be started, and the requests about it.
//!
//! | part | what it holds |
//! |---|---|
//! | `config` | what each mechanism needs to know |
//! | `reading` | a configuration nested, flat or merged with another; how it is stored and how it is answered |
//! | `merging` | changes to a configuration, field by field |
//! | `misread` | why a value can't be read |
//! | `check` | what a mechanism refuses, by the name of the field |
//! | `common` | what is refused of every target |
//! | `requests` | register, list |
//! | `updates` | what changes of a target |
//! | `secret` | tickets and variables, which are never shown |
//! | `template` | the body of a webhook |
//! | `spin_up` | one start of an agent |
//! | `spin_up_requests` | start one, look at them |

mod check;
mod common;
mod config;
mod merging;
mod misread;
mod reading;
mod requests;
mod secret;
mod spin_up;
mod spin_up_requests;
mod template;
mod updates;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{AgentGuid, TargetId, WorkId};
use crate::time::Timestamp;

pub use config::{
    GithubActionsConfig, HttpMethod, KnownHosts, KubernetesConfig, LocalConfig, MechanismConfig,
    Resources, SshConfig, WebhookConfig,
};
pub use reading::{ConfigShape, RawConfig, TargetConfig};
pub use requests::{
    ListTargetsRequest, NewTarget, RegisterTarget, RemovedTarget, TargetHealth, TargetRequest,
};
pub(crate) use secret::handed_on;
pub use secret::{BirthTicket, MASK, SecretMap};
pub use spin_up::{Need, SAID_LAST, SpinUpOperation, SpinUpStatus};
pub use spin_up_requests::{ListSpinUpsRequest, OperationRequest, SpinUpRequest};
pub use template::{BodyTemplate, Placeholder, TemplateError};
pub use updates::{TargetUpdates, UpdateTarget};

/// What a target may be at the most.
pub mod limits {
    /// A configuration, written as JSON, in bytes.
    pub const CONFIG: usize = 64 * 1024;
    /// A description, in bytes.
    pub const DESCRIPTION: usize = 4 * 1024;
    /// Capabilities, boundaries and tags, of each so many.
    pub const NAMES: usize = 64;
    /// Agents that one target may have at a time.
    pub const AGENTS: u32 = 1000;
    /// Any time limit, in milliseconds: an hour.
    pub const TIMEOUT_MS: u64 = 60 * 60 * 1000;
    /// The time between two health checks, in milliseconds: from a second to a day.
    pub const HEALTH_INTERVAL_MS: std::ops::RangeInclusive<u64> = 1000..=24 * 60 * 60 * 1000;
}

/// How agents of a target are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// A process beside the coordinator.
    Local,
    /// A process on another machine.
    Ssh,
    /// A Job of Kubernetes.
    Kubernetes,
    /// A run of a workflow.
    GithubActions,
    /// Somebody else starts it, who is asked over HTTP.
    Webhook,
}

impl Mechanism {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Local,
        Self::Ssh,
        Self::Kubernetes,
        Self::GithubActions,
        Self::Webhook,
    ];

    /// The mechanism as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Kubernetes => "kubernetes",
            Self::GithubActions => "github-actions",
            Self::Webhook => "webhook",
        }
    }

    /// Whether a target of it executes whatever program it names, here or on another machine.
    pub const fn executes_at_will(self) -> bool {
        matches!(self, Self::Local | Self::Ssh)
    }

    /// The key of a nested configuration.
    pub const fn key(self) -> &'static str {
        match self {
            Self::GithubActions => "githubActions",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TargetStatus {
    /// It may start agents, and has none.
    #[default]
    Available,
    /// It has agents.
    InUse,
    /// Nothing is started.
    Disabled,
    /// Its last start failed; it is tried again after a while.
    Error,
}

impl TargetStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Available, Self::InUse, Self::Disabled, Self::Error];

    /// The status as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Disabled => "disabled",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for TargetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the last probe of a target said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// An agent could be started.
    Healthy,
    /// It could not.
    Unhealthy,
    /// Nobody has looked yet.
    #[default]
    Unknown,
}

impl HealthStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Unhealthy, Self::Unknown];

    /// The status as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

/// How often a target is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct HealthCheck {
    /// Whether it is looked at without being asked to.
    pub enabled: bool,
    /// The time between two looks; a minute where absent.
    pub interval_ms: u64,
    /// How long one may take; ten seconds where absent.
    pub timeout_ms: u64,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_ms: 60_000,
            timeout_ms: 10_000,
        }
    }
}

/// What became of the last start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LastSpinUp {
    /// When it was decided.
    pub time: Timestamp,
    /// How it ended.
    pub outcome: SpinUpStatus,
    /// The agent that was born.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<AgentGuid>,
    /// The item that it was started for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub work_item_id: Option<WorkId>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// A target as clients see it. Written with its secrets masked, wherever it is written; what is to be read again is
/// made by [`Target::stored`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its name: unique in its project, whatever the case.
    pub name: String,
    /// What people should know of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub description: Option<String>,
    /// The type of the agents that it starts.
    pub agent_type: String,
    /// What they can do.
    pub capabilities: Vec<String>,
    /// The boundaries that it serves; any where there is none.
    #[serde(default)]
    pub boundaries: Vec<String>,
    /// How they are started.
    pub mechanism: Mechanism,
    /// What that needs to know.
    pub config: TargetConfig,
    /// How it is.
    #[serde(default)]
    pub status: TargetStatus,
    /// Its living agents, oldest first.
    #[serde(default)]
    pub current_agent_guids: Vec<AgentGuid>,
    /// How many it may have at a time.
    pub max_agents: u32,
    /// How often it is looked at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health_check: Option<HealthCheck>,
    /// When it was looked at last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_health_check: Option<Timestamp>,
    /// What was seen.
    #[serde(default)]
    pub health_status: HealthStatus,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// Who registered it.
    pub registered_by: String,
    /// When.
    pub registered_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// When it started an agent last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used_at: Option<Timestamp>,
    /// How many agents it has started.
    #[serde(default)]
    pub use_count: u64,
    /// What became of the last start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_spin_up: Option<LastSpinUp>,
    /// Marks to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tags: Vec<String>,
    /// The account whose usage limit its agents share; none is started while that is paused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit_group: Option<String>,
}

/// A target with what follows from its other fields, as existing clients read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TargetAnswer {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// The first of its agents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub current_agent_guid: Option<AgentGuid>,
    /// The same as `registeredAt`.
    pub created_at: Timestamp,
}

impl Target {
    /// As it is answered.
    pub fn answer(self) -> TargetAnswer {
        TargetAnswer {
            current_agent_guid: self.current_agent_guids.first().copied(),
            created_at: self.registered_at,
            target: self,
        }
    }

    /// As it is stored, with its secrets: for the bucket of targets and nothing else. Read again as any target is.
    ///
    /// # Errors
    /// None that is known: every field can be written.
    pub fn stored(&self) -> Result<serde_json::Value, serde_json::Error> {
        let mut stored = serde_json::to_value(self)?;
        stored["config"] = self.config.stored()?;
        Ok(stored)
    }
}
