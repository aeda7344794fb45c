//! Everything the dispatcher waits for, in one order, so that one timer is armed at a time.

use std::collections::BTreeMap;

use loom_protocol::{AgentGuid, WorkId};
use tokio::time::Instant;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The wait of a parked claim is over.
    ClaimOver(u64),
    /// Held items may be ready.
    Held,
    /// The agent may be offered what it gave back, or a slot that was kept for a stopping item.
    AgentMayTakeMore(AgentGuid, WorkId),
}

/// Deadlines in order.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(Instant, u64), Due>,
    count: u64,
    /// The epoch and the time of the armed timer; a timer of another epoch is stale.
    armed: Option<(u64, Instant)>,
}

impl Timers {
    pub fn add(&mut self, at: Instant, due: Due) {
        self.count += 1;
        self.due.insert((at, self.count), due);
    }

    /// What is due now, if the timer that fired is the armed one.
    pub fn fired(&mut self, epoch: u64, now: Instant) -> Vec<Due> {
        if self.armed.is_none_or(|(armed, _)| armed != epoch) {
            return Vec::new();
        }
        self.armed = None;
        let mut due = Vec::new();
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            due.push(entry.remove());
        }
        due
    }

    /// The epoch and the time of a timer that has to be armed, if the armed one is too late.
    pub fn next_to_arm(&mut self) -> Option<(u64, Instant)> {
        let next = self.due.first_key_value()?.0.0;
        if self.armed.is_some_and(|(_, at)| at <= next) {
            return None;
        }
        self.count += 1;
        self.armed = Some((self.count, next));
        self.armed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_earliest_deadline_is_armed_and_stale_timers_are_ignored() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut timers = Timers::default();
        timers.add(at(20), Due::Held);
        let (late, when) = timers.next_to_arm().unwrap();
        assert_eq!(when, at(20));
        assert_eq!(timers.next_to_arm(), None);
        timers.add(at(10), Due::ClaimOver(1));
        let (early, when) = timers.next_to_arm().unwrap();
        assert_eq!(when, at(10));
        assert_eq!(timers.fired(late, at(20)), []);
        assert_eq!(timers.fired(early, at(10)), [Due::ClaimOver(1)]);
        let (last, _) = timers.next_to_arm().unwrap();
        assert_eq!(timers.fired(last, at(20)), [Due::Held]);
        assert_eq!(timers.next_to_arm(), None);
    }
}
