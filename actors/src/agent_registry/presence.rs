//! What whoever starts agents asks of those that are there: how many may take what is needed, which groups rest, and
//! whether everybody who lived before this ownership has had the time to be heard.

use std::ops::Bound;
use std::sync::Arc;

use loom_protocol::Timestamp;
use loom_protocol::agent::AgentStatus;

use super::index::Direction;
use super::{AgentDirectory, AgentEntry, AgentFilter};
use crate::domain::matching::{Requirements, fits};

impl AgentDirectory {
    /// How many agents may take what is needed by the rules that never change, and are online or busy; counted up to
    /// `most`. Costs what it counts, and those of another type than the one that is required.
    pub fn count_there(&self, needs: &Requirements, most: usize) -> usize {
        let required = needs.required_agent_type.as_deref();
        let filter = |status| AgentFilter {
            agent_type: required.map(str::to_owned),
            status: Some(status),
            capability: Some(needs.capability.to_string()),
            boundary: Some(needs.boundary.to_string()),
        };
        let index = self.index.read();
        let mut count = 0;
        for status in [AgentStatus::Online, AgentStatus::Busy] {
            let Some(mut selection) = index.selection(&filter(status)) else {
                continue;
            };
            let mut from = Bound::Unbounded;
            while count < most
                && let Some(place) = selection.seek(Direction::Forward, from)
            {
                from = Bound::Excluded(place);
                let fit =
                    |entry: Arc<AgentEntry>| fits(&entry.candidate(false).filter(), needs).is_ok();
                count += usize::from(self.get(place.guid).is_some_and(fit));
            }
        }
        count
    }

    /// Whether an agent that was known before that moment has not been heard of since.
    pub fn has_unheard(&self, since: Timestamp) -> bool {
        let is_unheard =
            |entry: &AgentEntry| entry.agent().registered_at < since && entry.last_seen() < since;
        self.agents.iter().any(|entry| is_unheard(&entry))
    }

    /// Until when a group of agents rests, because the account that they share has reached its limit.
    pub fn group_paused_until(&self, group: &str, now: Timestamp) -> Option<Timestamp> {
        let until = *self.limits.read().get(group)?;
        (until > now).then_some(until)
    }

    /// The group of an agent rests until then at the least.
    pub(super) fn note_limit(&self, group: &str, until: Timestamp, now: Timestamp) {
        let mut limits = self.limits.write();
        limits.retain(|_, until| *until > now);
        let known = limits.entry(group.to_owned()).or_insert(until);
        *known = until.max(*known);
    }
}
