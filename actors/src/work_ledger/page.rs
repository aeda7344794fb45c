//! Listings: pages of headers in the order of creation, at the cost of what they return.

use std::collections::BTreeMap;
use std::ops::Bound;

use loom_protocol::AgentGuid;
use loom_protocol::work::WorkStatus;

use super::header::Header;
use super::index::{Index, place};

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
}

impl Filter {
    fn matches(&self, header: &Header) -> bool {
        let same = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|w| w == has);
        same(&self.capability, &header.needs.capability)
            && same(&self.boundary, &header.needs.boundary)
            && self.holder.is_none_or(|guid| header.holder == Some(guid))
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
    }
}

/// One page of headers.
#[derive(Debug, Clone, Default)]
pub struct HeaderPage {
    /// In the order of their creation.
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
    /// The page after `after` (a creation sequence; 0: the first).
    pub fn page(&self, filter: &Filter, after: u64, limit: usize) -> HeaderPage {
        let orders: Vec<&BTreeMap<u64, u32>> = if filter.statuses.is_empty() {
            self.orders.iter().collect()
        } else {
            let mut statuses = filter.statuses.clone();
            statuses.sort_unstable();
            statuses.dedup();
            statuses
                .into_iter()
                .map(|status| &self.orders[place(status)])
                .collect()
        };
        let mut page = HeaderPage {
            total: orders.iter().map(|order| order.len()).sum(),
            ..HeaderPage::default()
        };
        let mut cursors: Vec<_> = orders
            .iter()
            .map(|order| {
                order
                    .range((Bound::Excluded(after), Bound::Unbounded))
                    .peekable()
            })
            .collect();
        let mut seen = after;
        for _ in 0..SCAN_BUDGET {
            let Some(next) = cursors
                .iter_mut()
                .filter_map(|cursor| Some((*cursor.peek()?.0, cursor)))
                .min_by_key(|(created, _)| *created)
                .and_then(|(_, cursor)| cursor.next())
            else {
                return self.with_previous(page, &orders, filter, after, limit);
            };
            if page.headers.len() == limit {
                page.next = Some(seen);
                return self.with_previous(page, &orders, filter, after, limit);
            }
            seen = *next.0;
            if let Some(header) = self.headers.get(*next.1 as usize)
                && filter.matches(header)
            {
                page.headers.push(header.clone());
            }
        }
        page.next = Some(seen);
        self.with_previous(page, &orders, filter, after, limit)
    }

    /// Where the page before `after` begins: `limit` matches back.
    fn with_previous(
        &self,
        mut page: HeaderPage,
        orders: &[&BTreeMap<u64, u32>],
        filter: &Filter,
        after: u64,
        limit: usize,
    ) -> HeaderPage {
        if after == 0 {
            return page;
        }
        let mut cursors: Vec<_> = orders
            .iter()
            .map(|order| order.range(..=after).rev().peekable())
            .collect();
        let mut left = limit;
        for _ in 0..SCAN_BUDGET {
            let Some((created, slot)) = cursors
                .iter_mut()
                .filter_map(|cursor| Some((*cursor.peek()?.0, cursor)))
                .max_by_key(|(created, _)| *created)
                .and_then(|(_, cursor)| cursor.next())
            else {
                break;
            };
            let matches = filter.is_by_status_only()
                || self
                    .headers
                    .get(*slot as usize)
                    .is_some_and(|header| filter.matches(header));
            if matches {
                if left == 0 {
                    page.previous = Some(*created);
                    return page;
                }
                left -= 1;
            }
        }
        page.previous = Some(0);
        page
    }
}
