//! What whoever starts agents asks of those that are there: how many may take what is needed, which groups rest, and
//! whether everybody who lived before this ownership has had the time to be heard.

use loom_protocol::Timestamp;
use loom_protocol::agent::Agent;

use super::pauses::Limit;
use super::{AgentDirectory, AgentEntry};
use crate::domain::targets::Need;

impl AgentDirectory {
    /// How many agents may take what is needed by the rules that never change, and are online or busy. Costs the number
    /// of their types.
    pub fn count_there(&self, need: &Need) -> usize {
        let required = need.required_agent_type.as_deref();
        let index = self.index.read();
        let present = &index.present;
        present.count(&need.capability, &need.boundary, required)
    }

    /// The type of such an agent: that of which most are online, or else busy. No agent is started for what one that is
    /// there will take.
    pub fn type_there(
        &self,
        capability: &str,
        boundary: &str,
        required_type: Option<&str>,
    ) -> Option<String> {
        let index = self.index.read();
        let agent_type = index
            .present
            .agent_type(capability, boundary, required_type);
        agent_type.map(str::to_owned)
    }

    /// Whether an agent that was known before that moment has not been heard of since.
    pub fn has_unheard(&self, since: Timestamp) -> bool {
        let is_unheard =
            |entry: &AgentEntry| entry.agent().registered_at < since && entry.last_seen() < since;
        self.agents.iter().any(|entry| is_unheard(&entry))
    }

    /// Until when a group of agents rests, because the account that they share has reached its limit.
    pub fn group_paused_until(&self, group: &str, now: Timestamp) -> Option<Timestamp> {
        let limits = self.limits.read();
        let until = limits.get(group)?.until;
        (until > now).then_some(until)
    }

    /// The limit that the group of an agent has met and that lasts still.
    pub(super) fn limit_of(&self, agent: &Agent, now: Timestamp) -> Option<Limit> {
        let limits = self.limits.read();
        let limit = limits.get(agent.limit_group.as_ref()?)?;
        (limit.until > now).then(|| limit.clone())
    }

    /// The group of an agent that is paused rests as long at the least.
    pub(super) fn note_limit(&self, agent: &Agent, now: Timestamp) {
        let (Some(group), Some(until)) = (&agent.limit_group, agent.paused_until) else {
            return;
        };
        let mut limits = self.limits.write();
        limits.retain(|_, limit| limit.until > now);
        if limits.get(group).is_none_or(|known| known.until < until) {
            let reason = agent.pause_reason.clone().unwrap_or_default();
            limits.insert(group.clone(), Limit { until, reason });
        }
    }
}
