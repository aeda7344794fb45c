//! When to look at whom next: one deadline for each agent, and one armed timer for all.

use std::collections::{BTreeSet, HashMap};

use loom_protocol::AgentGuid;
use tokio::time::Instant;

/// The deadlines of all agents, in order.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    in_order: BTreeSet<(Instant, AgentGuid)>,
    of: HashMap<AgentGuid, Instant>,
    epoch: u64,
    /// The epoch and the time of the armed timer; a timer of another epoch is stale.
    armed: Option<(u64, Instant)>,
}

impl Deadlines {
    /// Looks at the agent at `at`, instead of whenever it was to be looked at before.
    pub fn set(&mut self, guid: AgentGuid, at: Instant) {
        if let Some(before) = self.of.insert(guid, at) {
            self.in_order.remove(&(before, guid));
        }
        self.in_order.insert((at, guid));
    }

    /// Looks at the agent no more.
    pub fn remove(&mut self, guid: AgentGuid) {
        if let Some(before) = self.of.remove(&guid) {
            self.in_order.remove(&(before, guid));
        }
    }

    /// When the timer was to fire, if it is the armed one; it is armed no more.
    pub fn fired(&mut self, epoch: u64) -> Option<Instant> {
        let (_, at) = self.armed.filter(|(armed, _)| *armed == epoch)?;
        self.armed = None;
        Some(at)
    }

    /// Takes out whom to look at now, the longest overdue first.
    pub fn due(&mut self, now: Instant) -> Vec<AgentGuid> {
        let mut due = Vec::new();
        while let Some((at, guid)) = self.in_order.first().copied()
            && at <= now
        {
            self.remove(guid);
            due.push(guid);
        }
        due
    }

    /// The epoch and the time of a timer that has to be armed, if none is or the armed one is too late.
    pub fn next_to_arm(&mut self) -> Option<(u64, Instant)> {
        let next = self.in_order.first()?.0;
        if self.armed.is_some_and(|(_, at)| at <= next) {
            return None;
        }
        self.epoch += 1;
        self.armed = Some((self.epoch, next));
        self.armed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_agent_has_one_deadline_and_the_earliest_is_armed() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (one, other) = (AgentGuid::generate(), AgentGuid::generate());
        let mut deadlines = Deadlines::default();
        deadlines.set(one, at(30));
        let (late, _) = deadlines.next_to_arm().unwrap();
        deadlines.set(other, at(20));
        let (early, when) = deadlines.next_to_arm().unwrap();
        assert_eq!(when, at(20));
        assert_eq!(deadlines.fired(late), None);
        assert_eq!(deadlines.fired(early), Some(at(20)));
        // It gave a sign of life: there is nothing to be done at the old time.
        deadlines.set(other, at(50));
        assert_eq!(deadlines.due(at(20)), []);
        deadlines.remove(one);
        assert_eq!(deadlines.due(at(55)), [other]);
        assert_eq!(deadlines.next_to_arm(), None);
    }
}
