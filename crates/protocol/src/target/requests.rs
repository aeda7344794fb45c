//! Register, update, list.

use serde::{Deserialize, Serialize};

use super::reading::{RawConfig, TargetConfig};
use super::{HealthCheck, HealthStatus, Mechanism, Target, TargetStatus, check, limits};
use crate::error::{ErrorCode, WireError};
use crate::id::TargetId;
use crate::time::Timestamp;
use crate::token::{check_label, check_name, check_token};

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
        check_name("name", &self.name)?;
        check_token("agentType", &self.agent_type)?;
        if self.capabilities.is_empty() {
            return Err(check::refused(
                "",
                "capabilities",
                "is empty; write at least one",
            ));
        }
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

/// `targets.get`, `remove`, `enable`, `disable`, `test`: one target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default)]
pub struct TargetRequest {
    /// Its id, its name, or an unambiguous beginning of its id.
    pub target: String,
}

/// `targets.update`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default)]
pub struct UpdateTarget {
    /// Its id, its name, or an unambiguous beginning of its id.
    pub target: String,
    /// What changes.
    pub updates: TargetUpdates,
}

/// What changes of a target; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct TargetUpdates {
    /// What people should know of it; `""` removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What its agents can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// The boundaries that it serves; an empty list: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundaries: Option<Vec<String>>,
    /// Changes to the configuration: merged; `null` removes a field, `***` keeps a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<RawConfig>,
    /// How often it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Marks to find it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// How many agents it may have at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<u32>,
    /// The account whose usage limit its agents share; `""` removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_group: Option<String>,
}

impl TargetUpdates {
    /// The target with these changes.
    ///
    /// # Errors
    /// A field is wrong or too large; the error names it, and nothing is changed.
    pub fn apply(&self, target: &Target, now: Timestamp) -> Result<Target, WireError> {
        if self.capabilities.as_ref().is_some_and(Vec::is_empty) {
            return Err(check::refused(
                "",
                "capabilities",
                "is empty; write at least one",
            ));
        }
        let common = Common {
            capabilities: self.capabilities.as_deref(),
            boundaries: self.boundaries.as_deref(),
            tags: self.tags.as_deref(),
            description: self.description.as_deref(),
            health_check: self.health_check.as_ref(),
            max_agents: self.max_agents,
            limit_group: self
                .limit_group
                .as_deref()
                .filter(|group| !group.is_empty()),
        };
        common.check()?;
        let mut updated = target.clone();
        if let Some(changes) = &self.config {
            updated.config = target.config.updated(changes)?;
        }
        set(&mut updated.capabilities, self.capabilities.as_ref());
        set(&mut updated.boundaries, self.boundaries.as_ref());
        set(&mut updated.tags, self.tags.as_ref());
        set(&mut updated.max_agents, self.max_agents.as_ref());
        updated.health_check = self.health_check.or(updated.health_check);
        for (to, change) in [
            (&mut updated.description, &self.description),
            (&mut updated.limit_group, &self.limit_group),
        ] {
            if let Some(text) = change {
                *to = Some(text.clone()).filter(|text| !text.is_empty());
            }
        }
        updated.updated_at = now;
        Ok(updated)
    }
}

fn set<T: Clone>(to: &mut T, change: Option<&T>) {
    if let Some(value) = change {
        to.clone_from(value);
    }
}

/// What a registration and an update have in common.
struct Common<'a> {
    capabilities: Option<&'a [String]>,
    boundaries: Option<&'a [String]>,
    tags: Option<&'a [String]>,
    description: Option<&'a str>,
    health_check: Option<&'a HealthCheck>,
    max_agents: Option<u32>,
    limit_group: Option<&'a str>,
}

impl Common<'_> {
    fn check(&self) -> Result<(), WireError> {
        for (field, names) in [
            ("capabilities", self.capabilities),
            ("boundaries", self.boundaries),
            ("tags", self.tags),
        ] {
            let names = names.unwrap_or_default();
            if names.len() > limits::NAMES {
                let message = format!(
                    "{field} has {} entries; at most {} are allowed",
                    names.len(),
                    limits::NAMES
                );
                return Err(check::with_field(
                    WireError::new(ErrorCode::TooLarge, message),
                    field,
                ));
            }
            for name in names {
                check_label(field, name)?;
            }
        }
        if self
            .description
            .is_some_and(|text| text.len() > limits::DESCRIPTION)
        {
            let message = format!(
                "description has more than {} bytes; shorten it",
                limits::DESCRIPTION
            );
            return Err(check::with_field(
                WireError::new(ErrorCode::TooLarge, message),
                "description",
            ));
        }
        if let Some(count) = self
            .max_agents
            .filter(|count| !(1..=limits::AGENTS).contains(count))
        {
            let problem = format!(
                "is {count}; write 1 to {} (a target that starts none is disabled)",
                limits::AGENTS
            );
            return Err(check::refused("", "maxAgents", &problem));
        }
        if let Some(group) = self.limit_group {
            check_token("limitGroup", group)?;
        }
        self.health_check.map_or(Ok(()), check::health_check)
    }
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
