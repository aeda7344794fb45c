//! What is known of every letter without reading it: about 300 bytes each, in the order of the stream.

use loom_protocol::work::Reason;
use loom_protocol::{Timestamp, WorkId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::deadline_queue::DeadlineQueue;
use crate::domain::letter::{AutoRetry, DeadLetterHeader};
use crate::domain::listing::Start;
use crate::settings::DlqSettings;

/// How many letters one page may look at.
const SCAN_BUDGET: usize = 20_000;

/// A letter without its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterInfo {
    /// The item.
    pub id: WorkId,
    /// Its place in the stream: its order, and what it is deleted by.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The rest.
    pub head: DeadLetterHeader,
}

/// Which letters a listing, or a retry, wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this capability.
    pub capability: Option<String>,
    /// Of this reason.
    pub reason: Option<Reason>,
    /// Failed then or later.
    pub since: Option<Timestamp>,
}

/// One page of letters.
#[derive(Debug, Clone, Default)]
pub struct LetterPage {
    /// In the order of the stream.
    pub letters: Vec<LetterInfo>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
    /// Where the page before begins, if there is one.
    pub previous: Option<u64>,
    /// How many match; with both filters, the fewer of the two.
    pub total: usize,
}

/// The index. Written by the DlqRetrier only.
#[derive(Debug, Default)]
pub(super) struct LetterIndex {
    /// What is put back by itself; `None`: nothing.
    schedule: Option<AutoRetry>,
    letters: BTreeMap<u64, LetterInfo>,
    ids: BTreeMap<WorkId, u64>,
    by_capability: HashMap<Box<str>, BTreeSet<u64>>,
    by_reason: HashMap<Reason, BTreeSet<u64>>,
    /// When the schedule puts which letter back.
    due: DeadlineQueue<u64, Timestamp>,
}

impl LetterIndex {
    pub fn new(settings: &DlqSettings) -> Self {
        Self {
            schedule: settings.schedule(),
            ..Self::default()
        }
    }

    /// Takes a letter over, instead of an earlier one of the same item.
    pub fn insert(&mut self, letter: LetterInfo) {
        match self.ids.get(&letter.id) {
            Some(known) if *known >= letter.sequence => return,
            Some(known) => drop(self.remove(*known)),
            None => {}
        }
        let (sequence, head) = (letter.sequence, &letter.head);
        self.ids.insert(letter.id, sequence);
        let of_capability = self.by_capability.entry(head.capability.clone());
        of_capability.or_default().insert(sequence);
        self.by_reason
            .entry(head.reason)
            .or_default()
            .insert(sequence);
        if let Some(at) = self.scheduled_at(head) {
            self.due.set(sequence, at);
        }
        self.letters.insert(sequence, letter);
    }

    /// Forgets the letter at a place.
    pub fn remove(&mut self, sequence: u64) -> Option<LetterInfo> {
        let letter = self.letters.remove(&sequence)?;
        let head = &letter.head;
        self.ids.remove(&letter.id);
        if let Some(of_capability) = self.by_capability.get_mut(&head.capability) {
            of_capability.remove(&sequence);
            if of_capability.is_empty() {
                self.by_capability.remove(&head.capability);
            }
        }
        if let Some(of_reason) = self.by_reason.get_mut(&head.reason) {
            of_reason.remove(&sequence);
        }
        self.not_by_schedule(&letter);
        Some(letter)
    }

    fn scheduled_at(&self, head: &DeadLetterHeader) -> Option<Timestamp> {
        self.schedule.as_ref()?.at(head)
    }

    /// Whether the schedule will put this item's letter back.
    pub fn is_scheduled(&self, id: WorkId) -> bool {
        let place = self.ids.get(&id);
        place.is_some_and(|place| self.due.get(place).is_some())
    }

    /// How many letters the schedule will put back.
    pub fn scheduled(&self) -> usize {
        self.due.len()
    }

