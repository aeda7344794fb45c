//! The circuit breaker: an agent that fails one item after the other within seconds is broken itself.

use std::time::Duration;

use loom_protocol::WorkId;

/// When an agent is taken for broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerTerms {
    /// After how many items in a row; `None`: never.
    pub after: Option<u32>,
    /// An attempt that took as long as this is none of those.
    pub within: Duration,
}

/// How an attempt of an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The item is done.
    Completed,
    /// The agent failed it after this long.
    Failed(WorkId, Duration),
}

/// The items that an agent has failed quickly since it last did otherwise. An item that it fails
/// twice is one item: that one may be at fault, not the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streak(Vec<WorkId>);

impl Streak {
    /// Takes note of the end of an attempt. Whether the agent is broken.
    pub fn note(&mut self, end: AttemptEnd, terms: &BreakerTerms) -> bool {
        let Some(after) = terms.after else {
            return false;
        };
        match end {
            AttemptEnd::Failed(id, ran_for) if ran_for < terms.within => {
                if !self.0.contains(&id) {
                    self.0.push(id);
                }
            }
            AttemptEnd::Failed(..) | AttemptEnd::Completed => self.0.clear(),
        }
        let broken = u32::try_from(self.0.len()).unwrap_or(u32::MAX) >= after;
        if broken {
            // Let in again, it begins anew.
            self.0.clear();
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end() -> impl Strategy<Value = AttemptEnd> {
        let ids: Vec<WorkId> = (0..6).map(|_| WorkId::generate()).collect();
        let failed = (prop::sample::select(ids), 0_u64..20);
        prop_oneof![
            1 => Just(AttemptEnd::Completed),
            4 => failed.prop_map(|(id, secs)| AttemptEnd::Failed(id, Duration::from_secs(secs))),
        ]
    }

    /// The same said another way: walks back from the last end.
    fn is_broken(ends: &[AttemptEnd], after: usize, within: Duration) -> bool {
        let quick = ends.iter().rev().map_while(|end| match end {
            AttemptEnd::Failed(id, ran_for) if *ran_for < within => Some(*id),
            _ => None,
        });
        let mut ids: Vec<WorkId> = quick.collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len() >= after
    }

    proptest! {
        #[test]
        fn only_different_items_failed_quickly_in_a_row_break_it(
            ends in prop::collection::vec(end(), 0..40),
            after in 1_u32..5,
        ) {
            let within = Duration::from_secs(10);
            let terms = BreakerTerms { after: Some(after), within };
            let (mut streak, mut since) = (Streak::default(), 0);
            for (place, end) in ends.iter().enumerate() {
                let broken = streak.note(*end, &terms);
                let expected = is_broken(&ends[since..=place], after as usize, within);
                prop_assert_eq!(broken, expected);
                if broken {
                    since = place + 1;
                }
            }
        }

        #[test]
        fn switched_off_it_never_breaks(ends in prop::collection::vec(end(), 0..40)) {
            let terms = BreakerTerms { after: None, within: Duration::from_secs(10) };
            let mut streak = Streak::default();
            for end in ends {
                prop_assert!(!streak.note(end, &terms));
            }
        }
    }
}
