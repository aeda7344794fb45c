//! The pending items in the order in which they are served. Pure: no clock, no network.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom_protocol::work::PRIORITY;
use loom_protocol::{Timestamp, WorkId};

use crate::deadline_queue::DeadlineQueue;
use crate::domain::matching::{FilterRef, Requirements, is_of_type};
use crate::hashing::HashMap;
use crate::work_ledger::Header;

/// A place in the order: priority first, then creation. Lower is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    fn of(header: &Header) -> Self {
        const CREATED_BITS: u32 = 56;
        let (_, _, highest) = PRIORITY;
        let behind = u64::from(highest.saturating_sub(header.priority));
        Self(behind << CREATED_BITS | header.created & ((1 << CREATED_BITS) - 1))
    }
}

/// An item that is served next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The item.
    pub id: WorkId,
    needs: Arc<Requirements>,
    place: Place,
}

type ByBoundary = HashMap<Arc<str>, Vec<Arc<Requirements>>>;

/// The pending items of a project.
#[derive(Debug, Default)]
pub struct PendingQueue {
    ready: HashMap<Arc<Requirements>, BTreeMap<Place, WorkId>>,
    /// The needs that somebody has, by capability and boundary.
    known_needs: HashMap<Arc<str>, ByBoundary>,
    /// Those that are not to be offered before their time.
    delayed: HashMap<WorkId, Header>,
    delayed_until: DeadlineQueue<WorkId, Timestamp>,
}

impl PendingQueue {
    /// Puts a pending item where it belongs. True if it can be served now.
    pub fn push(&mut self, header: &Header, now: Timestamp) -> bool {
        self.remove(header);
        match header.not_before() {
            Some(time) if time > now => {
                self.delayed.insert(header.id, header.clone());
                self.delayed_until.set(header.id, time);
                false
            }
            _ => {
                self.make_ready(header);
                true
            }
        }
    }

    /// Whether the item can be served now.
    pub fn is_ready(&self, header: &Header) -> bool {
        let items = self.ready.get(&header.needs);
        items.is_some_and(|items| items.contains_key(&Place::of(header)))
    }

    fn make_ready(&mut self, header: &Header) {
        let needs = &header.needs;
        let items = self.ready.entry(needs.clone()).or_default();
        if items.is_empty() {
            self.known_needs
                .entry(needs.capability.clone())
                .or_default()
                .entry(needs.boundary.clone())
                .or_default()
                .push(needs.clone());
        }
        items.insert(Place::of(header), header.id);
    }

    /// Takes an item out, wherever it is. Whether it was there.
    pub fn remove(&mut self, header: &Header) -> bool {
        let was_delayed = self.delayed_until.remove(&header.id).is_some();
        if was_delayed {
            self.delayed.remove(&header.id);
        }
        self.take_out(&header.needs, Place::of(header)) || was_delayed
    }

    /// Takes an item out that [`PendingQueue::best`] gave.
    pub fn take(&mut self, pick: &Pick) {
        self.take_out(&pick.needs, pick.place);
    }

    fn take_out(&mut self, needs: &Arc<Requirements>, place: Place) -> bool {
        let Some(items) = self.ready.get_mut(needs) else {
            return false;
        };
        let was_there = items.remove(&place).is_some();
        if !items.is_empty() {
            return was_there;
        }
        self.ready.remove(needs);
        if let Some(by_boundary) = self.known_needs.get_mut(&needs.capability) {
            if let Some(known) = by_boundary.get_mut(&needs.boundary) {
                known.retain(|other| other != needs);
                if known.is_empty() {
                    by_boundary.remove(&needs.boundary);
                }
            }
            if by_boundary.is_empty() {
                self.known_needs.remove(&needs.capability);
            }
        }
        was_there
    }

    /// The item that is served next to somebody of whom this is true; `skip` names exceptions.
    ///
    /// Costs what the asker's capabilities and boundaries cost, not what the queue holds.
    pub fn best(&self, filter: &FilterRef<'_>, skip: impl Fn(WorkId) -> bool) -> Option<Pick> {
        let mut best: Option<(Place, WorkId, &Arc<Requirements>)> = None;
        for capability in filter.capabilities {
            let Some(by_boundary) = self.known_needs.get(capability.as_str()) else {
                continue;
            };
            let fitting = filter
                .boundaries
                .iter()
                .filter_map(|boundary| by_boundary.get(boundary.as_str()))
                .flatten()
                .filter(|needs| is_of_type(filter.agent_type, needs));
            for needs in fitting {
                let first = self
                    .ready
                    .get(needs)
                    .and_then(|items| items.iter().find(|(_, id)| !skip(**id)));
                if let Some((place, id)) = first
                    && best.is_none_or(|(least, ..)| *place < least)
                {
                    best = Some((*place, *id, needs));
                }
            }
        }
        best.map(|(place, id, needs)| Pick {
            id,
            needs: needs.clone(),
            place,
        })
    }

