//! A deadline for each key, in order, and one armed timer for all of them.
//!
//! The queue keeps no time and sends no message: its owner arms the timer that [`DeadlineQueue::next_to_arm`] asks
//! for, brings the epoch back when that fires, and takes out what is due. A timer of an earlier epoch is stale and is
//! ignored, so none has to be cancelled.
//!
//! `T` is the clock that the deadlines are measured on: the monotonic one, or the time of day.

use std::collections::BTreeSet;
use std::hash::Hash;

use tokio::time::Instant;

use crate::hashing::HashMap;

/// The deadlines of many keys; each key has one at the most.
#[derive(Debug)]
pub struct DeadlineQueue<K, T = Instant> {
    in_order: BTreeSet<(T, K)>,
    of: HashMap<K, T>,
    epoch: u64,
    /// The epoch and the time of the armed timer.
    armed: Option<(u64, T)>,
}

impl<K, T> Default for DeadlineQueue<K, T> {
    fn default() -> Self {
        Self {
            in_order: BTreeSet::new(),
            of: HashMap::default(),
            epoch: 0,
            armed: None,
        }
    }
}

impl<K: Copy + Ord + Hash, T: Copy + Ord> DeadlineQueue<K, T> {
    /// The key is due at `at`, instead of whenever it was due before.
    pub fn set(&mut self, key: K, at: T) {
        match self.of.insert(key, at) {
            Some(before) if before == at => return,
            Some(before) => drop(self.in_order.remove(&(before, key))),
            None => {}
        }
        self.in_order.insert((at, key));
    }

    /// The key has no deadline any more. Gives the one that it had.
    pub fn remove(&mut self, key: &K) -> Option<T> {
        let at = self.of.remove(key)?;
        self.in_order.remove(&(at, *key));
        Some(at)
    }

    /// When the key is due.
    pub fn get(&self, key: &K) -> Option<T> {
        self.of.get(key).copied()
    }

