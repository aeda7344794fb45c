//! Listings: pages of headers in the order of creation, at the cost of what they return.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;

use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, Timestamp};

use super::header::Header;
use super::index::{Index, place};
pub use crate::domain::listing::Start;

/// Which items a listing wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these statuses; empty: all.
    pub statuses: Vec<WorkStatus>,
    /// Of this capability.
    pub capability: Option<String>,
    /// Of this boundary.
    pub boundary: Option<String>,
    /// Held, or last held, by this agent.
    pub holder: Option<AgentGuid>,
    /// With this label: `name` or `name=value`.
    pub label: Option<String>,
    /// Submitted then or later.
    pub since: Option<Timestamp>,
}

impl Filter {
    fn matches(&self, header: &Header) -> bool {
        let same = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w == has);
        same(&self.capability, &header.needs.capability)
            && same(&self.boundary, &header.needs.boundary)
            && self.holder.is_none_or(|guid| header.holder == Some(guid))
            && self.since.is_none_or(|since| header.offered_at >= since)
            && self
                .label
                .as_deref()
                .is_none_or(|label| header.has_label(label))
    }

    fn is_by_status_only(&self) -> bool {
        self.capability.is_none()
            && self.boundary.is_none()
            && self.holder.is_none()
            && self.label.is_none()
            && self.since.is_none()
    }
}

/// One page of headers.
#[derive(Debug, Clone, Default)]
pub struct HeaderPage {
    /// In the order of their creation, or the other way round.
    pub headers: Vec<Header>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
    /// Where the page before begins, if there is one.
    pub previous: Option<u64>,
    /// How many items have one of the wanted statuses.
    pub total: usize,
}

/// How many headers one page may look at: a rare label makes short pages, not long waits.
const SCAN_BUDGET: usize = 20_000;

impl Index {
    /// The page from `start` on; without the place of the page before.
    pub fn page(&self, filter: &Filter, start: Start, limit: usize) -> HeaderPage {
        let orders = self.orders_of(filter);
        let mut page = HeaderPage {
            total: orders.iter().map(|order| order.len()).sum(),
            ..HeaderPage::default()
        };
        let mut seen = start.place();
        for (looked_at, (created, slot)) in walk(&orders, start).enumerate() {
            if page.headers.len() == limit || looked_at == SCAN_BUDGET {
                page.next = Some(seen);
                break;
            }
            seen = created;
            if let Some(header) = self.headers.get(slot as usize)
                && filter.matches(header)
            {
                page.headers.push(header.clone());
            }
        }
        page
    }

    /// Where the page before `start` begins: `limit` matches back. None before the first page.
    pub fn previous(&self, filter: &Filter, start: Start, limit: usize) -> Option<u64> {
        let matches = |slot: u32| {
            filter.is_by_status_only()
                || self
                    .headers
                    .get(slot as usize)
                    .is_some_and(|header| filter.matches(header))
        };
        let place = walk(&self.orders_of(filter), start.back()?)
            .take(SCAN_BUDGET)
            .filter(|(_, slot)| matches(*slot))
            .nth(limit)
            .map(|(created, _)| created);
        Some(place.unwrap_or(start.first().place()))
    }

    fn orders_of(&self, filter: &Filter) -> Vec<&BTreeMap<u64, u32>> {
        if filter.statuses.is_empty() {
            return self.orders.iter().collect();
        }
        let mut statuses = filter.statuses.clone();
        statuses.sort_unstable();
        statuses.dedup();
        statuses
            .into_iter()
            .map(|status| &self.orders[place(status)])
            .collect()
    }
}

/// The headers of several orders as one order.
fn walk<'a>(
    orders: &[&'a BTreeMap<u64, u32>],
    start: Start,
) -> impl Iterator<Item = (u64, u32)> + use<'a> {
    let newest_first = start.is_newest_first();
    let mut ranges: Vec<_> = orders
        .iter()
        .map(|order| order.range(start.range()))
        .collect();
    let mut heads: Vec<_> = ranges
        .iter_mut()
        .map(|range| step(range, newest_first))
        .collect();
    std::iter::from_fn(move || {
        let present = heads
            .iter()
            .enumerate()
            .filter_map(|(at, head)| Some(((*head)?, at)));
        let (first, at) = if newest_first {
            present.max()?
        } else {
            present.min()?
        };
        heads[at] = step(&mut ranges[at], newest_first);
        Some(first)
    })
}