    /// Makes the items ready whose time has come, and gives them, if the timer that has fired is the armed one.
    pub fn release_due(&mut self, epoch: u64, now: Timestamp) -> Vec<Header> {
        let mut due = Vec::new();
        if self.delayed_until.fired(epoch).is_none() {
            return due;
        }
        while let Some(id) = self.delayed_until.pop_due(now) {
            if let Some(header) = self.delayed.remove(&id) {
                self.make_ready(&header);
                due.push(header);
            }
        }
        due
    }

    /// The epoch and the time of a timer for delayed items that has to be armed.
    pub fn next_to_arm(&mut self) -> Option<(u64, Timestamp)> {
        self.delayed_until.next_to_arm()
    }

    /// How many items with the same needs are served before this one, counted up to `most`.
    pub fn ahead_of(&self, header: &Header, most: usize) -> usize {
        self.ready.get(&header.needs).map_or(0, |items| {
            items.range(..Place::of(header)).take(most).count()
        })
    }

    /// How many items there are, ready or delayed.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.delayed.len() + self.ready.values().map(BTreeMap::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::matching::fits;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[derive(Debug, Clone)]
    struct Item {
        priority: u8,
        capability: usize,
        boundary: usize,
        required: Option<usize>,
        not_before: i64,
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn header(created: u64, item: &Item) -> Header {
        Header::for_test(
            WorkId::new(Uuid::from_u128(u128::from(created))),
            created,
            item.priority,
            Requirements {
                capability: NAMES[item.capability].into(),
                boundary: NAMES[item.boundary].into(),
                required_agent_type: item.required.map(|n| NAMES[n].into()),
                preferred_agent_type: None,
            },
            Timestamp::from_millis(item.not_before),
        )
    }

    fn any_item() -> impl Strategy<Value = Item> {
        (
            1..=10u8,
            0..3usize,
            0..3usize,
            prop::option::of(0..3usize),
            0..4i64,
        )
            .prop_map(
                |(priority, capability, boundary, required, not_before)| Item {
                    priority,
                    capability,
                    boundary,
                    required,
                    not_before,
                },
            )
    }

    proptest! {
        #[test]
        fn the_index_gives_the_highest_priority_then_the_oldest_of_what_fits(
            items in prop::collection::vec(any_item(), 0..40),
            capabilities in prop::sample::subsequence(NAMES.to_vec(), 0..=3),
            boundaries in prop::sample::subsequence(NAMES.to_vec(), 0..=3),
            agent_type in prop::sample::select(NAMES.to_vec()),
            removed in prop::collection::vec(any::<bool>(), 40),
        ) {
            let now = Timestamp::from_millis(2);
            let mut queue = PendingQueue::default();
            let headers: Vec<_> = items.iter().enumerate()
                .map(|(at, item)| header(at as u64 + 1, item)).collect();
            for header in &headers {
                queue.push(header, now);
                queue.push(header, now);
            }
            let own = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (capabilities, boundaries) = (own(&capabilities), own(&boundaries));
            let filter = FilterRef { agent_type, capabilities: &capabilities, boundaries: &boundaries };
            let mut expected: Vec<_> = headers.iter().zip(&items).zip(&removed)
                .filter(|((header, _), removed)| {
                    if **removed { queue.remove(header); }
                    !**removed
                })
                .filter(|((header, item), _)| item.not_before <= 2 && fits(&filter, &header.needs).is_ok())
                .map(|((header, item), _)| (10 - item.priority, header.created, header.id))
                .collect();
            expected.sort_unstable();
            let mut served = Vec::new();
            while let Some(pick) = queue.best(&filter, |_| false) {
                queue.take(&pick);
                served.push(pick.id);
            }
            prop_assert_eq!(served, expected.into_iter().map(|(_, _, id)| id).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_taken_out_leaves_nothing_behind(items in prop::collection::vec(any_item(), 0..40)) {
            let mut queue = PendingQueue::default();
            let headers: Vec<_> = items.iter().enumerate()
                .map(|(at, item)| header(at as u64 + 1, item)).collect();
            for header in &headers {
                queue.push(header, Timestamp::from_millis(2));
            }
            prop_assert_eq!(queue.len(), headers.len());
            let delayed = items.iter().filter(|item| item.not_before == 3).count();
            let armed = queue.next_to_arm();
            prop_assert_eq!(armed.map(|(_, at)| at), (delayed > 0).then_some(Timestamp::from_millis(3)));
            let epoch = armed.map_or(1, |(epoch, _)| epoch);
            prop_assert!(queue.release_due(epoch + 1, Timestamp::from_millis(3)).is_empty());
            let due = queue.release_due(epoch, Timestamp::from_millis(3));
            prop_assert_eq!(due.len(), delayed);
            for header in &headers {
                queue.remove(header);
            }
            prop_assert_eq!(queue.len(), 0);
            prop_assert!(queue.known_needs.is_empty() && queue.delayed_until.is_empty());
        }
    }
}
