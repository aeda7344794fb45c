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
    /// The earliest look at the held items that is to come.
    held: Option<Instant>,
    /// The epoch and the time of the armed timer; a timer of another epoch is stale.
    armed: Option<(u64, Instant)>,
}

impl Timers {
    pub fn add(&mut self, at: Instant, due: Due) {
        self.count += 1;
        self.due.insert((at, self.count), due);
    }

    /// Looks at the held items at `at`, unless that is done earlier anyway.
    pub fn add_held(&mut self, at: Instant) {
        if self.held.is_none_or(|earlier| at < earlier) {
            self.held = Some(at);
            self.add(at, Due::Held);
        }
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
            let what = entry.remove();
            if what == Due::Held {
                self.held = None;
            }
            due.push(what);
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

    #[test]
    fn many_held_items_cost_one_deadline() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for _ in 0..1_000 {
            timers.add_held(now + Duration::from_secs(9));
        }
        timers.add_held(now);
        assert_eq!(timers.due.len(), 2);
        let (epoch, _) = timers.next_to_arm().unwrap();
        assert_eq!(timers.fired(epoch, now), [Due::Held]);
        timers.add_held(now + Duration::from_secs(5));
        assert_eq!(timers.due.len(), 2);
    }
}
