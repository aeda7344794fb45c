//! Pages of a list that is sorted by a time and then by an id. A cursor names the place next to which a page lies, so that
//! it holds while things come and go.

use std::fmt::Display;
use std::str::FromStr;

use loom_protocol::rest::PageInfo;
use loom_protocol::{Timestamp, WireError};

/// Where something stands in a list.
pub(super) type Place<I> = (Timestamp, I);

/// One kind of list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    /// The letters with which its cursors begin: of what follows a place in the list, and of what comes before it.
    pub letters: (char, char),
    /// Whether the latest comes first.
    pub is_latest_first: bool,
}

/// Where a page begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor<I> {
    After(Place<I>),
    Before(Place<I>),
}

impl Listing {
    /// The page next to a cursor, or the first one: at most `limit` of all, each with its place, in whatever order they
    /// come. Where two have one place, the first of them is taken.
    ///
    /// # Errors
    /// The cursor is none.
    pub fn page<T, I: Copy + Ord + Display + FromStr>(
        self,
        all: impl Iterator<Item = (Place<I>, T)>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<T>, PageInfo), WireError> {
        let cursor = cursor.map(|text| self.read(text)).transpose()?;
        let mut found: Vec<(Place<I>, T)> = all.collect();
        found.sort_by_key(|(place, _)| *place);
        found.dedup_by_key(|(place, _)| *place);
        if self.is_latest_first {
            found.reverse();
        }
        let is_before = |one: Place<I>, other: Place<I>| {
            if self.is_latest_first {
                one > other
            } else {
                one < other
            }
        };
        let total = found.len();
        let (from, to) = match cursor {
            None => (0, limit.min(total)),
            Some(Cursor::After(last)) => {
                let from = found.partition_point(|(place, _)| !is_before(last, *place));
                (from, from.saturating_add(limit).min(total))
            }
            Some(Cursor::Before(first)) => {
                let to = found.partition_point(|(place, _)| is_before(*place, first));
                (to.saturating_sub(limit), to)
            }
        };
        let page = &found[from..to];
        let has_more = to < total;
        let next = page.last().filter(|_| has_more);
        let prev = page.first().filter(|_| from > 0);
        let info = PageInfo {
            count: page.len(),
            total,
            has_more,
            next_cursor: next.map(|(place, _)| self.write(Cursor::After(*place))),
            prev_cursor: prev.map(|(place, _)| self.write(Cursor::Before(*place))),
        };
        found.truncate(to);
        let page = found.drain(from..).map(|(_, thing)| thing).collect();
        Ok((page, info))
    }

    fn write<I: Display>(self, cursor: Cursor<I>) -> String {
        let (letter, (time, id)) = match cursor {
            Cursor::After(place) => (self.letters.0, place),
            Cursor::Before(place) => (self.letters.1, place),
        };
        format!("{letter}{}.{id}", time.as_millis())
    }

    fn read<I: FromStr>(self, text: &str) -> Result<Cursor<I>, WireError> {
        self.parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            WireError::invalid(format!(
                "cursor {shown:?} is none of ours; take nextCursor or prevCursor of a page, or leave it out"
            ))
        })
    }

    fn parse<I: FromStr>(self, text: &str) -> Option<Cursor<I>> {
        let mut rest = text.chars();
        let letter = rest.next()?;
        let (millis, id) = rest.as_str().split_once('.')?;
        let time = Timestamp::from_millis(millis.parse().ok()?);
        let place = (time, id.parse().ok()?);
        if letter == self.letters.0 {
            Some(Cursor::After(place))
        } else if letter == self.letters.1 {
            Some(Cursor::Before(place))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTINGS: [Listing; 2] = [
        Listing {
            letters: ('a', 'b'),
            is_latest_first: false,
        },
        Listing {
            letters: ('o', 'n'),
            is_latest_first: true,
        },
    ];

    proptest! {
        #[test]
        fn the_pages_together_are_the_whole_list_in_both_directions(
            times in prop::collection::vec(0_i64..5, 0..20), limit in 1_usize..8, which in 0_usize..2,
        ) {
            let listing = LISTINGS[which];
            let places = || (0_u32..).zip(&times).map(|(id, at)| (Timestamp::from_millis(*at), id));
            // The first one is told of twice, the second time otherwise.
            let all = || {
                let again = places().take(1).map(|place| (place, (place, true)));
                places().map(|place| (place, (place, false))).chain(again)
            };
            let page = |cursor: Option<String>| listing.page(all(), cursor.as_deref(), limit).unwrap();
            let mut expected: Vec<_> = places().map(|place| (place, false)).collect();
            expected.sort_unstable();
            if listing.is_latest_first {
                expected.reverse();
            }
            let (mut seen, mut pages) = (Vec::new(), vec![page(None)]);
            loop {
                let (page_seen, info) = pages.last().unwrap();
                prop_assert_eq!((info.total, info.count), (expected.len(), page_seen.len()));
                prop_assert_eq!(info.has_more, info.next_cursor.is_some());
                seen.extend(page_seen.clone());
                let Some(next) = info.next_cursor.clone() else { break };
                pages.push(page(Some(next)));
            }
            prop_assert_eq!(&seen, &expected);
            for pair in pages.windows(2) {
                let back = page(pair[1].1.prev_cursor.clone());
                prop_assert_eq!(&back.0, &pair[0].0);
            }
        }
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        for bad in ["", "x", "a1", "c1.7", "a1.x", "o1.7", "ü1.7"] {
            assert!(LISTINGS[0].read::<u32>(bad).is_err(), "{bad}");
        }
        let read = LISTINGS[0].read::<u32>("b1.7").unwrap();
        assert_eq!(read, Cursor::Before((Timestamp::from_millis(1), 7)));
    }
}
