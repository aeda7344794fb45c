//! The agents that targets are about to have, by what they will be able to take: those being born, and those that were
//! born and may not be there yet.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use loom_protocol::{AgentGuid, SpinUpId, Timestamp};

use super::choice::LaneKey;
use super::{Need, TargetRecord, TicketTerms};

/// Those who will be able to take the same.
#[derive(Debug, Default)]
struct Lane {
    births: BTreeSet<(Timestamp, SpinUpId)>,
    agents: BTreeSet<(AgentGuid, SpinUpId)>,
}

/// Who is expected, by capability, boundary and type. An agent may take what its ticket is for.
#[derive(Debug, Default)]
pub struct Expected {
    lanes: HashMap<LaneKey, Lane>,
}

impl Expected {
    /// Takes in the births and the agents of a record.
    pub fn insert<R>(&mut self, record: &TargetRecord<R>) {
        for birth in &record.births {
            let operation = &birth.operation;
            let place = (operation.started_at, operation.operation_id);
            for key in lanes_of(&birth.ticket) {
                self.lanes.entry(key).or_default().births.insert(place);
            }
        }
        for agent in &record.agents {
            let place = (agent.guid, agent.operation_id);
            for key in lanes_of(&agent.ticket) {
                self.lanes.entry(key).or_default().agents.insert(place);
            }
        }
    }

    /// Takes out what is in a record that was taken in.
    pub fn remove<R>(&mut self, record: &TargetRecord<R>) {
        for birth in &record.births {
            let operation = &birth.operation;
            let place = (operation.started_at, operation.operation_id);
            self.change(&birth.ticket, |lane| {
                lane.births.remove(&place);
            });
        }
        for agent in &record.agents {
            let place = (agent.guid, agent.operation_id);
            self.change(&agent.ticket, |lane| {
                lane.agents.remove(&place);
            });
        }
    }

    fn change(&mut self, ticket: &TicketTerms, change: impl Fn(&mut Lane)) {
        for key in lanes_of(ticket) {
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            change(lane);
            if lane.births.is_empty() && lane.agents.is_empty() {
                self.lanes.remove(&key);
            }
        }
    }

    /// The starts whose agents may take what is needed once they are there, the oldest first.
    pub fn births(&self, need: &Need) -> impl Iterator<Item = SpinUpId> + use<'_> {
        let lane = self.lane(need).into_iter();
        lane.flat_map(|lane| &lane.births).map(|(_, id)| *id)
    }

    /// How many of those there are.
    pub fn count_births(&self, need: &Need) -> usize {
        self.lane(need).map_or(0, |lane| lane.births.len())
    }

    /// The agents that were born and may take what is needed.
    pub fn agents(&self, need: &Need) -> impl Iterator<Item = AgentGuid> + use<'_> {
        let lane = self.lane(need).into_iter();
        lane.flat_map(|lane| &lane.agents).map(|(guid, _)| *guid)
    }

    fn lane(&self, need: &Need) -> Option<&Lane> {
        self.lanes.get(&LaneKey {
            capability: need.capability.clone(),
            boundary: Some(need.boundary.clone()),
            agent_type: need.required_agent_type.clone(),
        })
    }

    /// Whether nobody is expected.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}

/// The lists that the agent of a ticket is in: for each capability and boundary one of its type and one of all types.
fn lanes_of(ticket: &TicketTerms) -> HashSet<LaneKey> {
    let shared = |names: &[String]| -> Vec<Arc<str>> {
        names.iter().map(|name| name.as_str().into()).collect()
    };
    let (capabilities, boundaries) = (shared(&ticket.capabilities), shared(&ticket.boundaries));
    let own: Arc<str> = ticket.agent_type.as_str().into();
    let mut lanes = HashSet::with_capacity(capabilities.len() * boundaries.len() * 2);
    for capability in &capabilities {
        for boundary in &boundaries {
            for agent_type in [None, Some(&own)] {
                lanes.insert(LaneKey {
                    capability: capability.clone(),
                    boundary: Some(boundary.clone()),
                    agent_type: agent_type.cloned(),
                });
            }
        }
    }
    lanes
}
