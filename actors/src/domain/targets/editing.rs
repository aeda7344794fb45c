//! What people do to a target that is there: change it, define it in a file, take it away.

use loom_protocol::target::{HealthStatus, NewTarget, Target, TargetUpdates};
use loom_protocol::{Timestamp, WireError};

use super::record::TargetRecord;

/// Who has registered what the configuration file defines.
pub(crate) const BY_CONFIG: &str = "config";

/// A target as the configuration file defines it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// What it is.
    pub target: NewTarget,
    /// Whether it may start agents, where the file says so; else people switch it.
    pub enabled: Option<bool>,
}

impl Definition {
    /// Whether a target is the file's to define.
    pub fn owns(target: &Target) -> bool {
        target.registered_by == BY_CONFIG
    }
}

/// Why a target cannot be taken away: what was started from it would be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "target has {agents} agents and {births} being born; disable it, let them end, and remove it then"
)]
pub struct StillInUse {
    /// The agents that are linked to it.
    pub agents: usize,
    /// Its operations that are not decided.
    pub births: usize,
}

impl<R: Clone> TargetRecord<R> {
    /// With changes by a person. `None`: it is so already.
    ///
    /// # Errors
    /// A field is wrong; the error names it.
    pub fn updated(
        &self,
        updates: &TargetUpdates,
        now: Timestamp,
    ) -> Result<Option<Self>, WireError> {
        let updated = updates.apply(&self.target, now)?;
        let updated = self.replaced_by(updated, now);
        Ok(self.switched_too(updated, updates.enabled, now))
    }

    /// As the configuration file defines it now. `None`: it is so already.
    pub fn redefined(&self, definition: &Definition, now: Timestamp) -> Option<Self> {
        let new = definition.target.clone();
        let redefined = Target {
            name: new.name,
            description: new.description,
            agent_type: new.agent_type,
            capabilities: new.capabilities,
            boundaries: new.boundaries,
            mechanism: new.config.mechanism(),
            config: new.config,
            max_agents: new.max_agents,
            health_check: new.health_check,
            tags: new.tags,
            limit_group: new.limit_group,
            ..self.target.clone()
        };
        let redefined = self.replaced_by(redefined, now);
        self.switched_too(redefined, definition.enabled, now)
    }

    /// The changed record, also switched where that was said.
    fn switched_too(
        &self,
        changed: Option<Self>,
        on: Option<bool>,
        now: Timestamp,
    ) -> Option<Self> {
        let switched = on.and_then(|on| changed.as_ref().unwrap_or(self).switched(on, now));
        switched.or(changed)
    }

    fn replaced_by(&self, mut target: Target, now: Timestamp) -> Option<Self> {
        target.updated_at = self.target.updated_at;
        if target.config != self.target.config {
            // What was seen of another configuration says nothing of this one.
            let was = std::mem::take(&mut target.health_status);
            target
                .last_error
                .take_if(|_| was == HealthStatus::Unhealthy);
        }
        (target != self.target).then(|| {
            self.with(now, |next| {
                next.target = target;
                next.target.updated_at = now;
            })
        })
    }

    /// Whether it can be taken away.
    ///
    /// # Errors
    /// It has agents, or some are being born.
    pub const fn check_removable(&self) -> Result<(), StillInUse> {
        let in_use = StillInUse {
            agents: self.agents.len(),
            births: self.births.len(),
        };
        match in_use {
            StillInUse {
                agents: 0,
                births: 0,
            } => Ok(()),
            in_use => Err(in_use),
        }
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::TargetId;
    use loom_protocol::target::{RegisterTarget, TargetStatus};
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn defined(change: Value) -> Definition {
        let mut fields = json!({
            "name": "here", "agentType": "claude-code", "capabilities": ["rust"],
            "mechanism": "local", "config": {"command": "run"},
        });
        let Value::Object(change) = change else {
            panic!("an object")
        };
        fields.as_object_mut().unwrap().extend(change);
        let request: RegisterTarget = serde_json::from_value(fields).unwrap();
        let enabled = request.enabled;
        let target = request.check().unwrap();
        Definition { target, enabled }
    }

    fn record() -> TargetRecord<Value> {
        let new = defined(json!({})).target;
        let target = new.into_target(
            TargetId::generate(),
            BY_CONFIG.into(),
            NOW.before(std::time::Duration::from_secs(1)),
        );
        TargetRecord::new(target)
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let record = record();
        assert_eq!(record.redefined(&defined(json!({})), NOW), None);
        assert_eq!(record.updated(&TargetUpdates::default(), NOW), Ok(None));
        let same = TargetUpdates {
            max_agents: Some(1),
            ..TargetUpdates::default()
        };
        assert_eq!(record.updated(&same, NOW), Ok(None));
        let on = TargetUpdates {
            enabled: Some(true),
            ..TargetUpdates::default()
        };
        assert_eq!(record.updated(&on, NOW), Ok(None));
    }

    #[test]
    fn an_update_switches_and_changes_in_one_step() {
        let both = TargetUpdates {
            enabled: Some(false),
            max_agents: Some(3),
            ..TargetUpdates::default()
        };
        let off = record().updated(&both, NOW).unwrap().unwrap();
        assert_eq!(
            (off.target.status, off.target.max_agents),
            (TargetStatus::Disabled, 3)
        );
        let on = TargetUpdates {
            enabled: Some(true),
            ..TargetUpdates::default()
        };
        let on = off.updated(&on, NOW).unwrap().unwrap();
        assert_eq!(on.target.status, TargetStatus::Available);
    }

    #[test]
    fn a_definition_changes_what_it_says_and_leaves_id_and_switch() {
        let disabled = record().switched(false, NOW).unwrap();
        let next = disabled.redefined(&defined(json!({"maxAgents": 4})), NOW);
        let next = next.unwrap().target;
        assert_eq!((next.max_agents, next.status), (4, TargetStatus::Disabled));
        assert_eq!(
            (next.id, next.registered_at),
            (disabled.target.id, disabled.target.registered_at)
        );
        assert_eq!(next.updated_at, NOW);
        let enabled = disabled.redefined(&defined(json!({"enabled": true})), NOW);
        assert_eq!(enabled.unwrap().target.status, TargetStatus::Available);
    }
}
