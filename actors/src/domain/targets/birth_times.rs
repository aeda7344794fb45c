//! How long births took lately, by target and by mechanism: what is said of the next one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use loom_protocol::target::{Mechanism, SpinUpOperation, SpinUpStatus};
use loom_protocol::{SpinUpId, TargetId, Timestamp};

/// Of how many births the usual time is taken, the latest.
const BIRTHS_LOOKED_AT: usize = 32;

/// What took how long, in the order of the beginnings.
type Times = BTreeMap<(Timestamp, SpinUpId), Duration>;

/// The births that are known.
#[derive(Debug, Default)]
pub struct BirthTimes {
    of_target: HashMap<TargetId, Times>,
    of_mechanism: HashMap<Mechanism, Times>,
}

impl BirthTimes {
    /// An operation is decided; one that did not end with a birth says nothing.
    pub fn insert(&mut self, operation: &SpinUpOperation) {
        let Some((place, took)) = time_of(operation) else {
            return;
        };
        let of_target = self.of_target.entry(operation.target_id).or_default();
        of_target.insert(place, took);
        let of_mechanism = self.of_mechanism.entry(operation.mechanism).or_default();
        of_mechanism.insert(place, took);
    }

    /// It is forgotten, or was decided otherwise.
    pub fn remove(&mut self, operation: &SpinUpOperation) {
        if let Some((place, _)) = time_of(operation) {
            take(&mut self.of_target, &operation.target_id, place);
            take(&mut self.of_mechanism, &operation.mechanism, place);
        }
    }

    /// What births of this target, or else of its mechanism, took lately: the time that is neither among the longer nor
    /// among the shorter half. `None`: none is known. Costs the same however many are.
    pub fn usual(&self, target: TargetId, mechanism: Mechanism) -> Option<Duration> {
        let own = self.of_target.get(&target);
        middle(own.or_else(|| self.of_mechanism.get(&mechanism))?)
    }
}

fn time_of(operation: &SpinUpOperation) -> Option<((Timestamp, SpinUpId), Duration)> {
    let ended_at = operation.ended_at?;
    let place = (operation.started_at, operation.operation_id);
    let is_born = operation.status == SpinUpStatus::Success;
    is_born.then(|| (place, ended_at.since(operation.started_at)))
}

fn take<K: std::hash::Hash + Eq>(
    all: &mut HashMap<K, Times>,
    key: &K,
    place: (Timestamp, SpinUpId),
) {
    if let Some(times) = all.get_mut(key) {
        times.remove(&place);
        if times.is_empty() {
            all.remove(key);
        }
    }
}

/// Of an even number the longer of the middle two.
fn middle(times: &Times) -> Option<Duration> {
    let latest = times.values().rev().take(BIRTHS_LOOKED_AT);
    let mut latest: Vec<Duration> = latest.copied().collect();
    latest.sort_unstable();
    latest.get(latest.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::targets::testing::operation;

    fn birth(number: u128, target: u8, mechanism: Mechanism, secs: i64) -> SpinUpOperation {
        let started = i64::try_from(number).unwrap();
        SpinUpOperation {
            target_id: TargetId::new(Uuid::from_u128(u128::from(target) + 1)),
            mechanism,
            status: SpinUpStatus::Success,
            started_at: Timestamp::from_millis(started),
            ended_at: Some(Timestamp::from_millis(started + secs * 1_000)),
            ..operation(SpinUpId::new(Uuid::from_u128(number + 1)))
        }
    }

    #[test]
    fn the_usual_time_is_the_middle_one_and_none_is_invented() {
        for (times, middle) in [
            (&[][..], None),
            (&[7], Some(7)),
            (&[1, 9], Some(9)),
            (&[9, 1, 2], Some(2)),
            (&[1, 1, 1, 600], Some(1)),
        ] {
            let mut known = BirthTimes::default();
            for (number, secs) in (0..).zip(times) {
                known.insert(&birth(number, 0, Mechanism::Local, *secs));
            }
            let usual = known.usual(TargetId::new(Uuid::from_u128(1)), Mechanism::Local);
            assert_eq!(usual, middle.map(Duration::from_secs), "{times:?}");
        }
    }

    proptest! {
        #[test]
        fn the_usual_time_is_that_of_the_latest_births_of_the_target_or_of_its_mechanism(
            births in prop::collection::vec(
                (0..3u8, 0..2usize, 0..90i64, any::<bool>(), any::<bool>()), 0..120),
            target in 0..4u8,
        ) {
            let mechanisms = [Mechanism::Local, Mechanism::Ssh];
            let mut known = BirthTimes::default();
            let mut kept = Vec::new();
            for (number, (target, mechanism, secs, is_born, is_forgotten)) in (0..).zip(&births) {
                let mut birth = birth(number, *target, mechanisms[*mechanism], *secs);
                if !is_born {
                    birth.status = SpinUpStatus::Failed;
                }
                known.insert(&birth);
                if *is_forgotten {
                    known.remove(&birth);
                } else if *is_born {
                    kept.push(birth);
                }
            }
            let id = TargetId::new(Uuid::from_u128(u128::from(target) + 1));
            let walked = |is_one: &dyn Fn(&&SpinUpOperation) -> bool| {
                let latest = kept.iter().rev().filter(is_one).take(BIRTHS_LOOKED_AT);
                let mut times: Vec<Duration> =
                    latest.map(|one| one.ended_at.unwrap().since(one.started_at)).collect();
                times.sort_unstable();
                times.get(times.len() / 2).copied()
            };
            for mechanism in mechanisms {
                let expected = walked(&|one| one.target_id == id)
                    .or_else(|| walked(&|one| one.mechanism == mechanism));
                prop_assert_eq!(known.usual(id, mechanism), expected);
            }
        }
    }
}
