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
    /// Leases may be out of time.
    Leases,
    /// Deadlines of items have passed.
    Deadlines,
    /// The agent may be offered what it gave back, or a slot that was kept for a stopping item.
    AgentMayTakeMore(AgentGuid, WorkId),
}

/// Deadlines in order.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(Instant, u64), Due>,
    count: u64,
    /// The earliest looks at many things at once that are to come.
    looks: Vec<(Due, Instant)>,
    /// The epoch and the time of the armed timer; a timer of another epoch is stale.
    armed: Option<(u64, Instant)>,
}

impl Timers {
    pub fn add(&mut self, at: Instant, due: Due) {
        self.count += 1;
        self.due.insert((at, self.count), due);
    }

    /// Has a look at many things (all held items, all leases) at `at`, unless that is done
    /// earlier anyway.
    pub fn add_look(&mut self, at: Instant, look: Due) {
        let earliest = self.looks.iter_mut().find(|(what, _)| *what == look);
        match earliest {
            Some((_, earlier)) if *earlier <= at => return,
            Some((_, later)) => *later = at,
            None => self.looks.push((look, at)),
        }
        self.add(at, look);
    }

    /// What is due now, and the time for which it was armed, if the timer that fired is the armed one.
    pub fn fired(&mut self, epoch: u64, now: Instant) -> Option<(Instant, Vec<Due>)> {
        let (_, armed_for) = self.armed.take_if(|(armed, _)| *armed == epoch)?;
        let mut due = Vec::new();
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let what = entry.remove();
            self.looks.retain(|(look, at)| *look != what || *at > now);
            due.push(what);
        }
        Some((armed_for, due))
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
        assert_eq!(timers.fired(late, at(20)), None);
        assert_eq!(
            timers.fired(early, at(10)),
            Some((at(10), vec![Due::ClaimOver(1)]))
        );
        let (last, _) = timers.next_to_arm().unwrap();
        assert_eq!(timers.fired(last, at(20)), Some((at(20), vec![Due::Held])));
        assert_eq!(timers.next_to_arm(), None);
    }

    #[test]
    fn many_held_items_cost_one_deadline() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for _ in 0..1_000 {
            timers.add_look(now + Duration::from_secs(9), Due::Held);
        }
        timers.add_look(now, Due::Held);
        assert_eq!(timers.due.len(), 2);
        let (epoch, _) = timers.next_to_arm().unwrap();
        assert_eq!(timers.fired(epoch, now), Some((now, vec![Due::Held])));
        timers.add_look(now + Duration::from_secs(9), Due::Held);
        timers.add_look(now + Duration::from_secs(5), Due::Leases);
        assert_eq!(timers.due.len(), 3);
    }
}
