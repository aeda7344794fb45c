//! Operations that are decided: kept for a while, found by their id and by their ticket, listed newest first together
//! with those that are not decided.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use loom_protocol::rest::PageInfo;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_protocol::{SpinUpId, TargetId, Timestamp, WireError};

use super::Ended;
use super::paging::{self, Listing};
use crate::domain::targets::{BirthTimes, TicketDigest};

/// How many decided operations of a project are known; of more, the oldest are in the bucket only, until they go.
pub const MOST_OPERATIONS: usize = 2_000;

/// Which operations are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// In this state.
    pub status: Option<SpinUpStatus>,
    /// Of this target.
    pub target: Option<TargetId>,
}

impl OperationFilter {
    fn passes(&self, operation: &SpinUpOperation) -> bool {
        self.status.is_none_or(|status| status == operation.status)
            && self
                .target
                .is_none_or(|target| target == operation.target_id)
    }
}

/// One page of operations.
#[derive(Debug, Clone)]
pub struct OperationsFound {
    /// The operations, the one that was decided on last first.
    pub operations: Vec<SpinUpOperation>,
    /// Where the page stands.
    pub info: PageInfo,
}

/// Where an operation stands in the order of their beginnings.
type Place = paging::Place<SpinUpId>;

const OPERATIONS: Listing = Listing {
    letters: ('o', 'n'),
    is_latest_first: true,
};

const fn place(operation: &SpinUpOperation) -> Place {
    (operation.started_at, operation.operation_id)
}

/// The decided operations of a project: at most [`MOST_OPERATIONS`], the latest.
#[derive(Debug, Default)]
pub(super) struct Operations {
    in_order: BTreeMap<Place, Arc<Ended>>,
    by_id: HashMap<SpinUpId, Place>,
    by_ticket: HashMap<TicketDigest, SpinUpId>,
    times: BirthTimes,
}

impl Operations {
    /// Takes one in, in the place of what was known of it.
    pub fn insert(&mut self, end: Arc<Ended>) {
        let place = place(&end.operation);
        if let Some(before) = self.by_id.get(&place.1) {
            self.remove(*before);
        }
        self.by_id.insert(place.1, place);
        self.by_ticket.insert(end.ticket.digest, place.1);
        self.times.insert(&end.operation);
        self.in_order.insert(place, end);
        if self.in_order.len() > MOST_OPERATIONS
            && let Some((oldest, _)) = self.in_order.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, place: Place) {
        if let Some(end) = self.in_order.remove(&place) {
            self.by_id.remove(&place.1);
            self.by_ticket.remove(&end.ticket.digest);
            self.times.remove(&end.operation);
        }
    }

    /// How long births took.
    pub const fn times(&self) -> &BirthTimes {
        &self.times
    }

    /// Forgets those that ended before.
    pub fn forget_before(&mut self, before: Timestamp) {
        let ended = |end: &Ended| end.operation.ended_at.unwrap_or(end.operation.started_at);
        let old: Vec<Place> = self
            .in_order
            .iter()
            .take_while(|(place, _)| place.0 < before)
            .filter(|(_, end)| ended(end) < before)
            .map(|(place, _)| *place)
            .collect();
        for place in old {
            self.remove(place);
        }
    }

    /// One of them.
    pub fn get(&self, id: SpinUpId) -> Option<&Arc<Ended>> {
        self.in_order.get(self.by_id.get(&id)?)
    }

    /// The one of a ticket.
    pub fn of_ticket(&self, digest: &TicketDigest) -> Option<&Arc<Ended>> {
        self.get(*self.by_ticket.get(digest)?)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Ended>> {
        self.in_order.values()
    }
}

/// The page that is asked for, of all operations; an operation that is there twice is the one that comes first.
pub(super) fn page_of<'a>(
    all: impl Iterator<Item = &'a SpinUpOperation>,
    filter: &OperationFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<OperationsFound, WireError> {
    let passing = all.filter(|operation| filter.passes(operation));
    let placed = passing.map(|operation| (place(operation), operation));
    let (page, info) = OPERATIONS.page(placed, cursor, limit)?;
    Ok(OperationsFound {
        operations: page.into_iter().cloned().collect(),
        info,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::targets::TicketTerms;
    use crate::domain::targets::testing::operation;

    fn end(number: u16, started: i64, status: SpinUpStatus) -> Arc<Ended> {
        Arc::new(Ended {
            operation: SpinUpOperation {
                status,
                started_at: Timestamp::from_millis(started),
                ended_at: Some(Timestamp::from_millis(started + 10)),
                ..operation(SpinUpId::new(Uuid::from_u128(u128::from(number) + 1)))
            },
            ticket: TicketTerms {
                digest: crate::domain::targets::digest_of(
                    &loom_protocol::target::BirthTicket::from_text(number.to_string()),
                ),
                agent_type: "t".into(),
                capabilities: vec!["c".into()],
                boundaries: vec!["default".into()],
            },
            reference: None,
            instance_id: None,
        })
    }

    proptest! {
        #[test]
        fn an_operation_is_found_by_id_and_ticket_until_it_is_too_old(
            times in prop::collection::vec(0_i64..50, 0..20), before in 0_i64..70,
        ) {
            let mut operations = Operations::default();
            for (number, at) in (0..).zip(&times) {
                operations.insert(end(number, 0, SpinUpStatus::Timeout));
                operations.insert(end(number, *at, SpinUpStatus::Success));
            }
            prop_assert_eq!(operations.iter().count(), times.len());
            operations.forget_before(Timestamp::from_millis(before));
            for (number, at) in (0..).zip(&times) {
                let one = end(number, *at, SpinUpStatus::Success);
                let is_kept = at + 10 >= before;
                prop_assert_eq!(operations.get(one.operation.operation_id), is_kept.then_some(&one));
                prop_assert_eq!(operations.of_ticket(&one.ticket.digest), is_kept.then_some(&one));
            }
        }
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let mut operations = Operations::default();
        for number in 0..u16::try_from(MOST_OPERATIONS).unwrap() + 5 {
            operations.insert(end(number, number.into(), SpinUpStatus::Success));
        }
        assert_eq!(operations.iter().count(), MOST_OPERATIONS);
        assert_eq!(operations.by_ticket.len(), MOST_OPERATIONS);
        let [oldest, kept] = [4, 5].map(|number| end(number, number.into(), SpinUpStatus::Success));
        assert!(operations.get(oldest.operation.operation_id).is_none());
        assert!(operations.get(kept.operation.operation_id).is_some());
    }
}