    /// When the oldest letter was stored.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.letters.values().next().map(|letter| letter.stored_at)
    }

    /// The schedule leaves this letter alone from now on.
    pub fn not_by_schedule(&mut self, letter: &LetterInfo) {
        self.due.remove(&letter.sequence);
    }

    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// The place of the last letter; 0: there is none.
    pub fn last(&self) -> u64 {
        self.letters.last_key_value().map_or(0, |(place, _)| *place)
    }

    /// Whether there is a letter at a place.
    pub fn has(&self, sequence: u64) -> bool {
        self.letters.contains_key(&sequence)
    }

    pub fn get(&self, id: WorkId) -> Option<&LetterInfo> {
        self.letters.get(self.ids.get(&id)?)
    }

    pub fn all(&self) -> impl Iterator<Item = &LetterInfo> {
        self.letters.values()
    }

    /// The first `limit` ids from `first` to `last`.
    pub fn ids_between(&self, first: WorkId, last: WorkId, limit: usize) -> Vec<WorkId> {
        let ids = self.ids.range(first..=last);
        ids.map(|(id, _)| *id).take(limit).collect()
    }

    /// The letters that the schedule is to put back now, the longest due first.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<LetterInfo> {
        let due = self.due.due(now);
        due.filter_map(|sequence| self.letters.get(&sequence))
            .take(limit)
            .cloned()
            .collect()
    }

    /// Forgets the letters that were stored before a time; gives how many.
    pub fn forget_before(&mut self, time: Timestamp) -> usize {
        let old: Vec<u64> = self
            .letters
            .values()
            .take_while(|letter| letter.stored_at < time)
            .map(|letter| letter.sequence)
            .collect();
        for sequence in &old {
            self.remove(*sequence);
        }
        old.len()
    }

    /// The page from `start` on (a place in the stream), in its direction.
    pub fn page(&self, filter: &LetterFilter, start: Start, limit: usize) -> LetterPage {
        let none = BTreeSet::new();
        let of_capability = filter
            .capability
            .as_deref()
            .map(|name| self.by_capability.get(name).unwrap_or(&none));
        let of_reason = filter
            .reason
            .map(|reason| self.by_reason.get(&reason).unwrap_or(&none));
        let fewest = match (of_capability, of_reason) {
            (Some(one), Some(other)) if other.len() < one.len() => Some(other),
            (one, other) => one.or(other),
        };
        let matches = |sequence: &u64| {
            of_capability.is_none_or(|set| set.contains(sequence))
                && of_reason.is_none_or(|set| set.contains(sequence))
                && filter.since.is_none_or(|since| {
                    let letter = self.letters.get(sequence);
                    letter.is_some_and(|letter| letter.head.failed_at >= since)
                })
        };
        let mut page = LetterPage {
            total: fewest.map_or(self.len(), BTreeSet::len),
            ..LetterPage::default()
        };
        let mut seen = start.place();
        for (looked_at, sequence) in self.places(fewest, start).enumerate() {
            if page.letters.len() == limit || looked_at == SCAN_BUDGET {
                page.next = Some(seen);
                break;
            }
            seen = sequence;
            if matches(&sequence)
                && let Some(letter) = self.letters.get(&sequence)
            {
                page.letters.push(letter.clone());
            }
        }
        if let Some(back) = start.back() {
            let before = self.places(fewest, back).take(SCAN_BUDGET);
            let first = start.first().place();
            page.previous = Some(before.filter(matches).nth(limit).unwrap_or(first));
        }
        page
    }

    fn places<'a>(
        &'a self,
        set: Option<&'a BTreeSet<u64>>,
        start: Start,
    ) -> Box<dyn Iterator<Item = u64> + 'a> {
        let range = start.range();
        let places: Box<dyn DoubleEndedIterator<Item = u64> + 'a> = match set {
            Some(set) => Box::new(set.range(range).copied()),
            None => Box::new(self.letters.range(range).map(|(sequence, _)| *sequence)),
        };
        if start.is_newest_first() {
            Box::new(places.rev())
        } else {
            places
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn letter(n: u8, sequence: u64) -> LetterInfo {
        LetterInfo {
            id: WorkId::new(Uuid::from_u128(n.into())),
            sequence,
            stored_at: Timestamp::from_millis(i64::try_from(sequence).unwrap()),
            head: DeadLetterHeader {
                capability: ["rust", "go"][usize::from(n % 2)].into(),
                reason: [Reason::Timeout, Reason::AgentError, Reason::Poison][usize::from(n % 3)],
                failed_at: Timestamp::from_millis(i64::from(n)),
                retries: 0,
                auto_retries: 0,
            },
        }
    }

    fn any_filter() -> impl Strategy<Value = LetterFilter> {
        let capability = prop::option::of(prop::sample::select(vec!["rust", "go", "none"]));
        let reason = prop::option::of(prop::sample::select(vec![Reason::Timeout, Reason::Poison]));
        let since = prop::option::of((0..200_i64).prop_map(Timestamp::from_millis));
        (capability, reason, since).prop_map(|(capability, reason, since)| LetterFilter {
            capability: capability.map(Into::into),
            reason,
            since,
        })
    }

    fn index_of(steps: &[(u8, bool)]) -> (LetterIndex, BTreeMap<u8, u64>) {
        let mut index = LetterIndex::new(&DlqSettings {
            auto_retry: true,
            ..DlqSettings::default()
        });
        let mut model = BTreeMap::new();
        for (sequence, (n, adds)) in (1..).zip(steps) {
            if *adds {
                index.insert(letter(*n, sequence));
                model.insert(*n, sequence);
            } else if let Some(sequence) = model.remove(n) {
                assert!(index.remove(sequence).is_some());
            }
        }
        (index, model)
    }

    proptest! {
        #[test]
        fn pages_give_each_match_once_and_in_order(
            steps in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.8)), 0..80),
            filter in any_filter(),
            limit in 1..7_usize,
            newest_first in any::<bool>(),
        ) {
            let (index, model) = index_of(&steps);
            let mut expected: Vec<u64> = model
                .iter()
                .filter(|(n, sequence)| {
                    let head = letter(**n, **sequence).head;
                    filter.capability.as_deref().is_none_or(|c| c == &*head.capability)
                        && filter.reason.is_none_or(|r| r == head.reason)
                        && filter.since.is_none_or(|since| head.failed_at >= since)
                })
                .map(|(_, sequence)| *sequence)
                .collect();
            expected.sort_unstable();
            if newest_first {
                expected.reverse();
            }
            let mut start = Start::of(newest_first, None);
            let (mut found, mut starts) = (Vec::new(), Vec::new());
            loop {
                let page = index.page(&filter, start, limit);
                prop_assert!(page.total >= expected.len());
                prop_assert_eq!(page.previous, starts.pop());
                found.extend(page.letters.iter().map(|letter| letter.sequence));
                let Some(next) = page.next else { break };
                prop_assert!(newest_first == (next < start.place()), "the cursor goes on");
                let is_exact = (filter.capability.is_none() || filter.reason.is_none())
                    && filter.since.is_none();
                if is_exact {
                    starts.push(start.place());
                } else {
                    starts = Vec::from_iter(index.page(&filter, start.moved_to(next), limit).previous);
                }
                start = start.moved_to(next);
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn nothing_is_left_of_what_was_removed(
            steps in prop::collection::vec((any::<u8>(), any::<bool>()), 0..60),
        ) {
            let (mut index, model) = index_of(&steps);
            prop_assert_eq!(index.len(), model.len());
            let end = Timestamp::from_millis(1_000);
            prop_assert_eq!(index.forget_before(end), model.len());
            prop_assert!(index.ids.is_empty() && index.by_capability.is_empty() && index.due.is_empty());
            prop_assert!(index.by_reason.values().all(BTreeSet::is_empty));
        }
    }

    #[test]
    fn a_later_letter_of_an_item_takes_the_place_of_the_earlier() {
        let mut index = LetterIndex::new(&DlqSettings::default());
        index.insert(letter(1, 5));
        index.insert(letter(1, 9));
        index.insert(letter(1, 7));
        assert_eq!(index.len(), 1);
        assert_eq!(index.get(letter(1, 0).id).unwrap().sequence, 9);
    }
}
