//! `targets.update`: what changes of a target, however a client spells it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::common::Common;
use super::reading::RawConfig;
use super::{HealthCheck, Mechanism, Target, TargetStatus, check};
use crate::error::WireError;
use crate::time::Timestamp;

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
    /// The old word for `boundaries`, which counts where both are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifications: Option<Vec<String>>,
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
    /// Whether it may start agents, as `targets.enable` and `targets.disable` say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Changes to the configuration where there is no `config`. A field that says what a target is, and that no update
    /// changes, is refused unless it says what is so; what nobody knows is passed over.
    #[serde(flatten)]
    pub fields: RawConfig,
}

impl TargetUpdates {
    /// Whether they say how agents are started, whatever the mechanism is.
    pub fn changes_config(&self) -> bool {
        let of_any = |name: &String| Mechanism::ALL.iter().any(|of| of.has_field(name));
        self.config.is_some() || self.fields.0.keys().any(of_any)
    }

    /// The target with these changes, but for [`enabled`](Self::enabled), which is not this part's to judge.
    ///
    /// # Errors
    /// A field is wrong, too large, or not to be changed; the error names it, and nothing is changed.
    pub fn apply(&self, target: &Target, now: Timestamp) -> Result<Target, WireError> {
        if self.capabilities.as_ref().is_some_and(Vec::is_empty) {
            return Err(check::refused(
                "",
                "capabilities",
                "is empty; write at least one",
            ));
        }
        let boundaries = self.boundaries.as_ref().or(self.classifications.as_ref());
        let common = Common {
            capabilities: self.capabilities.as_deref(),
            boundaries: boundaries.map(Vec::as_slice),
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
        if let Some(changes) = self.config_for(target)? {
            updated.config = target.config.updated(&changes)?;
        }
        set(&mut updated.capabilities, self.capabilities.as_ref());
        set(&mut updated.boundaries, boundaries);
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

    /// The changes to the configuration: those of `config`, or the fields that stand beside the others.
    fn config_for(&self, target: &Target) -> Result<Option<RawConfig>, WireError> {
        let mut beside = Map::new();
        for (name, value) in &self.fields.0 {
            if target.mechanism.has_field(name) {
                beside.insert(name.clone(), value.clone());
            } else {
                check_unchanged(target, name, value)?;
            }
        }
        match (&self.config, beside.keys().next()) {
            (Some(_), Some(name)) => Err(check::refused(
                "",
                name,
                "stands beside config, and belongs into it; write it there",
            )),
            (Some(config), None) => Ok(Some(config.clone())),
            (None, Some(_)) => Ok(Some(RawConfig(beside))),
            (None, None) => Ok(None),
        }
    }
}

/// A field that no update changes: it may be there, as where a whole target is sent back, and says what is so.
fn check_unchanged(target: &Target, name: &str, value: &Value) -> Result<(), WireError> {
    if value.is_null() {
        return Ok(());
    }
    let is_text = |text: &str| value.as_str() == Some(text);
    let never = "is not changed by an update; register another target, and remove this one";
    let (is_so, why) = match name {
        "id" | "targetId" => (is_text(&target.id.to_string()), never),
        "name" => (is_text(&target.name), never),
        "agentType" => (is_text(&target.agent_type), never),
        "mechanism" => (is_text(target.mechanism.as_str()), never),
        "status" => {
            let (was, is) = (target.status, value.as_str());
            let is_off = is == Some(TargetStatus::Disabled.as_str());
            let why = "follows from what happens and is not set; write enabled: true or false";
            (is_off == (was == TargetStatus::Disabled), why)
        }
        other => {
            let Some(of) = Mechanism::ALL.iter().find(|of| of.has_field(other)) else {
                return Ok(());
            };
            let problem = format!(
                "is for the mechanism {of}, and the target's is {}; leave it out",
                target.mechanism
            );
            return Err(check::refused("", other, &problem));
        }
    };
    if is_so {
        Ok(())
    } else {
        Err(check::refused("", name, why))
    }
}

fn set<T: Clone>(to: &mut T, change: Option<&T>) {
    if let Some(value) = change {
        to.clone_from(value);
    }
}

#[cfg(test)]
#[path = "updates_tests.rs"]
mod tests;
