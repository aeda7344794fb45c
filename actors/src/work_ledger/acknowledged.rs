//! Which writes are known, so that a replay knows where to begin.

use std::collections::BTreeSet;

/// How many acknowledged sequences may lie above an unknown one before the bucket is asked.
const MAX_ABOVE_GAP: usize = 4_096;

/// Up to which sequence every write is known, and the acknowledged ones above.
#[derive(Default)]
pub(super) struct Acknowledged {
    up_to: u64,
    above: BTreeSet<u64>,
    /// Where a gap was when it was last looked for.
    gap_after: Option<u64>,
}

impl Acknowledged {
    /// Everything up to this sequence is known.
    pub fn up_from(up_to: u64) -> Self {
        Self {
            up_to,
            ..Self::default()
        }
    }

    /// The last sequence below which there is no gap.
    pub const fn up_to(&self) -> u64 {
        self.up_to
    }

    /// Whether so many lie above a gap that the bucket had better be asked.
    pub fn has_too_many_above(&self) -> bool {
        self.above.len() > MAX_ABOVE_GAP
    }

    pub fn note(&mut self, sequence: u64) {
        if sequence > self.up_to {
            self.above.insert(sequence);
        }
        while self.above.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
    }

    /// Whether the gap that was there at the last call is there still: a write of somebody who died
    /// before its answer came.
    pub fn has_a_lasting_gap(&mut self) -> bool {
        let gap_after = (!self.above.is_empty()).then_some(self.up_to);
        let before = std::mem::replace(&mut self.gap_after, gap_after);
        gap_after.is_some() && gap_after == before
    }

    /// Whether nothing is known above what is missing.
    pub fn has_no_gap(&self) -> bool {
        self.above.is_empty()
    }

    pub fn everything_up_to(&mut self, sequence: u64) {
        self.up_to = self.up_to.max(sequence);
        self.above = self.above.split_off(&(self.up_to + 1));
        self.note(self.up_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn acknowledgements_in_any_order_add_up(
            mut order in Just((1..=50u64).collect::<Vec<_>>()).prop_shuffle(),
            known in 0..50u64,
        ) {
            let mut acknowledged = Acknowledged::default();
            let last = order.pop().unwrap();
            for sequence in order {
                acknowledged.note(sequence);
            }
            prop_assert_eq!(acknowledged.up_to, last - 1);
            acknowledged.everything_up_to(known);
            prop_assert_eq!(acknowledged.up_to, if known >= last { 50 } else { last - 1 });
            prop_assert!(!acknowledged.has_a_lasting_gap());
            let gap_lasts = acknowledged.up_to < 50 && last < 50;
            prop_assert_eq!(acknowledged.has_a_lasting_gap(), gap_lasts);
            acknowledged.note(last);
            prop_assert!(!acknowledged.has_a_lasting_gap());
            prop_assert_eq!(acknowledged.up_to, 50);
            prop_assert!(acknowledged.above.is_empty());
        }
    }
}
