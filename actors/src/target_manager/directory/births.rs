//! The births of all targets, and the agents that were born from them, as they are known: found by their ids and by
//! their tickets, without a look at every record.

use std::sync::Arc;

use loom_protocol::target::{BirthTicket, SpinUpOperation};
use loom_protocol::{AgentGuid, SpinUpId, TargetId, Timestamp, WireError};

use super::super::birth_command::refused;
use super::super::operations::{OperationFilter, OperationsFound, page_of};
use super::super::{Ended, Record, Reference};
use super::{Index, TargetDirectory};
use crate::agent_registry::AgentEntry;
use crate::domain::targets::{
    Birth, BornRun, LinkedAgent, Need, OwnedNewborn, TargetCondition, TargetProfile, digest_of,
};

/// A target as `work.explain` and whoever chooses one look at it.
#[derive(Debug, Clone)]
pub struct TargetView {
    /// Its id.
    pub id: TargetId,
    /// Its name.
    pub name: String,
    /// For whom it starts agents.
    pub profile: TargetProfile,
    /// How it is.
    pub condition: TargetCondition,
}

/// From which target an agent was born.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedTo {
    /// The target.
    pub target_id: TargetId,
    /// Its name.
    pub target_name: String,
    /// The start.
    pub operation_id: SpinUpId,
    /// The run of the agent that was born.
    pub instance_id: Option<String>,
    /// When it registered first.
    pub born_at: Timestamp,
}

impl LinkedTo {
    /// Whether an entry of the registry is of the run that was born, and of none that had its id before.
    pub fn is_of(&self, entry: &AgentEntry) -> bool {
        let run = BornRun {
            instance_id: self.instance_id.as_deref(),
            born_at: self.born_at,
        };
        run.has_registered(entry.agent(), entry.last_seen())
    }
}

/// To whom a ticket belongs.
#[derive(Debug, Clone)]
pub(crate) enum TicketOf {
    /// A start that is not decided, or an agent that lives; of this target.
    Target(String, TargetId),
    /// A start that is decided, and whose agent is not linked.
    Decided(Arc<Ended>),
}

impl Index {
    pub(super) fn record_of(&self, target: TargetId) -> Option<&Arc<Record>> {
        self.by_id.get(&target).map(|known| &known.record)
    }

    pub(super) fn birth(&self, id: SpinUpId) -> Option<(&Arc<Record>, &Birth<Reference>)> {
        let record = self.record_of(self.births.of_birth(id)?)?;
        let mut births = record.births.iter();
        let birth = births.find(|birth| birth.operation.operation_id == id)?;
        Some((record, birth))
    }

    pub(super) fn agent(&self, guid: AgentGuid) -> Option<(&Arc<Record>, &LinkedAgent<Reference>)> {
        let record = self.record_of(self.births.of_agent(guid)?)?;
        let agent = record.agents.iter().find(|agent| agent.guid == guid)?;
        Some((record, agent))
    }
}

impl TargetDirectory {
    /// One start of an agent, decided or not; of the decided ones those that are kept.
    pub fn operation(&self, id: SpinUpId) -> Option<SpinUpOperation> {
        let index = self.index.read();
        if let Some((_, birth)) = index.birth(id) {
            return Some(index.shown(&birth.operation));
        }
        index.ended.get(id).map(|end| end.operation.clone())
    }

