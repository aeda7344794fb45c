//! Which agents share a usage limit, and when their pauses end. Which limits are met the directory knows.

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

/// Who shares a limit with whom, and whose pause ends when.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    members: HashMap<String, HashSet<AgentGuid>>,
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
        if let Some(until) = agent.paused_until {
            self.due.set(agent.guid, until);
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

    /// Takes out whose pauses are over.
    pub fn take_over(&mut self, now: Timestamp) -> Vec<AgentGuid> {
        let mut over = Vec::new();
        while let Some(guid) = self.due.pop_due(now) {
            over.push(guid);
        }
        over
    }
}