fn step(range: &mut Range<'_, u64, u32>, newest_first: bool) -> Option<(u64, u32)> {
    let next = if newest_first {
        range.next_back()
    } else {
        range.next()
    };
    next.map(|(created, slot)| (*created, *slot))
}

#[cfg(test)]
mod tests {
    use super::super::header::task_digest;
    use super::*;
    use crate::domain::work::WorkRecord;
    use loom_protocol::WorkId;
    use proptest::prelude::*;
    use std::collections::BTreeMap as Labels;
    use tokio::time::Instant;

    /// An item of each number, created in that order; every status and capability is among them.
    fn index_of(kinds: &[(usize, bool)]) -> Index {
        let mut index = Index::default();
        for (created, (status, rust)) in (1_u32..).zip(kinds) {
            let id = WorkId::new(uuid::Uuid::from_u128(created.into()));
            let now = Timestamp::from_millis(created.into());
            let mut record = WorkRecord::blank(id, "test", now, Labels::new());
            record.capability = if *rust { "rust" } else { "go" }.into();
            record.status = WorkStatus::ALL[status % WorkStatus::ALL.len()];
            record.task_id = format!("task {}", created % 7);
            index.apply(&record, created.into(), Instant::now());
        }
        index
    }

    proptest! {
        #[test]
        fn pages_give_each_match_once_in_either_direction(
            kinds in prop::collection::vec((any::<usize>(), any::<bool>()), 0..60),
            statuses in prop::collection::vec(prop::sample::select(&WorkStatus::ALL[..]), 0..3),
            rust in any::<bool>(),
            since in prop::option::of(0..60_i64),
            limit in 1..7_usize,
            newest_first in any::<bool>(),
        ) {
            let index = index_of(&kinds);
            let filter = Filter {
                statuses: statuses.clone(),
                capability: rust.then(|| "rust".into()),
                since: since.map(Timestamp::from_millis),
                ..Filter::default()
            };
            let mut expected: Vec<u64> = (1_u32..)
                .zip(&kinds)
                .filter(|(created, (status, is_rust))| {
                    let status = WorkStatus::ALL[status % WorkStatus::ALL.len()];
                    (statuses.is_empty() || statuses.contains(&status))
                        && (!rust || *is_rust)
                        && since.is_none_or(|since| i64::from(*created) >= since)
                })
                .map(|(created, _)| created.into())
                .collect();
            if newest_first {
                expected.reverse();
            }
            let mut start = Start::of(newest_first, None);
            let mut found = Vec::new();
            loop {
                let page = index.page(&filter, start, limit);
                let from = found.len();
                found.extend(page.headers.iter().map(|header| header.created));
                // The page before ends where this one begins.
                if let Some(previous) = index.previous(&filter, start, limit) {
                    let before = index.page(&filter, start.moved_to(previous), limit);
                    let before: Vec<u64> = before.headers.iter().map(|h| h.created).collect();
                    prop_assert_eq!(&found[from.saturating_sub(before.len())..from], &before);
                }
                let Some(next) = page.next else { break };
                start = start.moved_to(next);
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn items_of_a_task_are_found_however_small_the_steps(
            kinds in prop::collection::vec((any::<usize>(), any::<bool>()), 0..60),
            budget in 1..20_usize,
        ) {
            let index = index_of(&kinds);
            let (mut found, mut from) = (Vec::new(), Some(0));
            while let Some(place) = from {
                let (ids, next) = index.ids_of_task(task_digest("task 3"), place, budget);
                found.extend(ids.iter().map(|id| id.uuid().as_u128()));
                from = next;
            }
            let expected: Vec<u128> = (1..=kinds.len() as u128).filter(|n| n % 7 == 3).collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_header_stays_small() {
        assert!(size_of::<Header>() <= 144, "{}", size_of::<Header>());
    }
}
