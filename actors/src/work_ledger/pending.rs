//! Pending items by what they need: how many there are, how many of them may be offered now and which of those is the
//! first; and when the next one's time comes that is not to be offered before.
//!
//! The first is the one that may be offered for the longest, since it came, came back or its time came last. Where the bucket
//! has been read since then, those that were pending by then stand in the order of their last writes.
//!
//! A change of an item costs the same however many others there are, a question O(log n) of the different needs. Per item
//! it takes 8 bytes, its neighbours in the list of its need; one that is not to be offered yet takes about 45 more.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom_protocol::Timestamp;

use super::header::Header;
use crate::domain::matching::Requirements;
use crate::domain::targets::{Need, Places};

/// No neighbour.
const NONE: u32 = u32::MAX;

/// The neighbours of an item that may be offered, among those with the same needs.
#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

/// The items that need the same.
#[derive(Debug)]
struct Alike {
    /// How many may be offered now, as far as somebody has looked.
    ready: usize,
    /// The one of them that came to be so first.
    first: u32,
    last: u32,
    /// How many may not be yet.
    later: usize,
}

impl Default for Alike {
    fn default() -> Self {
        Self {
            ready: 0,
            first: NONE,
            last: NONE,
            later: 0,
        }
    }
}

/// The pending items of a project. An item is known by the slot in which its header lies.
#[derive(Debug, Default)]
pub struct PendingNeeds {
    /// In this order those that differ in the preferred type only stand side by side.
    alike: BTreeMap<Arc<Requirements>, Alike>,
    links: Vec<Links>,
    until: BTreeMap<(Timestamp, u32), Arc<Requirements>>,
}

impl PendingNeeds {
    /// A pending item has come that is not known; `slot` is where it lies.
    pub fn insert(&mut self, header: &Header, slot: u32) {
        let needs = &header.needs;
        let alike = match self.alike.get_mut(needs) {
            Some(alike) => alike,
            None => self.alike.entry(needs.clone()).or_default(),
        };
        if let Some(until) = header.not_before() {
            alike.later += 1;
            self.until.insert((until, slot), needs.clone());
        } else {
            append(alike, &mut self.links, slot);
        }
    }

    /// It has gone, or is another one now. `header` is as it came.
    pub fn remove(&mut self, header: &Header, slot: u32) {
        let needs = &header.needs;
        let waits = header
            .not_before()
            .and_then(|until| self.until.remove(&(until, slot)))
            .is_some();
        let Some(alike) = self.alike.get_mut(needs) else {
            return;
        };
        if waits {
            alike.later -= 1;
        } else {
            take_out(alike, &mut self.links, slot);
        }
        if alike.ready + alike.later == 0 {
            self.alike.remove(needs);
        }
    }

    /// Those may be offered whose time has come. Each costs once. What they need.
    pub fn release(&mut self, now: Timestamp) -> Vec<Arc<Requirements>> {
        let mut released: Vec<Arc<Requirements>> = Vec::new();
        while let Some(first) = self
            .until
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            let ((_, slot), needs) = first.remove_entry();
            if let Some(alike) = self.alike.get_mut(&needs) {
                alike.later -= 1;
                append(alike, &mut self.links, slot);
            }
            if released.last() != Some(&needs) {
                released.push(needs);
            }
        }
        released
    }

    /// When the next one's time comes.
    pub fn next(&self) -> Option<Timestamp> {
        self.until.first_key_value().map(|((until, _), _)| *until)
    }

    /// What is needed, and how many items need it, whether they may be offered or not.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<Requirements>, usize)> {
        let all = self.alike.iter();
        all.map(|(needs, alike)| (needs, alike.ready + alike.later))
    }

    /// What is needed by items that may be offered, and how many of those do.
    pub fn ready(&self) -> impl Iterator<Item = (&Arc<Requirements>, usize)> {
        let all = self.alike.iter();
        all.map(|(needs, alike)| (needs, alike.ready))
            .filter(|(_, ready)| *ready > 0)
    }

    /// Of those the ones at these places. Costs what it names.
    pub fn ready_in(&self, places: &Places) -> Vec<(Arc<Requirements>, usize)> {
        let owned = |(needs, count): (&Arc<Requirements>, usize)| (needs.clone(), count);
        let Some(named) = places.named() else {
            return self.ready().map(owned).collect();
        };
        let of_place = |(capability, boundary): (&Arc<str>, Option<&Arc<str>>)| {
            let (capability, boundary) = (capability.clone(), boundary.cloned());
            let first = Requirements {
                capability: capability.clone(),
                boundary: boundary.clone().unwrap_or_else(|| "".into()),
                required_agent_type: None,
                preferred_agent_type: None,
            };
            let from = self.alike.range::<Requirements, _>(&first..);
            from.take_while(move |(needs, _)| {
                let is_in = |boundary| needs.boundary == boundary;
                needs.capability == capability && boundary.clone().is_none_or(is_in)
            })
        };
        let found = named.flat_map(of_place);
        let found = found.map(|(needs, alike)| (needs, alike.ready));
        found.filter(|(_, ready)| *ready > 0).map(owned).collect()
    }

    /// Where the first items of one need lie: one for each type that is preferred.
    pub fn oldest_of(&self, need: &Need) -> impl Iterator<Item = u32> + use<'_> {
        let firsts = self.of(need).map(|(_, alike)| alike.first);
        firsts.filter(|first| *first != NONE)
    }

    /// Those of one need.
    fn of(&self, need: &Need) -> impl Iterator<Item = (&Arc<Requirements>, &Alike)> + use<'_> {
        let first = Requirements {
            capability: need.capability.clone(),
            boundary: need.boundary.clone(),
            required_agent_type: need.required_agent_type.clone(),
            preferred_agent_type: None,
        };
        let from = self.alike.range::<Requirements, _>(&first..);
        from.take_while(move |(needs, _)| {
            needs.capability == first.capability
                && needs.boundary == first.boundary
                && needs.required_agent_type == first.required_agent_type
        })
    }
}

/// Puts an item at the end of a list.
fn append(alike: &mut Alike, links: &mut Vec<Links>, slot: u32) {
    let none = Links {
        before: NONE,
        after: NONE,
    };
    if links.len() <= slot as usize {
        links.resize(slot as usize + 1, none);
    }
    links[slot as usize] = Links {
        before: alike.last,
        ..none
    };
    match links.get_mut(alike.last as usize) {
        Some(last) => last.after = slot,
        None => alike.first = slot,
    }
    alike.last = slot;
    alike.ready += 1;
}

/// Takes an item out of the list that it is in.
fn take_out(alike: &mut Alike, links: &mut [Links], slot: u32) {
    let Links { before, after } = links[slot as usize];
    match links.get_mut(before as usize) {
        Some(links) => links.after = after,
        None => alike.first = after,
    }
    match links.get_mut(after as usize) {
        Some(links) => links.before = before,
        None => alike.last = before,
    }
    alike.ready -= 1;
}

#[cfg(test)]
mod tests;
