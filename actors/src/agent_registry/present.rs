//! Who is there: how many agents are online or busy, by what they can do, where, and of which type.

use std::collections::BTreeMap;

use loom_protocol::agent::{Agent, AgentStatus};

use crate::hashing::HashMap;

/// How many agents of one type are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct There {
    online: usize,
    busy: usize,
}

/// The agents that are there, by boundary and type.
type ByBoundary = HashMap<String, BTreeMap<String, There>>;

/// The agents that are there. Costs each the number of its capabilities times that of its boundaries, and a question the
/// number of the types that are there.
#[derive(Debug, Default)]
pub(super) struct Present {
    by_capability: HashMap<String, ByBoundary>,
}

impl Present {
    /// An agent is another one than before, or has come, or gone. Whether one is there no longer that was, for what it was
    /// there for.
    pub fn replace(&mut self, before: Option<&Agent>, now: Option<&Agent>) -> bool {
        let before = before.filter(|agent| is_there(agent.status));
        let now = now.filter(|agent| is_there(agent.status));
        let same = |(before, now): (&Agent, &Agent)| {
            before.agent_type == now.agent_type
                && before.capabilities == now.capabilities
                && before.boundaries == now.boundaries
        };
        let is_same = before.zip(now).is_some_and(same);
        if is_same && before.map(|agent| agent.status) == now.map(|agent| agent.status) {
            return false;
        }
        if let Some(before) = before {
            self.remove(before);
        }
        if let Some(now) = now {
            self.insert(now);
        }
        before.is_some() && !is_same
    }

    /// An agent is there.
    fn insert(&mut self, agent: &Agent) {
        for capability in different(&agent.capabilities) {
            let by_boundary = entry(&mut self.by_capability, capability);
            for boundary in different(&agent.boundaries) {
                let by_type = entry(by_boundary, boundary);
                let there = match by_type.get_mut(&agent.agent_type) {
                    Some(there) => there,
                    None => by_type.entry(agent.agent_type.clone()).or_default(),
                };
                *there.of(agent.status) += 1;
            }
        }
    }

    /// It is there no longer, or is another one now. `agent` is as it came.
    fn remove(&mut self, agent: &Agent) {
        for capability in different(&agent.capabilities) {
            let Some(by_boundary) = self.by_capability.get_mut(capability) else {
                continue;
            };
            for boundary in different(&agent.boundaries) {
                let Some(by_type) = by_boundary.get_mut(boundary) else {
                    continue;
                };
                if let Some(there) = by_type.get_mut(&agent.agent_type) {
                    *there.of(agent.status) -= 1;
                    if *there == There::default() {
                        by_type.remove(&agent.agent_type);
                    }
                }
                if by_type.is_empty() {
                    by_boundary.remove(boundary);
                }
            }
            if by_boundary.is_empty() {
                self.by_capability.remove(capability);
            }
        }
    }

    /// How many may take what asks for this.
    pub fn count(&self, capability: &str, boundary: &str, required_type: Option<&str>) -> usize {
        let Some(by_type) = self.of(capability, boundary) else {
            return 0;
        };
        let all = |there: &There| there.online + there.busy;
        match required_type {
            Some(required) => by_type.get(required).map_or(0, all),
            None => by_type.values().map(all).sum(),
        }
    }

    /// The type of one that may: that of which most are online, or else busy.
    pub fn agent_type(
        &self,
        capability: &str,
        boundary: &str,
        required_type: Option<&str>,
    ) -> Option<&str> {
        let by_type = self.of(capability, boundary)?;
        if let Some(required) = required_type {
            let (known, _) = by_type.get_key_value(required)?;
            return Some(known);
        }
        let most = by_type
            .iter()
            .max_by_key(|(_, there)| (there.online, there.busy));
        most.map(|(agent_type, _)| agent_type.as_str())
    }

    fn of(&self, capability: &str, boundary: &str) -> Option<&BTreeMap<String, There>> {
        self.by_capability.get(capability)?.get(boundary)
    }
}

impl There {
    const fn of(&mut self, status: AgentStatus) -> &mut usize {
        match status {
            AgentStatus::Busy => &mut self.busy,
            _ => &mut self.online,
        }
    }
}

/// Whether an agent in this state takes work now or in a while: nobody is started in its place.
const fn is_there(status: AgentStatus) -> bool {
    matches!(status, AgentStatus::Online | AgentStatus::Busy)
}

/// What is named, each once.
fn different(names: &[String]) -> impl Iterator<Item = &String> {
    let is_first = |(at, name): &(usize, &String)| !names[..*at].contains(name);
    names
        .iter()
        .enumerate()
        .filter(is_first)
        .map(|(_, name)| name)
}

fn entry<'a, V: Default>(map: &'a mut HashMap<String, V>, name: &str) -> &'a mut V {
    map.entry(name.to_owned()).or_default()
}

#[cfg(test)]
mod tests;
