//! Pending items that are not to be offered before their time: how many there are of each need, and when the next one's
//! time comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom_protocol::Timestamp;

use super::header::Header;
use crate::domain::matching::Requirements;
use crate::hashing::HashMap;

/// Those whose time has not come, as far as somebody has looked.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    until: BTreeMap<(Timestamp, u32), Arc<Requirements>>,
    by_needs: HashMap<Arc<Requirements>, usize>,
}

impl Waiting {
    /// A pending item has come; `slot` is where it lies.
    pub fn insert(&mut self, header: &Header, slot: u32) {
        let Some(until) = header.not_before() else {
            return;
        };
        let needs = header.needs.clone();
        if self.until.insert((until, slot), needs.clone()).is_none() {
            *self.by_needs.entry(needs).or_default() += 1;
        }
    }

    /// It has gone, or is another one now.
    pub fn remove(&mut self, header: &Header, slot: u32) {
        if let Some(until) = header.not_before()
            && let Some(needs) = self.until.remove(&(until, slot))
        {
            self.forget(&needs);
        }
    }

    /// Forgets those whose time has come. Each costs once.
    pub fn release(&mut self, now: Timestamp) {
        while let Some(first) = self
            .until
            .first_entry()
            .filter(|first| first.key().0 <= now)
        {
            let needs = first.remove();
            self.forget(&needs);
        }
    }

    /// How many of this need wait.
    pub fn of(&self, needs: &Arc<Requirements>) -> usize {
        self.by_needs.get(needs).copied().unwrap_or_default()
    }

    /// Of those that are `pending` the ones that may be offered now, by what they need; and when the next one may be that
    /// may not yet.
    pub fn ready(
        &mut self,
        pending: &HashMap<Arc<Requirements>, usize>,
        now: Timestamp,
    ) -> (Vec<(Arc<Requirements>, usize)>, Option<Timestamp>) {
        self.release(now);
        let ready = pending
            .iter()
            .map(|(needs, count)| (needs.clone(), count - self.of(needs)))
            .filter(|(_, ready)| *ready > 0);
        (ready.collect(), self.next())
    }

    /// When the next one's time comes.
    pub fn next(&self) -> Option<Timestamp> {
        self.until.first_key_value().map(|((until, _), _)| *until)
    }

    fn forget(&mut self, needs: &Arc<Requirements>) {
        if let Some(count) = self.by_needs.get_mut(needs) {
            *count -= 1;
            if *count == 0 {
                self.by_needs.remove(needs);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::WorkId;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn header(slot: u32, need: u8, until: i64) -> Header {
        let needs = Requirements {
            capability: need.to_string().into(),
            boundary: "default".into(),
            required_agent_type: None,
            preferred_agent_type: None,
        };
        let id = WorkId::new(Uuid::from_u128(slot.into()));
        Header::for_test(id, slot.into(), 5, needs, Timestamp::from_millis(until))
    }

    proptest! {
        #[test]
        fn those_wait_whose_time_has_not_come(
            items in prop::collection::vec((0..3u8, 0..20_i64, any::<bool>()), 0..30),
            now in 0..20_i64,
        ) {
            let mut waiting = Waiting::default();
            let headers: Vec<Header> = (0..).zip(&items)
                .map(|(slot, (need, until, _))| header(slot, *need, *until)).collect();
            for (slot, header) in (0..).zip(&headers) {
                waiting.insert(header, slot);
                waiting.insert(header, slot);
            }
            waiting.release(Timestamp::from_millis(now));
            for (slot, (header, (.., gone))) in (0..).zip(headers.iter().zip(&items)) {
                if *gone {
                    waiting.remove(header, slot);
                    waiting.remove(header, slot);
                }
            }
            let left = |item: &&(u8, i64, bool)| !item.2 && item.1 > now;
            for need in 0..3u8 {
                let expected = items.iter().filter(left).filter(|item| item.0 == need).count();
                let needs = header(0, need, 0).needs;
                prop_assert_eq!(waiting.of(&needs), expected);
            }
            let next = items.iter().filter(left).map(|item| Timestamp::from_millis(item.1)).min();
            prop_assert_eq!(waiting.next(), next);
        }
    }
}
