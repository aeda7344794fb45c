//! What people do to a target that is there: change it, define it in a file, take it away.

use std::time::Duration;

use loom_protocol::target::{HealthStatus, Mechanism, NewTarget, Target, TargetUpdates};
use loom_protocol::{AgentGuid, SpinUpId, Timestamp, WireError};

use super::record::TargetRecord;

/// Who has registered what the configuration file defines.
pub(crate) const BY_CONFIG: &str = "config";

/// When it may be asked again whether the mechanism can be another one.
const ASK_AGAIN: Duration = Duration::from_secs(5);

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

/// Why the mechanism of a target cannot be another one yet: what was started by the old one is found and ended by that
/// alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its mechanism is {from} and can't become {to} while something lives that was started by {from}: {}, which could not be ended any more. Disable it and let them end, or define the other one under another name",
    living(agents, births)
)]
pub struct MechanismInUse {
    /// By what its agents were started.
    pub from: Mechanism,
    /// By what they would be.
    pub to: Mechanism,
    /// The agents that are linked to it.
    pub agents: Vec<AgentGuid>,
    /// Its operations that are not decided.
    pub births: Vec<SpinUpId>,
}

/// What lives, by name.
fn living(agents: &[AgentGuid], births: &[SpinUpId]) -> String {
    let agents = agents.iter().map(|guid| format!("agent {guid}"));
    let births = births.iter().map(|id| format!("start {id}"));
    agents.chain(births).collect::<Vec<_>>().join(", ")
}

impl From<MechanismInUse> for WireError {
    /// The same may be asked again once they have ended.
    fn from(in_use: MechanismInUse) -> Self {
        let details = serde_json::json!({"agents": in_use.agents, "spinUps": in_use.births});
        Self::unavailable(in_use.to_string(), ASK_AGAIN).with_details(details)
    }
}

/// Why a target cannot be taken away: what was started from it would be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "target has {}; disable it, let them end, and remove it then",
    counted(*agents, *births)
)]
pub struct StillInUse {
    /// The agents that are linked to it.
    pub agents: usize,
    /// Its operations that are not decided.
    pub births: usize,
}

/// How much lives, without what there is none of.
fn counted(agents: usize, births: usize) -> String {
    let of = |count: usize, one: &str, more: &str| {
        (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { more }))
    };
    let agents = of(agents, "agent", "agents");
    let births = of(births, "start under way", "starts under way");
    let both: Vec<String> = agents.into_iter().chain(births).collect();
    both.join(" and ")
}

impl<R: Clone> TargetRecord<R> {
    /// With changes by a person. `None`: it is so already.
    ///
    /// # Errors
    /// A field is wrong; the error names it. Or something lives that another mechanism could not end.
    pub fn updated(
        &self,
        updates: &TargetUpdates,
        now: Timestamp,
    ) -> Result<Option<Self>, WireError> {
        let updated = updates.apply(&self.target, now)?;
        let updated = self.replaced_by(updated, now)?;
        Ok(self.switched_too(updated, updates.enabled, now))
    }

