//! Where a page of a listing begins, and which way it goes.

use std::ops::Bound;

/// A place in an order of creation, and the direction from there. The place itself is not on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Oldest first: what comes after this place; 0 is the beginning.
    After(u64),
    /// Newest first: what comes before this place; the greatest number is the end.
    Before(u64),
}

impl Start {
    /// The place of a cursor in this direction; without one, the first page.
    pub const fn of(newest_first: bool, cursor: Option<u64>) -> Self {
        match (newest_first, cursor) {
            (false, Some(place)) => Self::After(place),
            (false, None) => Self::After(0),
            (true, Some(place)) => Self::Before(place),
            (true, None) => Self::Before(u64::MAX),
        }
    }

    /// The place.
    pub const fn place(self) -> u64 {
        match self {
            Self::After(place) | Self::Before(place) => place,
        }
    }

    /// Another place, in the same direction.
    #[must_use]
    pub const fn moved_to(self, place: u64) -> Self {
        Self::of(self.is_newest_first(), Some(place))
    }

    /// Where the first page of this direction begins.
    #[must_use]
    pub const fn first(self) -> Self {
        Self::of(self.is_newest_first(), None)
    }

    /// Whether the newest come first.
    pub const fn is_newest_first(self) -> bool {
        matches!(self, Self::Before(_))
    }

    /// The way back to the pages before this one; none from the first page.
    pub fn back(self) -> Option<Self> {
        (self != self.first()).then_some(match self {
            Self::After(place) => Self::Before(place.saturating_add(1)),
            Self::Before(place) => Self::After(place.saturating_sub(1)),
        })
    }

    /// The places that lie this way.
    pub const fn range(self) -> (Bound<u64>, Bound<u64>) {
        match self {
            Self::After(place) => (Bound::Excluded(place), Bound::Unbounded),
            Self::Before(place) => (Bound::Unbounded, Bound::Excluded(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_holds_the_place_itself() {
        assert_eq!(Start::After(0).back(), None);
        assert_eq!(Start::Before(u64::MAX).back(), None);
        assert_eq!(Start::After(7).back(), Some(Start::Before(8)));
        assert_eq!(Start::Before(7).back(), Some(Start::After(6)));
        assert_eq!(Start::Before(0).back(), Some(Start::After(0)));
    }
}
