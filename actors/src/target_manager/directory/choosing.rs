//! What whoever starts agents asks of all targets, and whoever says what becomes of an item. Costs what it names, however
//! many targets there are.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::Mechanism;
use loom_protocol::{AgentGuid, SpinUpId, TargetId, Timestamp};
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::super::Record;
use super::super::key::TargetKey;
use super::{Index, Known, TargetDirectory};
use crate::domain::targets::{BornRun, Need, Places, may_start};

/// A start at a target, under way or to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartAt {
    /// The target.
    pub target: TargetId,
    /// The type of its agents.
    pub agent_type: String,
    /// How they are started.
    pub mechanism: Mechanism,
    /// Since when it is under way: when it was begun last.
    pub since: Option<Timestamp>,
}

impl StartAt {
    fn of(record: &Record, since: Option<Timestamp>) -> Self {
        Self {
            target: record.target.id,
            agent_type: record.target.agent_type.clone(),
            mechanism: record.target.mechanism,
            since,
        }
    }
}

impl TargetDirectory {
    /// A target that may start an agent for a need now, as one is chosen: of the preferred type where there is such a one.
    /// `is_group_paused`: whether a group of agents rests.
    pub fn startable(
        &self,
        need: &Need,
        preferred: Option<&str>,
        now: Timestamp,
        is_group_paused: impl Fn(&str) -> bool,
    ) -> Option<StartAt> {
        let preferred = preferred.map(Arc::from);
        let (_, known) = self.pick(need, preferred.as_ref(), now, |_| 0, is_group_paused)?;
        Some(StartAt::of(&known.record, None))
    }

    /// The oldest start that is not decided and whose agent may take what is needed.
    pub fn first_birth(&self, need: &Need) -> Option<StartAt> {
        let index = self.index.read();
        let mut ids = index.roster.births(need);
        let (record, birth) = ids.find_map(|id| index.birth(id))?;
        Some(StartAt::of(record, Some(birth.begun_at())))
    }

    /// How long it usually is to a birth at a target, by what births of this target, or else of its mechanism, took lately.
    pub fn usual_time_to_birth(&self, at: &StartAt) -> Option<Duration> {
        let index = self.index.read();
        index.ended.times().usual(at.target, at.mechanism)
    }

    /// The target that starts the next agent for a need. `planned`: how many starts of a target are on their way into its
    /// record.
    pub(in crate::target_manager) fn pick(
        &self,
        need: &Need,
        preferred: Option<&Arc<str>>,
        now: Timestamp,
        planned: impl Fn(&TargetKey) -> u32,
        is_group_paused: impl Fn(&str) -> bool,
    ) -> Option<(TargetKey, Known)> {
        let index = self.rested(now);
        let known = |key: &TargetKey| index.by_id.get(index.by_name.get(key)?);
        let may = |key: &TargetKey, planned: u32| {
            known(key).is_some_and(|known| {
                let group = known.record.target.limit_group.as_deref();
                let is_paused = group.is_some_and(&is_group_paused);
                let mut condition = known.record.condition(is_paused);
                condition.agents += planned;
                may_start(&condition, now).is_ok()
            })
        };
        let key = index.roster.pick(need, preferred, planned, may)?;
        Some((*key, known(key)?.clone()))
    }

    /// How many agents the targets that serve a need may have together.
    pub(in crate::target_manager) fn capacity(&self, need: &Need) -> u64 {
        self.index.read().roster.capacity(need)
    }

    /// How many agents are being born that may take what is needed, or were born and are not known to be there yet.
    /// `is_known`: whether that run of an agent has come.
    pub(in crate::target_manager) fn count_expected(
        &self,
        need: &Need,
        is_known: impl Fn(AgentGuid, BornRun<'_>) -> bool,
    ) -> usize {
        self.index.read().roster.count_expected(need, is_known)
    }

    /// Whether a start is in its target's record, and not decided.
    pub(in crate::target_manager) fn is_under_way(&self, id: SpinUpId) -> bool {
        self.index.read().birth(id).is_some()
    }

    /// Where an agent was expected that was born from a target: it may take less than it was started for.
    pub(in crate::target_manager) fn places_of_born(&self, guid: AgentGuid) -> Places {
        let index = self.index.read();
        let mut places = Places::default();
        if let Some((_, agent)) = index.agent(guid) {
            places.add_product(&agent.ticket.capabilities, &agent.ticket.boundaries);
        }
        places
    }

    /// Where somebody may be missing because of what has changed here since this was asked last, and of who has rested.
    pub(in crate::target_manager) fn take_touched(&self, now: Timestamp) -> Places {
        if self.rested(now).roster.has_touched() {
            self.index.write().roster.take_touched()
        } else {
            Places::default()
        }
    }

    /// When the next target has rested; and the groups whose limits targets share.
    pub(in crate::target_manager) fn rests(&self) -> (Option<Timestamp>, Vec<String>) {
        let index = self.index.read();
        let groups = index.roster.groups().map(str::to_owned);
        (index.roster.next_rested(), groups.collect())
    }

    /// The index, in which those may start agents that have rested, and no others. It is written for that only where
    /// somebody's rest has ended, or has not after all.
    fn rested(&self, now: Timestamp) -> RwLockReadGuard<'_, Index> {
        let index = self.index.read();
        if !index.roster.is_to_release(now) {
            return index;
        }
        drop(index);
        let mut index = self.index.write();
        index.roster.release(now);
        RwLockWriteGuard::downgrade(index)
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::ProjectId;
    use loom_protocol::target::RegisterTarget;
    use serde_json::json;

    use super::*;
    use crate::domain::targets::{LinkedAgent, TicketTerms};

    #[test]
    fn an_agent_may_leave_all_of_its_ticket_to_others_whatever_it_takes() {
        let request: RegisterTarget = serde_json::from_value(json!({
            "name": "t", "agentType": "codex", "capabilities": ["a", "b"],
            "mechanism": "local", "command": "run",
        }))
        .unwrap();
        let target = request.check().unwrap();
        let now = Timestamp::from_millis(0);
        let target = target.into_target(TargetId::generate(), "a test".into(), now);
        let ticket = TicketTerms::of(&target, None, [0; 32]);
        let guid = AgentGuid::generate();
        let mut record = Record::new(target);
        record.agents.push(LinkedAgent {
            guid,
            instance_id: None,
            operation_id: SpinUpId::generate(),
            ticket,
            reference: None,
            born_at: now,
        });
        let directory = TargetDirectory::new(ProjectId::new("p").unwrap());
        let key = TargetKey::of("t").unwrap();
        directory.apply(key, &Arc::new(record), 1);
        let mut expected = Places::default();
        expected.add_product(&["a".into(), "b".into()], &["default".into()]);
        assert_eq!(directory.places_of_born(guid), expected);
        let by_itself = directory.places_of_born(AgentGuid::generate());
        assert!(by_itself.is_empty(), "nobody was expected");
    }
}
