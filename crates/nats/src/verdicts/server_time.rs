//! How far the clock of a server is from ours. Both run forward; neither has to be right.
//!
//! An answer that says when it was made bounds the difference: it was made after the question was sent and
//! before the answer came. The estimate begins at nothing and is moved only as far as the last answer makes
//! necessary, so that clocks which may be the same are taken to be the same.

use loom_protocol::Timestamp;

/// By how much a server's clock is ahead of ours, in milliseconds, as far as we know. Never wrong by more than
/// the time from a question to its answer (and 2 ms: times are read in whole ones).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockOffset(i64);

impl ClockOffset {
    /// What is known after an answer, which the server made at `said` by its clock. One that came before it was
    /// asked for (ours was set back meanwhile) tells nothing.
    #[must_use]
    pub fn observe(self, sent: Timestamp, said: Timestamp, received: Timestamp) -> Self {
        if received < sent {
            return self;
        }
        let ahead = |ours: Timestamp| said.as_millis().saturating_sub(ours.as_millis());
        let least = ahead(received).saturating_sub(1);
        let most = ahead(sent).saturating_add(1);
        Self(self.0.clamp(least, most))
    }

    /// A time of the server, by our clock.
    pub fn to_ours(self, theirs: Timestamp) -> Timestamp {
        Timestamp::from_millis(theirs.as_millis().saturating_sub(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Microseconds as a clock of milliseconds shows them.
    fn shown(micros: i64) -> Timestamp {
        Timestamp::from_millis(micros.div_euclid(1_000))
    }

    proptest! {
        /// Of clocks that run side by side, at whatever distance, asked however often and slowly: the estimate is
        /// wrong by no more than the last round trip, and never gets worse.
        #[test]
        fn the_estimate_is_never_wrong_by_more_than_a_round_trip(
            distance in -200_000_000_000_i64..200_000_000_000,
            answers in prop::collection::vec((0_i64..5_000_000, 0_i64..3_000_000, 0_i64..3_000_000), 1..20),
        ) {
            let (mut now, mut offset, mut error) = (1_700_000_000_000_000_i64, ClockOffset::default(), i64::MAX);
            for (pause, there, back) in answers {
                let sent = now + pause;
                now = sent + there + back;
                offset = offset.observe(shown(sent), shown(sent + there + distance), shown(now));
                let wrong = (offset.0 * 1_000 - distance).abs();
                prop_assert!(wrong <= there + back + 3_000, "wrong by {wrong} µs");
                prop_assert!(wrong <= error.max(2_000), "worse than before: {wrong} µs");
                error = wrong;
            }
        }

        /// Clocks that may be the same, as far as the answers say, are taken to be the same.
        #[test]
        fn the_estimate_stays_nothing_where_nothing_is_possible(
            answers in prop::collection::vec((0_i64..5_000, 0_i64..3_000), 1..20),
        ) {
            let mut offset = ClockOffset::default();
            for (sent, took) in answers {
                for said in [sent, sent + took / 2, sent + took] {
                    let at = Timestamp::from_millis;
                    offset = offset.observe(at(sent), at(said), at(sent + took));
                    prop_assert_eq!(offset, ClockOffset::default());
                }
            }
        }
    }

    #[test]
    fn an_answer_from_before_its_question_tells_nothing() {
        let at = Timestamp::from_millis;
        let known = ClockOffset::default().observe(at(10), at(5_010), at(12));
        assert_eq!(known.to_ours(at(6_000)), at(1_003));
        assert_eq!(known.observe(at(20), at(9_000), at(19)), known);
    }
}
