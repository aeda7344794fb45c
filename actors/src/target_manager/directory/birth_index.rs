//! Which target has which births, agents and tickets, kept up with each record.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use loom_protocol::{AgentGuid, SpinUpId, TargetId, Timestamp};
use uuid::Uuid;

use super::super::{Record, Reference};
use crate::domain::targets::{Birth, LinkedAgent, TicketDigest, differing};

/// Which target has which births, agents and tickets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct BirthIndex {
    births: HashMap<SpinUpId, TargetId>,
    begun: BTreeSet<(Timestamp, SpinUpId)>,
    /// The target that an agent was born from last.
    agents: HashMap<AgentGuid, TargetId>,
    /// Targets of before, whose records have an agent still that was born from another one since.
    before: BTreeSet<(AgentGuid, TargetId)>,
    tickets: HashMap<TicketDigest, TargetId>,
    /// What the mechanisms say of starts that are not decided. Asked anew after a restart, they say it again.
    said: HashMap<SpinUpId, String>,
}

impl BirthIndex {
    /// The starts that were begun after this time, the oldest first.
    pub fn begun_after(&self, time: Timestamp) -> impl Iterator<Item = SpinUpId> + '_ {
        let last = SpinUpId::new(Uuid::max());
        let later = (Bound::Excluded((time, last)), Bound::Unbounded);
        self.begun.range(later).map(|(_, id)| *id)
    }

    /// The target of a start that is not decided.
    pub fn of_birth(&self, id: SpinUpId) -> Option<TargetId> {
        self.births.get(&id).copied()
    }

    /// The target that an agent was born from.
    pub fn of_agent(&self, guid: AgentGuid) -> Option<TargetId> {
        self.agents.get(&guid).copied()
    }

    /// The target of a ticket.
    pub fn of_ticket(&self, digest: &TicketDigest) -> Option<TargetId> {
        self.tickets.get(digest).copied()
    }

    /// How many starts are not decided.
    pub fn births(&self) -> usize {
        self.births.len()
    }

    /// How many agents that were born from targets live.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// What the mechanism says of a start that is not decided.
    pub fn said(&self, id: SpinUpId) -> Option<&str> {
        self.said.get(&id).map(String::as_str)
    }

    /// The mechanism says something else of a start, or nothing any more.
    pub fn note_said(&mut self, id: SpinUpId, said: Option<String>) {
        match said {
            Some(said) if self.births.contains_key(&id) => {
                self.said.insert(id, said);
            }
            _ => {
                self.said.remove(&id);
            }
        }
    }

    /// Forgets everything but what was said.
    pub fn take_said(&mut self) -> HashMap<SpinUpId, String> {
        std::mem::take(self).said
    }

    /// A record is another one than before, or has come, or gone. Of a target that stays, a birth or an agent that stays
    /// costs a comparison, and one that comes or goes its place.
    pub fn replace(&mut self, before: Option<&Record>, now: Option<&Record>) {
        let is_same = |(before, now): (&Record, &Record)| before.target.id == now.target.id;
        match (before, now) {
            (Some(before), Some(now)) if is_same((before, now)) => {
                let births = differing(&before.births, &now.births, is_same_birth);
                let agents = differing(&before.agents, &now.agents, is_same_agent);
                let target = now.target.id;
                self.remove(target, births.0, agents.0);
                self.insert(target, births.1, agents.1);
            }
            (before, now) => {
                if let Some(record) = before {
                    self.remove(record.target.id, &record.births, &record.agents);
                }
                if let Some(record) = now {
                    self.insert(record.target.id, &record.births, &record.agents);
                }
            }
        }
    }

    fn insert(
        &mut self,
        target: TargetId,
        births: &[Birth<Reference>],
        agents: &[LinkedAgent<Reference>],
    ) {
        for birth in births {
            self.births.insert(birth.operation.operation_id, target);
            self.begun.insert(begun(birth));
            self.tickets.insert(birth.ticket.digest, target);
        }
        for agent in agents {
            let before = self.agents.insert(agent.guid, target);
            if let Some(before) = before.filter(|before| *before != target) {
                self.before.insert((agent.guid, before));
            }
            self.before.remove(&(agent.guid, target));
            self.tickets.insert(agent.ticket.digest, target);
        }
    }

    fn remove(
        &mut self,
        target: TargetId,
        births: &[Birth<Reference>],
        agents: &[LinkedAgent<Reference>],
    ) {
        for birth in births {
            self.births.remove(&birth.operation.operation_id);
            self.said.remove(&birth.operation.operation_id);
            self.begun.remove(&begun(birth));
            self.tickets.remove(&birth.ticket.digest);
        }
        for agent in agents {
            let guid = agent.guid;
            self.before.remove(&(guid, target));
            if self.agents.get(&guid) == Some(&target) {
                match self.one_before(guid) {
                    Some(before) => {
                        self.before.remove(&(guid, before));
                        self.agents.insert(guid, before);
                    }
                    None => {
                        self.agents.remove(&guid);
                    }
                }
            }
            self.tickets.remove(&agent.ticket.digest);
        }
    }

    /// A target of before that has an agent still.
    fn one_before(&self, guid: AgentGuid) -> Option<TargetId> {
        let first = (guid, TargetId::new(Uuid::nil()));
        let mut before = self.before.range(first..);
        let found = before.next().filter(|(of, _)| *of == guid);
        found.map(|(_, target)| *target)
    }
}

/// When a start was begun last.
fn begun(birth: &Birth<Reference>) -> (Timestamp, SpinUpId) {
    (birth.begun_at(), birth.operation.operation_id)
}

fn is_same_birth(one: &Birth<Reference>, other: &Birth<Reference>) -> bool {
    begun(one) == begun(other) && one.ticket.digest == other.ticket.digest
}

fn is_same_agent(one: &LinkedAgent<Reference>, other: &LinkedAgent<Reference>) -> bool {
    one.guid == other.guid && one.ticket.digest == other.ticket.digest
}

#[cfg(test)]
#[path = "birth_index_tests.rs"]
mod tests;
