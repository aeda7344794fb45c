//! Requests that wait in a handle until its actor is up, in the order in which they came.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How many requests wait for one actor; more are refused at once.
const MAX_HELD: usize = 16 * 1024;

/// What waits. A request whose caller has gone waits no more.
pub(super) struct Held<M>(Mutex<Line<M>>);

struct Line<M> {
    waiting: BTreeMap<u64, M>,
    last: u64,
}

/// The place of one request in the line; given up when it is dropped.
pub(super) struct Place<'a, M> {
    held: &'a Held<M>,
    number: u64,
}

impl<M> Held<M> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Line {
            waiting: BTreeMap::new(),
            last: 0,
        }))
    }

    /// Puts a request at the end of the line. `None`: that is as long as it may be.
    pub(super) fn hold(&self, message: M) -> Option<Place<'_, M>> {
        let mut line = self.0.lock();
        if line.waiting.len() >= MAX_HELD {
            return None;
        }
        line.last += 1;
        let number = line.last;
        line.waiting.insert(number, message);
        Some(Place { held: self, number })
    }

    /// What waited, in the order in which it came; nothing waits any more.
    pub(super) fn release(&self) -> impl Iterator<Item = M> + use<M> {
        std::mem::take(&mut self.0.lock().waiting).into_values()
    }
}

impl<M> Place<'_, M> {
    /// Gives the place up. Whether it was still in the line: what has left it was sent.
    pub(super) fn give_up(self) -> bool {
        let message = self.held.0.lock().waiting.remove(&self.number);
        message.is_some()
    }
}

impl<M> Drop for Place<'_, M> {
    fn drop(&mut self) {
        let message = self.held.0.lock().waiting.remove(&self.number);
        // With the lock given back: whoever waits for its port is woken.
        drop(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_released_in_order_without_what_was_given_up() {
        let held = Held::new();
        let mut places: Vec<_> = (0..10).map(|n| held.hold(n)).collect();
        places.remove(3);
        places.remove(0);
        assert_eq!(held.release().collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7, 8, 9]);
        let later = held.hold(10);
        drop(places);
        assert_eq!(held.release().collect::<Vec<_>>(), [10]);
        assert!(!later.unwrap().give_up(), "it was sent");
        assert!(held.hold(11).unwrap().give_up());
    }

    #[test]
    fn the_line_has_an_end() {
        let held = Held::new();
        let mut places: Vec<_> = (0..MAX_HELD).map(|n| held.hold(n)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(held.hold(0).is_none());
        places.pop();
        assert!(held.hold(0).is_some());
    }
}
