//! Register, list, and the requests about one target.

use serde::{Deserialize, Serialize};

use super::common::{Common, check_agent_type, check_name_of_target};
use super::reading::{RawConfig, TargetConfig};
use super::{HealthCheck, HealthStatus, Mechanism, Target, TargetAnswer, TargetStatus, check};
use crate::error::{ErrorCode, WireError};
use crate::id::TargetId;
use crate::time::Timestamp;

/// `targets.register`. The configuration may be nested, flat, or stand beside the other fields without any `config`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterTarget {
    /// Its name. Required.
    pub name: String,
    /// The type of the agents that it starts. Required.
    pub agent_type: String,
    /// What they can do. Required.
    pub capabilities: Vec<String>,
    /// How they are started. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// What that needs to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<RawConfig>,
    /// What people should know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The boundaries that it serves; any where absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boundaries: Vec<String>,
    /// The old word for `boundaries`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classifications: Vec<String>,
    /// How often it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Marks to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How many agents it may have at a time; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<u32>,
    /// The account whose usage limit its agents share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_group: Option<String>,
    /// False: it is registered and starts nothing until it is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The fields of the configuration, where there is no `config`.
    #[serde(flatten)]
    pub fields: RawConfig,
}

/// A registration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTarget {
    /// Its name.
    pub name: String,
    /// The type of its agents.
    pub agent_type: String,
    /// What they can do.
    pub capabilities: Vec<String>,
    /// The boundaries that it serves.
    pub boundaries: Vec<String>,
    /// What its mechanism needs to know.
    pub config: TargetConfig,
    /// What people should know of it.
    pub description: Option<String>,
    /// How often it is looked at.
    pub health_check: Option<HealthCheck>,
    /// Marks to find it by.
    pub tags: Vec<String>,
    /// How many agents it may have at a time.
    pub max_agents: u32,
    /// The account whose usage limit its agents share.
    pub limit_group: Option<String>,
    /// Whether it may start agents.
    pub enabled: bool,
}

impl RegisterTarget {
    /// Checks all of it.
    ///
    /// # Errors
    /// A field is missing, wrong or too large; the error names it.
    pub fn check(self) -> Result<NewTarget, WireError> {
        for (field, is_there, what) in [
            ("name", !self.name.is_empty(), "1 to 64 characters"),
            (
                "agentType",
                !self.agent_type.is_empty(),
                "the type of its agents, like claude-code",
            ),
            (
                "capabilities",
                !self.capabilities.is_empty(),
                "at least one",
            ),
        ] {
            if !is_there {
                let problem = format!("{field} is missing or empty; write {what}");
                let code = match field {
                    "capabilities" => ErrorCode::InvalidRequest,
                    _ => ErrorCode::InvalidToken,
                };
                return Err(check::with_field(WireError::new(code, problem), field));
            }
        }
        check_name_of_target(&self.name)?;
        check_agent_type(&self.agent_type)?;
        let Some(mechanism) = self.mechanism else {
            let known = Mechanism::ALL.map(Mechanism::as_str).join(", ");
            return Err(check::refused(
                "",
                "mechanism",
                &format!("is missing; write one of {known}"),
            ));
        };
        let boundaries = if self.boundaries.is_empty() {
            self.classifications
        } else {
            self.boundaries
        };
        let config = self.config.unwrap_or(self.fields);
        let new = NewTarget {
            config: TargetConfig::read(mechanism, &config)?,
            name: self.name,
            agent_type: self.agent_type,
            capabilities: self.capabilities,
            boundaries,
            description: self.description,
            health_check: self.health_check,
            tags: self.tags,
            max_agents: self.max_agents.unwrap_or(1),
            limit_group: self.limit_group,
            enabled: self.enabled.unwrap_or(true),
        };
        let checked = Common {
            capabilities: Some(&new.capabilities),
            boundaries: Some(&new.boundaries),
            tags: Some(&new.tags),
            description: new.description.as_deref(),
            health_check: new.health_check.as_ref(),
            max_agents: Some(new.max_agents),
            limit_group: new.limit_group.as_deref(),
        };
        checked.check()?;
        Ok(new)
    }
}

impl NewTarget {
    /// The target that comes of it.
    pub fn into_target(self, id: TargetId, registered_by: String, now: Timestamp) -> Target {
        Target {
            id,
            name: self.name,
            description: self.description,
            agent_type: self.agent_type,
            capabilities: self.capabilities,
            boundaries: self.boundaries,
            mechanism: self.config.mechanism(),
            config: self.config,
            status: if self.enabled {
                TargetStatus::Available
            } else {
                TargetStatus::Disabled
            },
            current_agent_guids: Vec::new(),
            max_agents: self.max_agents,
            health_check: self.health_check,
            last_health_check: None,
            health_status: HealthStatus::Unknown,
            last_error: None,
            registered_by,
            registered_at: now,
            updated_at: now,
            last_used_at: None,
            use_count: 0,
            last_spin_up: None,
            tags: self.tags,
            limit_group: self.limit_group,
        }
    }
}

/// The answer to `targets.test`: whether an agent could be started, as it was seen just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TargetHealth {
    /// The target.
    pub target_id: TargetId,
    /// Whether an agent could be started.
    pub healthy: bool,
    /// How long the look took, in milliseconds.
    pub latency_ms: u64,
    /// The same.
    pub response_time_ms: u64,
    /// What was seen, in words, where one could be started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seen: Option<String>,
    /// Why none could be started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// When the look ended.
    pub timestamp: Timestamp,
}

/// The answer to `targets.remove`: what it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum RemovedTarget {
    /// A target.
    Target(Box<TargetAnswer>),
    /// A record that could not be read.
    Unreadable {
        /// Under which name, in lower case.
        name: String,
        /// Always true.
        unreadable: bool,
    },
}

impl RemovedTarget {
    /// Under which name it lay.
    pub fn name(&self) -> &str {
        match self {
            Self::Target(answer) => &answer.target.name,
            Self::Unreadable { name, .. } => name,
        }
    }
}

/// `targets.get`, `remove`, `enable`, `disable`, `test`: one target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TargetRequest {
    /// Its id, its name, or an unambiguous beginning of its id.
    pub target: String,
}

/// `targets.list`: all filters together; what is absent filters nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ListTargetsRequest {
    /// Of this agent type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// That can do this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// That serve this boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// In this state; `disabled` includes the disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TargetStatus>,
    /// In this health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_status: Option<HealthStatus>,
    /// Of this mechanism.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// With this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The disabled too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub include_disabled: bool,
    /// At most so many; 50 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl ListTargetsRequest {
    /// Whether a target passes all filters.
    pub fn matches(&self, target: &Target) -> bool {
        let has = |wanted: &Option<String>, of: &[String]| {
            wanted.as_ref().is_none_or(|wanted| of.contains(wanted))
        };
        let disabled = target.status == TargetStatus::Disabled;
        let disabled_wanted = self.include_disabled || self.status == Some(TargetStatus::Disabled);
        (!disabled || disabled_wanted)
            && self
                .agent_type
                .as_ref()
                .is_none_or(|wanted| *wanted == target.agent_type)
            && has(&self.capability, &target.capabilities)
            && (target.boundaries.is_empty() || has(&self.boundary, &target.boundaries))
            && self.status.is_none_or(|wanted| wanted == target.status)
            && self
                .health_status
                .is_none_or(|wanted| wanted == target.health_status)
            && self
                .mechanism
                .is_none_or(|wanted| wanted == target.mechanism)
            && has(&self.tag, &target.tags)
    }
}
