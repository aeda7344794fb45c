//! The agents that targets are about to have, by what they will be able to take: those being born, and those that were
//! born and may not be there yet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use loom_protocol::{AgentGuid, SpinUpId, Timestamp};

use super::choice::LaneKey;
use super::differing::differing;
use super::{Birth, BornRun, LinkedAgent, Need, TargetRecord, TicketTerms};

/// Those who will be able to take the same.
#[derive(Debug, Default)]
struct Lane {
    births: BTreeSet<(Timestamp, SpinUpId)>,
    agents: BTreeMap<(AgentGuid, SpinUpId), Born>,
}

/// The run that was born.
#[derive(Debug)]
struct Born {
    name: Option<Arc<str>>,
    at: Timestamp,
}

impl Born {
    fn run(&self) -> BornRun<'_> {
        BornRun {
            instance_id: self.name.as_deref(),
            born_at: self.at,
        }
    }
}

/// One of them, as a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct One<'a> {
    id: SpinUpId,
    stage: Stage<'a>,
    ticket: &'a TicketTerms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage<'a> {
    /// Being born since then.
    Birth(Timestamp),
    /// Born, as this run.
    Agent(AgentGuid, BornRun<'a>),
}

/// Who is expected, by capability, boundary and type. An agent may take what its ticket is for.
#[derive(Debug, Default)]
pub struct Expected {
    lanes: HashMap<LaneKey, Lane>,
}

impl Expected {
    /// A record is another one than before, or has come, or gone. The tickets of those who were expected and are so no
    /// longer.
    ///
    /// Who stays costs a comparison, who comes or goes what their tickets name.
    pub fn replace<'a, R>(
        &mut self,
        before: Option<&'a TargetRecord<R>>,
        now: Option<&TargetRecord<R>>,
    ) -> Vec<&'a TicketTerms> {
        let births = of_differing(births_of(before), births_of(now), of_birth);
        let agents = of_differing(agents_of(before), agents_of(now), of_agent);
        let (gone, come) = ([births.0, agents.0].concat(), [births.1, agents.1].concat());
        for one in &gone {
            self.remove(one);
        }
        for one in &come {
            self.insert(one);
        }
        // One that was born is expected as before.
        let kept: HashSet<SpinUpId> = come.iter().map(|one| one.id).collect();
        let lost = gone.into_iter().filter(|one| !kept.contains(&one.id));
        lost.map(|one| one.ticket).collect()
    }

    fn insert(&mut self, one: &One<'_>) {
        let name = match one.stage {
            Stage::Agent(_, run) => run.instance_id.map(Arc::<str>::from),
            Stage::Birth(_) => None,
        };
        for key in lanes_of(one.ticket) {
            let lane = self.lanes.entry(key).or_default();
            match one.stage {
                Stage::Birth(since) => {
                    lane.births.insert((since, one.id));
                }
                Stage::Agent(guid, run) => {
                    let born = Born {
                        name: name.clone(),
                        at: run.born_at,
                    };
                    lane.agents.insert((guid, one.id), born);
                }
            }
        }
    }

    fn remove(&mut self, one: &One<'_>) {
        for key in lanes_of(one.ticket) {
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            match one.stage {
                Stage::Birth(since) => {
                    lane.births.remove(&(since, one.id));
                }
                Stage::Agent(guid, _) => {
                    lane.agents.remove(&(guid, one.id));
                }
            }
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

    /// The agents that were born and may take what is needed, and which run of each was born.
    pub fn agents(&self, need: &Need) -> impl Iterator<Item = (AgentGuid, BornRun<'_>)> + use<'_> {
        let lane = self.lane(need).into_iter();
        let agents = lane.flat_map(|lane| &lane.agents);
        agents.map(|((guid, _), born)| (*guid, born.run()))
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

const fn of_birth<R>(birth: &Birth<R>) -> One<'_> {
    One {
        id: birth.operation.operation_id,
        stage: Stage::Birth(birth.operation.started_at),
        ticket: &birth.ticket,
    }
}

fn of_agent<R>(agent: &LinkedAgent<R>) -> One<'_> {
    One {
        id: agent.operation_id,
        stage: Stage::Agent(agent.guid, agent.run()),
        ticket: &agent.ticket,
    }
}

fn births_of<R>(record: Option<&TargetRecord<R>>) -> &[Birth<R>] {
    record.map_or(&[], |record| &record.births)
}

fn agents_of<R>(record: Option<&TargetRecord<R>>) -> &[LinkedAgent<R>] {
    record.map_or(&[], |record| &record.agents)
}

/// Those of two lists by which they differ.
fn of_differing<'b, 'n, T>(
    before: &'b [T],
    now: &'n [T],
    of: for<'x> fn(&'x T) -> One<'x>,
) -> (Vec<One<'b>>, Vec<One<'n>>) {
    let (before, now) = differing(before, now, |one, other| of(one) == of(other));
    (
        before.iter().map(of).collect(),
        now.iter().map(of).collect(),
    )
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
