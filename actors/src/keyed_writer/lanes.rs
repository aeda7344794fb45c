//! Which key has its turn, and what waits for it. Knows of no task and of no time.

use std::collections::VecDeque;
use std::hash::Hash;

use crate::hashing::HashMap;

/// How much is taken.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many keys may have a task at once; at least 1.
    pub tasks: usize,
    /// How many requests may wait for one key, with the one that is under way; at least 1.
    pub requests_of_a_key: usize,
    /// How many requests may wait in all, with those that are under way.
    pub requests: usize,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Nothing new is taken any more.
    #[error("it is shutting down")]
    Draining,
    /// As many requests wait for the key as may.
    #[error("too many requests wait for the same thing already")]
    KeyFull,
    /// As many requests wait as may.
    #[error("too many requests are waiting already")]
    Full,
}

/// A request that was not taken, to be answered by whoever has it.
#[derive(Debug)]
pub struct Rejected<R> {
    /// The request, as it came.
    pub request: R,
    /// Why.
    pub why: Rejection,
}

/// What there is of one key that is not at rest.
struct Lane<R, W> {
    /// The first request; kept apart from the others, so that a lane with one of them allocates nothing.
    first: Option<R>,
    behind: VecDeque<R>,
    /// Whether it has something to do that nobody waits for.
    has_chore: bool,
    is_urgent: bool,
    is_idle: bool,
    under_way: Option<W>,
}

impl<R, W> Lane<R, W> {
    const fn new() -> Self {
        Self {
            first: None,
            behind: VecDeque::new(),
            has_chore: false,
            is_urgent: false,
            is_idle: false,
            under_way: None,
        }
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.behind.len()
    }

    const fn is_at_rest(&self) -> bool {
        self.first.is_none() && !self.has_chore && self.under_way.is_none()
    }

    /// Whether nothing has to be kept of it: it does not stand in line either.
    const fn is_over(&self) -> bool {
        self.is_at_rest() && !self.is_urgent && !self.is_idle
    }

    /// Puts its key in line, if it has something to do and no task.
    fn line_up<K: Copy>(&mut self, key: K, lines: &mut Lines<K>) {
        if self.under_way.is_some() {
            return;
        }
        if self.first.is_some() && !std::mem::replace(&mut self.is_urgent, true) {
            lines.urgent.push_back(key);
        }
        if self.has_chore && !std::mem::replace(&mut self.is_idle, true) {
            lines.idle.push_back(key);
        }
    }

    fn take_first(&mut self) -> Option<R> {
        let request = self.first.take()?;
        self.first = self.behind.pop_front();
        Some(request)
    }
}

/// Who waits for a turn. A key stands at most once in each line.
struct Lines<K> {
    urgent: VecDeque<K>,
    idle: VecDeque<K>,
}

/// The lanes of all keys, and the lines in which they wait for their turn. A lane is kept while its key stands in line.
pub(super) struct Lanes<K, R, W> {
    bounds: Bounds,
    of: HashMap<K, Lane<R, W>>,
    lines: Lines<K>,
    tasks: usize,
    requests: usize,
}

impl<K: Copy + Eq + Hash, R, W> Lanes<K, R, W> {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds: Bounds {
                tasks: bounds.tasks.max(1),
                requests_of_a_key: bounds.requests_of_a_key.max(1),
                ..bounds
            },
            of: HashMap::default(),
            lines: Lines {
                urgent: VecDeque::new(),
                idle: VecDeque::new(),
            },
            tasks: 0,
            requests: 0,
        }
    }

    pub const fn requests(&self) -> usize {
        self.requests
    }

    pub fn is_at_rest(&self) -> bool {
        self.of.is_empty()
    }

    pub fn is_key_at_rest(&self, key: &K) -> bool {
        self.of.get(key).is_none_or(Lane::is_at_rest)
    }

    pub fn push(&mut self, key: K, request: R) -> Result<(), Rejected<R>> {
        if self.requests >= self.bounds.requests {
            let why = Rejection::Full;
            return Err(Rejected { request, why });
        }
        let lane = self.of.entry(key).or_insert_with(Lane::new);
        if lane.len() >= self.bounds.requests_of_a_key {
            let why = Rejection::KeyFull;
            return Err(Rejected { request, why });
        }
        if lane.first.is_none() {
            lane.first = Some(request);
        } else {
            lane.behind.push_back(request);
        }
        self.requests += 1;
        lane.line_up(key, &mut self.lines);
        Ok(())
    }

    pub fn ask_for_chore(&mut self, key: K) {
        let lane = self.of.entry(key).or_insert_with(Lane::new);
        lane.has_chore = true;
        lane.line_up(key, &mut self.lines);
    }

    /// The next key whose turn it is.
    pub fn next_turn(&mut self) -> Option<K> {
        while self.tasks < self.bounds.tasks {
            let (key, is_urgent) = match self.lines.urgent.pop_front() {
                Some(key) => (key, true),
                None => (self.lines.idle.pop_front()?, false),
            };
            let Some(lane) = self.of.get_mut(&key) else {
                continue;
            };
            if is_urgent {
                lane.is_urgent = false;
            } else {
                lane.is_idle = false;
            }
            // Has a task: it comes into line again afterwards.
            if lane.under_way.is_some() {
                continue;
            }
            let has_chore = !is_urgent && std::mem::take(&mut lane.has_chore);
            let has_turn = lane.first.is_some() || has_chore;
            if lane.is_over() {
                self.of.remove(&key);
            }
            if has_turn {
                return Some(key);
            }
        }
        None
    }

    pub fn first(&self, key: &K) -> Option<&R> {
        self.of.get(key)?.first.as_ref()
    }

    pub fn take_first(&mut self, key: &K) -> Option<R> {
        let lane = self.of.get_mut(key)?;
        let request = lane.take_first()?;
        self.requests -= 1;
        lane.line_up(*key, &mut self.lines);
        if lane.is_over() {
            self.of.remove(key);
        }
        Some(request)
    }

    /// A task for the key begins; not where it has one.
    pub fn begin(&mut self, key: K, what: W) -> bool {
        let lane = self.of.entry(key).or_insert_with(Lane::new);
        if lane.under_way.is_some() {
            return false;
        }
        lane.under_way = Some(what);
        self.tasks += 1;
        true
    }

    pub fn under_way(&self, key: &K) -> Option<&W> {
        self.of.get(key)?.under_way.as_ref()
    }

    pub fn ended(&mut self, key: &K) -> Option<W> {
        let lane = self.of.get_mut(key)?;
        let what = lane.under_way.take()?;
        self.tasks -= 1;
        lane.line_up(*key, &mut self.lines);
        if lane.is_over() {
            self.of.remove(key);
        }
        Some(what)
    }

    pub fn finish(&mut self, key: &K) -> Option<R> {
        let lane = self.of.get_mut(key)?;
        lane.under_way.take()?;
        self.tasks -= 1;
        let request = lane.take_first();
        self.requests -= usize::from(request.is_some());
        lane.line_up(*key, &mut self.lines);
        if lane.is_over() {
            self.of.remove(key);
        }
        request
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
