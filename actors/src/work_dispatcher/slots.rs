//! What keeps an agent from taking more: assignments being written, items it is still stopping,
//! items it has just given back.

use loom_protocol::{AgentGuid, WorkId};
use tokio::time::Instant;

use crate::hashing::HashMap;

/// Per agent, beyond the leases of the read model.
#[derive(Debug, Default)]
pub(super) struct Slots(HashMap<AgentGuid, Taken>);

#[derive(Debug, Default)]
struct Taken {
    assigning: usize,
    stopping: HashMap<WorkId, Instant>,
    cooling_down: HashMap<WorkId, Instant>,
}

impl Slots {
    /// Slots that are taken although the read model shows no lease.
    pub fn taken(&self, guid: AgentGuid) -> usize {
        self.0
            .get(&guid)
            .map_or(0, |taken| taken.assigning + taken.stopping.len())
    }

    /// The same of every agent that has such slots.
    pub fn all_taken(&self) -> Vec<(AgentGuid, u32)> {
        let count = |guid| u32::try_from(self.taken(guid)).unwrap_or(u32::MAX);
        self.0
            .keys()
            .map(|guid| (*guid, count(*guid)))
            .filter(|(_, taken)| *taken > 0)
            .collect()
    }

    pub fn is_cooling_down(&self, guid: AgentGuid, id: WorkId, now: Instant) -> bool {
        self.0
            .get(&guid)
            .and_then(|taken| taken.cooling_down.get(&id))
            .is_some_and(|until| *until > now)
    }

    /// The agents that are not to be offered this item just now.
    pub fn cooling_down(&self, id: WorkId, now: Instant) -> Vec<AgentGuid> {
        self.0
            .keys()
            .copied()
            .filter(|guid| self.is_cooling_down(*guid, id, now))
            .collect()
    }

    pub fn assigning(&mut self, guid: AgentGuid, count: usize) {
        self.0.entry(guid).or_default().assigning += count;
    }

    pub fn assigned(&mut self, guid: AgentGuid, count: usize) {
        self.change(guid, |taken| {
            taken.assigning = taken.assigning.saturating_sub(count);
        });
    }

    pub fn stopping(&mut self, guid: AgentGuid, id: WorkId, until: Instant) {
        self.0.entry(guid).or_default().stopping.insert(id, until);
    }

    pub fn cool_down(&mut self, guid: AgentGuid, id: WorkId, until: Instant) {
        self.0
            .entry(guid)
            .or_default()
            .cooling_down
            .insert(id, until);
    }

    /// The agent has stopped an item.
    pub fn stopped(&mut self, guid: AgentGuid, id: WorkId) {
        self.change(guid, |taken| {
            taken.stopping.remove(&id);
        });
    }

    /// Forgets what is over for one item.
    pub fn over(&mut self, guid: AgentGuid, id: WorkId, now: Instant) {
        self.change(guid, |taken| {
            taken.stopping.retain(|of, until| *of != id || *until > now);
            taken
                .cooling_down
                .retain(|of, until| *of != id || *until > now);
        });
    }

    fn change(&mut self, guid: AgentGuid, change: impl FnOnce(&mut Taken)) {
        if let Some(taken) = self.0.get_mut(&guid) {
            change(taken);
            if taken.assigning == 0 && taken.stopping.is_empty() && taken.cooling_down.is_empty() {
                self.0.remove(&guid);
            }
        }
    }
}
