//! Operations that are decided: kept for a while, found by their id and by their ticket, listed newest first together
//! with those that are not decided.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use loom_protocol::rest::PageInfo;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_protocol::{SpinUpId, TargetId, Timestamp, WireError};

use super::Ended;
use crate::domain::targets::{BirthTimes, NotARecord, TicketDigest};

/// How many decided operations of a project are known; of more, the oldest are in the bucket only, until they go.
pub const MOST_OPERATIONS: usize = 2_000;
/// The version of an entry that this program writes and reads.
const VERSION: u8 = 1;

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
type Place = (Timestamp, SpinUpId);

fn place(operation: &SpinUpOperation) -> Place {
    (operation.started_at, operation.operation_id)
}

/// The entry of a decided operation as it is kept: a version byte, then JSON.
///
/// # Errors
/// None that is known: every field can be written.
pub(super) fn encode_end(end: &Ended) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, end)?;
    Ok(bytes)
}

/// Reads such an entry.
pub(super) fn decode_end(bytes: &[u8]) -> Result<Ended, NotARecord> {
    let (version, json) = bytes.split_first().ok_or(NotARecord::Empty)?;
    if *version != VERSION {
        return Err(NotARecord::Version(*version));
    }
    serde_json::from_slice(json).map_err(|error| NotARecord::Form {
        column: error.column(),
    })
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

/// Where a page begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// Older ones than this.
    After(Place),
    /// Later ones.
    Before(Place),
}

impl Cursor {
    fn write(self) -> String {
        let (letter, (time, id)) = match self {
            Self::After(place) => ('o', place),
            Self::Before(place) => ('n', place),
        };
        format!("{letter}{}.{id}", time.as_millis())
    }

    fn read(text: &str) -> Result<Self, WireError> {
        Self::parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            WireError::invalid(format!(
                "cursor {shown:?} is none of ours; take nextCursor or prevCursor of a page, or leave it out"
            ))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (millis, id) = text.get(1..)?.split_once('.')?;
        let time = Timestamp::from_millis(millis.parse().ok()?);
        let place = (time, id.parse().ok()?);
        match text.as_bytes().first()? {
            b'o' => Some(Self::After(place)),
            b'n' => Some(Self::Before(place)),
            _ => None,
        }
    }
}

/// The page that is asked for, of all operations; an operation that is there twice is the one that comes first.
pub(super) fn page_of<'a>(
    all: impl Iterator<Item = &'a SpinUpOperation>,
    filter: &OperationFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<OperationsFound, WireError> {
    let cursor = cursor.map(Cursor::read).transpose()?;
    let mut sorted: BTreeMap<Place, &SpinUpOperation> = BTreeMap::new();
    for operation in all.filter(|operation| filter.passes(operation)) {
        sorted.entry(place(operation)).or_insert(operation);
    }
    let found: Vec<&SpinUpOperation> = sorted.into_values().rev().collect();
    let total = found.len();
    let (from, to) = match cursor {
        None => (0, limit.min(total)),
        Some(Cursor::After(last)) => {
            let from = found.partition_point(|operation| place(operation) >= last);
            (from, from.saturating_add(limit).min(total))
        }
        Some(Cursor::Before(first)) => {
            let to = found.partition_point(|operation| place(operation) > first);
            (to.saturating_sub(limit), to)
        }
    };
    let page = &found[from..to];
    let at = |operation: Option<&&SpinUpOperation>, cursor: fn(Place) -> Cursor| {
        operation.map(|operation| cursor(place(operation)).write())
    };
    let has_more = to < total;
    Ok(OperationsFound {
        info: PageInfo {
            count: page.len(),
            total,
            has_more,
            next_cursor: has_more.then(|| at(page.last(), Cursor::After)).flatten(),
            prev_cursor: (from > 0)
                .then(|| at(page.first(), Cursor::Before))
                .flatten(),
        },
        operations: page.iter().map(|operation| (*operation).clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use loom_protocol::target::Mechanism;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::targets::TicketTerms;

    fn end(number: u16, started: i64, status: SpinUpStatus) -> Arc<Ended> {
        let id = |base: u128| Uuid::from_u128(base + u128::from(number));
        Arc::new(Ended {
            operation: SpinUpOperation {
                operation_id: SpinUpId::new(id(1)),
                target_id: TargetId::new(Uuid::from_u128(1 << 64)),
                target_name: "t".into(),
                mechanism: Mechanism::Local,
                status,
                need: None,
                work_item_id: None,
                agent_guid: None,
                error: None,
                output: None,
                started_at: Timestamp::from_millis(started),
                ended_at: Some(Timestamp::from_millis(started + 10)),
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
        fn the_pages_together_are_all_operations_the_latest_first_in_both_directions(
            times in prop::collection::vec(0_i64..5, 0..20), limit in 1_usize..8,
        ) {
            let ends: Vec<_> = (0..).zip(&times)
                .map(|(number, at)| end(number, *at, SpinUpStatus::Failed)).collect();
            // One is in both for a moment: it is told once.
            let all = || ends.iter().chain(ends.first()).map(|end| &end.operation);
            let page = |cursor: Option<String>| {
                page_of(all(), &OperationFilter::default(), cursor.as_deref(), limit).unwrap()
            };
            let mut expected: Vec<Place> = ends.iter().map(|end| place(&end.operation)).collect();
            expected.sort_unstable();
            expected.reverse();
            let (mut seen, mut pages) = (Vec::new(), vec![page(None)]);
            loop {
                let last = pages.last().unwrap();
                prop_assert_eq!(last.info.total, expected.len());
                seen.extend(last.operations.iter().map(place));
                let Some(next) = last.info.next_cursor.clone() else { break };
                pages.push(page(Some(next)));
            }
            prop_assert_eq!(&seen, &expected);
            for pair in pages.windows(2) {
                let back = page(pair[1].info.prev_cursor.clone());
                prop_assert_eq!(&back.operations, &pair[0].operations);
            }
        }

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

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let end = end(1, 7, SpinUpStatus::Timeout);
        let bytes = encode_end(&end).unwrap();
        assert_eq!(decode_end(&bytes), Ok((*end).clone()));
        for bytes in [&b""[..], b"\x07{}", b"\x01{"] {
            assert!(decode_end(bytes).is_err());
        }
    }
}