    /// One page of the starts that pass a filter, the latest first.
    ///
    /// # Errors
    /// The cursor is none.
    pub fn operations(
        &self,
        filter: &OperationFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<OperationsFound, WireError> {
        let index = self.index.read();
        // While an end is written and the record is not, both have the operation: it is not decided.
        let records = index.by_id.values().map(|known| &known.record);
        let births = records.flat_map(|record| &record.births);
        let undecided = births.map(|birth| &birth.operation);
        let decided = index.ended.iter().map(|end| &end.operation);
        let mut found = page_of(undecided.chain(decided), filter, cursor, limit)?;
        for operation in &mut found.operations {
            index.add_said(operation);
        }
        Ok(found)
    }

    /// From which target an agent was born; none where it came by itself, or is gone.
    pub fn linked(&self, guid: AgentGuid) -> Option<LinkedTo> {
        let index = self.index.read();
        let (record, agent) = index.agent(guid)?;
        Some(LinkedTo {
            target_id: record.target.id,
            target_name: record.target.name.clone(),
            operation_id: agent.operation_id,
            instance_id: agent.instance_id.clone(),
            born_at: agent.born_at,
        })
    }

    /// The target of an agent that registers without its ticket, where this is the run that was born. One that names no
    /// run cannot be told from another one.
    ///
    /// # Errors
    /// `forbidden`: it is more than its ticket was for.
    pub fn renewed(&self, agent: &OwnedNewborn) -> Result<Option<TargetId>, WireError> {
        let index = self.index.read();
        let linked = index.agent(agent.guid);
        let Some((record, linked)) =
            linked.filter(|(_, linked)| is_run_of(linked, agent.instance_id.as_deref()))
        else {
            return Ok(None);
        };
        let checked = linked.ticket.check(&agent.view());
        checked.map_err(|refusal| refused(&refusal))?;
        Ok(Some(record.target.id))
    }

    /// Every target with what decides whether it starts agents, by registration. `is_group_paused`: whether a group of
    /// agents rests.
    pub fn conditions(&self, is_group_paused: impl Fn(&str) -> bool) -> Vec<TargetView> {
        let index = self.index.read();
        let mut views: Vec<(Timestamp, TargetView)> = index
            .by_id
            .values()
            .map(|known| {
                let target = &known.record.target;
                let group = target.limit_group.as_deref();
                let view = TargetView {
                    id: target.id,
                    name: target.name.clone(),
                    profile: target.into(),
                    condition: known.record.condition(group.is_some_and(&is_group_paused)),
                };
                (target.registered_at, view)
            })
            .collect();
        views.sort_by_key(|(registered_at, view)| (*registered_at, view.id));
        views.into_iter().map(|(_, view)| view).collect()
    }

    /// The starts that are not decided whose agent may take what is needed once it is there, the oldest first.
    pub fn being_born(&self, need: &Need) -> Vec<SpinUpOperation> {
        let index = self.index.read();
        let ids = index.roster.births(need);
        let births = ids.filter_map(|id| index.birth(id));
        births
            .map(|(_, birth)| index.shown(&birth.operation))
            .collect()
    }

    /// The record of the target of an agent, and what it knows of the agent.
    pub(in crate::target_manager) fn linked_agent(
        &self,
        guid: AgentGuid,
    ) -> Option<(Arc<Record>, LinkedAgent<Reference>)> {
        let index = self.index.read();
        let (record, agent) = index.agent(guid)?;
        Some((record.clone(), agent.clone()))
    }

    /// How many starts are not decided.
    pub fn undecided(&self) -> usize {
        self.index.read().births.births()
    }

    /// How many agents that were born from targets live.
    pub fn linked_agents(&self) -> usize {
        self.index.read().births.agents()
    }

    /// To whom a ticket belongs, as far as it is kept.
    pub(crate) fn ticket_of(&self, ticket: &BirthTicket) -> Option<TicketOf> {
        let digest = digest_of(ticket);
        let index = self.index.read();
        if let Some(target) = index.births.of_ticket(&digest)
            && let Some(record) = index.record_of(target)
        {
            return Some(TicketOf::Target(record.target.name.clone(), target));
        }
        let end = index.ended.of_ticket(&digest)?;
        Some(TicketOf::Decided(end.clone()))
    }
}

/// Whether a run is the one that was born, as far as it can be known without the ticket.
fn is_run_of(linked: &LinkedAgent<Reference>, run: Option<&str>) -> bool {
    run.is_some() && linked.instance_id.as_deref() == run
}