    /// The earliest deadline.
    pub fn earliest(&self) -> Option<T> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// What is due at `now`, the longest overdue first; it stays in the queue.
    pub fn due(&self, now: T) -> impl Iterator<Item = K> + '_ {
        let due = self.in_order.iter().take_while(move |(at, _)| *at <= now);
        due.map(|(_, key)| *key)
    }

    /// Takes out the key that has been due for the longest, if one is due at `now`.
    pub fn pop_due(&mut self, now: T) -> Option<K> {
        let first = *self.in_order.first().filter(|(at, _)| *at <= now)?;
        self.in_order.remove(&first);
        self.of.remove(&first.1);
        Some(first.1)
    }

    /// A timer has fired. Gives the time for which it was armed if it is the armed one, which is armed no more; `None`:
    /// it is stale.
    pub fn fired(&mut self, epoch: u64) -> Option<T> {
        let armed = self.armed.take_if(|(armed, _)| *armed == epoch)?;
        Some(armed.1)
    }

    /// The epoch and the time of a timer that has to be armed, if none is or the armed one is too late.
    pub fn next_to_arm(&mut self) -> Option<(u64, T)> {
        self.arm_at(self.earliest()?)
    }

    /// The same where the timer may fire no later than `latest`, whatever is due then: the time of day may be set, and
    /// a laptop may sleep.
    pub fn next_to_arm_by(&mut self, latest: T) -> Option<(u64, T)> {
        let next = self.earliest()?;
        if self.is_armed_by(next) {
            return None;
        }
        self.arm_at(next.min(latest))
    }

    fn arm_at(&mut self, at: T) -> Option<(u64, T)> {
        if self.is_armed_by(at) {
            return None;
        }
        self.epoch += 1;
        self.armed = Some((self.epoch, at));
        self.armed
    }

    fn is_armed_by(&self, at: T) -> bool {
        self.armed.is_some_and(|(_, armed)| armed <= at)
    }

    /// How many keys have a deadline.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether no key has a deadline.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, u64),
        Remove(u8),
        /// So much time passes; timers fire that are over by then.
        Wait(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let key = || 0..8_u8;
        prop_oneof![
            4 => (key(), 0..50_u64).prop_map(|(key, wait)| Step::Set(key, wait)),
            1 => key().prop_map(Step::Remove),
            2 => (0..20_u64).prop_map(Step::Wait),
        ]
    }

    /// A queue with the timers that were armed, stale ones too, and what is expected of it.
    #[derive(Default)]
    struct Rig {
        queue: DeadlineQueue<u8, u64>,
        timers: BTreeSet<(u64, u64)>,
        model: HashMap<u8, u64>,
        now: u64,
    }

    impl Rig {
        fn arm(&mut self, latest: Option<u64>) {
            let armed = match latest {
                Some(latest) => self.queue.next_to_arm_by(self.now + latest),
                None => self.queue.next_to_arm(),
            };
            self.timers.extend(armed.map(|(epoch, at)| (at, epoch)));
        }

        fn apply(&mut self, step: &Step, latest: Option<u64>) {
            match *step {
                Step::Set(key, wait) => {
                    self.queue.set(key, self.now + wait);
                    self.model.insert(key, self.now + wait);
                }
                Step::Remove(key) => assert_eq!(self.queue.remove(&key), self.model.remove(&key)),
                Step::Wait(time) => self.wait(self.now + time, latest),
            }
            self.arm(latest);
        }

        fn wait(&mut self, until: u64, latest: Option<u64>) {
            while let Some((at, epoch)) = self.timers.first().copied()
                && at <= until
            {
                self.timers.pop_first();
                self.now = self.now.max(at);
                if self.queue.fired(epoch).is_some() {
                    self.ring();
                }
                self.arm(latest);
            }
            self.now = until;
        }

        /// Everything that is due comes out, in order, and nothing before its time.
        fn ring(&mut self) {
            let mut expected: Vec<(u64, u8)> =
                self.model.iter().map(|(key, at)| (*at, *key)).collect();
            expected.retain(|(at, _)| *at <= self.now);
            expected.sort_unstable();
            let shown: Vec<u8> = self.queue.due(self.now).collect();
            let mut popped = Vec::new();
            while let Some(key) = self.queue.pop_due(self.now) {
                popped.extend(self.model.remove(&key).map(|at| (at, key)));
            }
            assert_eq!(popped, expected);
            assert_eq!(
                shown,
                popped.iter().map(|(_, key)| *key).collect::<Vec<_>>()
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_rings_early_or_is_forgotten_and_each_key_has_one_deadline(
            steps in prop::collection::vec(any_step(), 0..200),
            latest in prop::option::of(1..10_u64),
        ) {
            let mut rig = Rig::default();
            for step in &steps {
                rig.apply(step, latest);
                prop_assert_eq!(&rig.queue.of, &rig.model);
                prop_assert_eq!(rig.queue.in_order.len(), rig.model.len());
                prop_assert_eq!(rig.queue.earliest(), rig.model.values().min().copied());
                // A timer is armed for the earliest deadline or sooner, and it is not stale.
                let armed = rig.queue.armed;
                prop_assert!(armed.is_none_or(|(epoch, at)| rig.timers.contains(&(at, epoch))));
                let is_early = rig.queue.earliest().is_none_or(|next| armed.is_some_and(|(_, at)| at <= next));
                prop_assert!(is_early);
            }
            rig.wait(rig.now + 100, latest);
            prop_assert!(rig.queue.is_empty() && rig.model.is_empty());
        }
    }

    #[test]
    fn the_earliest_deadline_is_armed_and_stale_timers_are_ignored() {
        let mut queue = DeadlineQueue::default();
        queue.set('a', 30);
        let (late, at) = queue.next_to_arm().unwrap();
        assert_eq!((at, queue.next_to_arm()), (30, None));
        queue.set('b', 20);
        let (early, at) = queue.next_to_arm().unwrap();
        assert_eq!(at, 20);
        assert_eq!(queue.fired(late), None);
        assert_eq!(queue.fired(early), Some(20));
        // Its deadline was moved meanwhile: the timer rings in vain, and the next is armed.
        queue.set('b', 50);
        assert_eq!(queue.pop_due(20), None);
        assert_eq!(queue.next_to_arm().map(|(_, at)| at), Some(30));
    }

    #[test]
    fn a_key_that_is_set_a_million_times_takes_the_room_of_one() {
        let mut queue = DeadlineQueue::default();
        for n in 0..1_000_000_u64 {
            queue.set(n % 10, n);
        }
        assert_eq!((queue.len(), queue.in_order.len()), (10, 10));
    }
}
