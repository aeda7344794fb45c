//! Which agents share a usage limit, which limits are met, and when their pauses end.

use std::collections::{HashMap, HashSet};

use loom_protocol::agent::Agent;
use loom_protocol::{AgentGuid, Timestamp};

use super::AgentDirectory;
use crate::deadline_queue::DeadlineQueue;

/// A usage limit that was met.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub until: Timestamp,
    pub reason: String,
}

/// Who shares a limit with whom, which limits are met, and whose pause ends when.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    members: HashMap<String, HashSet<AgentGuid>>,
    limits: HashMap<String, Limit>,
    /// When a pause ends, or the order to go on is repeated no more.
    pub due: DeadlineQueue<AgentGuid, Timestamp>,
}

impl Pauses {
    /// Those of the agents that are known already.
    pub fn of(directory: &AgentDirectory) -> Self {
        let mut pauses = Self::default();
        for entry in directory.all() {
            pauses.upsert(None, entry.agent());
        }
        pauses
    }

    /// An agent is as it is now.
    pub fn upsert(&mut self, before: Option<&Agent>, agent: &Agent) {
        let group_before = before.and_then(|before| before.limit_group.as_ref());
        if group_before != agent.limit_group.as_ref() {
            self.remove_from_group(group_before, agent.guid);
        }
        if let Some(group) = &agent.limit_group {
            let members = self.members.entry(group.clone()).or_default();
            members.insert(agent.guid);
        }
        let Some(until) = agent.paused_until else {
            return;
        };
        self.due.set(agent.guid, until);
        let limit = Limit {
            until,
            reason: agent.pause_reason.clone().unwrap_or_default(),
        };
        if let Some(group) = &agent.limit_group
            && self
                .limits
                .get(group)
                .is_none_or(|known| known.until < until)
        {
            self.limits.insert(group.clone(), limit);
        }
    }

    /// An agent is gone; what its group has met goes on.
    pub fn remove(&mut self, agent: &Agent) {
        self.remove_from_group(agent.limit_group.as_ref(), agent.guid);
    }

    fn remove_from_group(&mut self, group: Option<&String>, guid: AgentGuid) {
        let Some(group) = group else {
            return;
        };
        if let Some(members) = self.members.get_mut(group) {
            members.remove(&guid);
            if members.is_empty() {
                self.members.remove(group);
            }
        }
    }

    /// Everybody whom the limit of this agent concerns, itself included.
    pub fn group_of(&self, agent: &Agent) -> Vec<AgentGuid> {
        let group = agent.limit_group.as_ref();
        match group.and_then(|group| self.members.get(group)) {
            Some(members) => members.iter().copied().collect(),
            None => vec![agent.guid],
        }
    }

    /// The limit that its group has met and that lasts still.
    pub fn limit_of(&self, agent: &Agent, now: Timestamp) -> Option<&Limit> {
        let limit = self.limits.get(agent.limit_group.as_ref()?)?;
        (limit.until > now).then_some(limit)
    }

    /// Takes out whose pauses are over, and forgets limits that are.
    pub fn take_over(&mut self, now: Timestamp) -> Vec<AgentGuid> {
        let mut over = Vec::new();
        while let Some(guid) = self.due.pop_due(now) {
            over.push(guid);
        }
        self.limits.retain(|_, limit| limit.until > now);
        over
    }
}