    /// As the configuration file defines it now. `None`: it is so already. Where it defines another mechanism, and
    /// something lives that this one could not end, it is switched off if the file says so, and nothing else is changed:
    /// the record that it gives has the former mechanism then.
    ///
    /// # Errors
    /// The same, and there is nothing to switch off.
    pub fn redefined(
        &self,
        definition: &Definition,
        now: Timestamp,
    ) -> Result<Option<Self>, MechanismInUse> {
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
        match self.replaced_by(redefined, now) {
            Ok(redefined) => Ok(self.switched_too(redefined, definition.enabled, now)),
            // Not on: who switches it off by hand meanwhile does so for the new mechanism to come.
            Err(in_use) => {
                let is_off = definition.enabled == Some(false);
                let off = is_off.then(|| self.switched(false, now)).flatten();
                off.map(Some).ok_or(in_use)
            }
        }
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

    fn replaced_by(
        &self,
        mut target: Target,
        now: Timestamp,
    ) -> Result<Option<Self>, MechanismInUse> {
        self.check_mechanism(target.mechanism)?;
        target.updated_at = self.target.updated_at;
        if target.config != self.target.config {
            // What was seen of another configuration says nothing of this one.
            let was = std::mem::take(&mut target.health_status);
            target
                .last_error
                .take_if(|_| was == HealthStatus::Unhealthy);
        }
        Ok((target != self.target).then(|| {
            self.with(now, |next| {
                next.target = target;
                next.target.updated_at = now;
            })
        }))
    }

    /// Whether its agents may be started by this mechanism from now on.
    fn check_mechanism(&self, to: Mechanism) -> Result<(), MechanismInUse> {
        let from = self.target.mechanism;
        let is_free = self.agents.is_empty() && self.births.is_empty();
        if from == to || is_free {
            return Ok(());
        }
        let births = self.births.iter();
        Err(MechanismInUse {
            from,
            to,
            agents: self.agents.iter().map(|agent| agent.guid).collect(),
            births: births.map(|birth| birth.operation.operation_id).collect(),
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
    use crate::domain::targets::{Birth, LinkedAgent, TicketTerms};

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
        assert_eq!(record.redefined(&defined(json!({})), NOW), Ok(None));
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
        let next = next.unwrap().unwrap().target;
        assert_eq!((next.max_agents, next.status), (4, TargetStatus::Disabled));
        assert_eq!(
            (next.id, next.registered_at),
            (disabled.target.id, disabled.target.registered_at)
        );
        assert_eq!(next.updated_at, NOW);
        let enabled = disabled.redefined(&defined(json!({"enabled": true})), NOW);
        let enabled = enabled.unwrap().unwrap().target;
        assert_eq!(enabled.status, TargetStatus::Available);
    }

    #[test]
    fn a_definition_that_waits_switches_off_and_never_on() {
        let ssh = |enabled: bool| {
            let config = json!({"host": "h", "user": "u", "command": "c"});
            defined(json!({"mechanism": "ssh", "config": config, "enabled": enabled}))
        };
        let in_use = in_use(&record(), AgentGuid::generate(), SpinUpId::generate());
        assert!(in_use.redefined(&ssh(true), NOW).is_err());
        let off = in_use.redefined(&ssh(false), NOW).unwrap().unwrap();
        assert_eq!(off.target.status, TargetStatus::Disabled);
        assert_eq!(off.target.mechanism, Mechanism::Local, "that waits");
        for enabled in [true, false] {
            assert!(off.redefined(&ssh(enabled), NOW).is_err());
        }
        let free = off.with(NOW, |next| {
            next.agents.clear();
            next.births.clear();
        });
        let next = free.redefined(&ssh(true), NOW).unwrap().unwrap().target;
        assert_eq!(next.mechanism, Mechanism::Ssh);
        assert_ne!(next.status, TargetStatus::Disabled);
    }

    fn ticket(record: &TargetRecord<Value>) -> TicketTerms {
        TicketTerms::of(&record.target, None, [7; 32])
    }

    /// With an agent that lives, and a start that is under way.
    fn in_use(record: &TargetRecord<Value>, guid: AgentGuid, id: SpinUpId) -> TargetRecord<Value> {
        let operation = json!({
            "operationId": id, "targetId": record.target.id, "targetName": "here", "mechanism": "local",
            "status": "pending", "startedAt": NOW,
        });
        record.with(NOW, |next| {
            next.agents.push(LinkedAgent {
                guid,
                instance_id: None,
                operation_id: SpinUpId::generate(),
                ticket: ticket(record),
                reference: None,
                born_at: NOW,
            });
            next.births.push(Birth {
                operation: serde_json::from_value(operation).unwrap(),
                ticket: ticket(record),
                reference: None,
                place: None,
                begun_again_at: None,
            });
        })
    }

    #[test]
    fn a_mechanism_stays_as_long_as_something_lives_that_it_has_started() {
        let ssh = json!({"mechanism": "ssh", "config": {"host": "h", "user": "u", "command": "c"}});
        let ssh = defined(ssh);
        let free = record();
        let next = free.redefined(&ssh, NOW).unwrap().unwrap().target;
        assert_eq!(next.mechanism, Mechanism::Ssh);

        let (guid, id) = (AgentGuid::generate(), SpinUpId::generate());
        let in_use = in_use(&record(), guid, id);
        let refused = in_use.redefined(&ssh, NOW).unwrap_err();
        let text = refused.to_string();
        for part in [
            "local",
            "ssh",
            &guid.to_string(),
            &id.to_string(),
            "Disable it",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // Once they have ended it may be so.
        assert!(WireError::from(refused).code.is_transient());
        // All else may change meanwhile, as by an update, which names no other mechanism at all.
        let other = in_use.redefined(&defined(json!({"config": {"command": "other"}})), NOW);
        assert!(other.unwrap().is_some());
        let config =
            json!({"config": {"mechanism": "ssh", "host": "h", "user": "u", "command": "c"}});
        let updates: TargetUpdates = serde_json::from_value(config).unwrap();
        for record in [&free, &in_use] {
            assert!(record.updated(&updates, NOW).is_err());
        }
    }
}
