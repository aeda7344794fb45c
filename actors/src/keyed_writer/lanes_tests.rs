use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::{Bounds, Lanes, Rejection};

const KEYS: u8 = 5;
const BOUNDS: Bounds = Bounds {
    tasks: 3,
    requests_of_a_key: 4,
    requests: 12,
};

#[derive(Debug, Clone)]
enum Step {
    Push(u8),
    Chore(u8),
    /// All turns that there are; of those with a request so many begin no task, and answer at once.
    Turns(u8),
    /// The task that began so long ago ends, and its request has its outcome or another turn.
    End(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS).prop_map(Step::Push),
        1 => (0..KEYS).prop_map(Step::Chore),
        3 => (0..3u8).prop_map(Step::Turns),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(which, done)| Step::End(which, done)),
    ]
}

/// What the lanes should do, said in the plainest way.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<u8, VecDeque<u32>>,
    chores: BTreeMap<u8, bool>,
    under_way: Vec<u8>,
    answered: Vec<u32>,
}

impl Model {
    fn answer(&mut self, key: u8, request: Option<u32>) -> Result<(), TestCaseError> {
        let due = self.waiting.get_mut(&key).and_then(VecDeque::pop_front);
        prop_assert_eq!(request, due, "in the order in which they came");
        self.answered.extend(request);
        Ok(())
    }

    fn is_waiting(&self, key: u8) -> bool {
        self.waiting.get(&key).is_some_and(|all| !all.is_empty())
    }

    fn turns(
        &mut self,
        lanes: &mut Lanes<u8, u32, ()>,
        mut at_once: u8,
    ) -> Result<(), TestCaseError> {
        while let Some(key) = lanes.next_turn() {
            prop_assert!(!self.under_way.contains(&key), "a second task");
            prop_assert!(self.under_way.len() < BOUNDS.tasks, "too many tasks");
            let is_chore = !self.is_waiting(key);
            prop_assert_eq!(
                lanes.first(&key),
                self.waiting.get(&key).and_then(|all| all.front())
            );
            if is_chore {
                prop_assert_eq!(self.chores.insert(key, false), Some(true), "nothing to do");
                let urgent =
                    (0..KEYS).any(|key| self.is_waiting(key) && !self.under_way.contains(&key));
                prop_assert!(!urgent, "urgent before idle");
            } else if at_once > 0 {
                at_once -= 1;
                let request = lanes.take_first(&key);
                self.answer(key, request)?;
                continue;
            }
            prop_assert!(lanes.begin(key, ()));
            prop_assert!(!lanes.begin(key, ()), "one task for each key");
            self.under_way.push(key);
        }
        // Nobody waits for nothing.
        let is_full = self.under_way.len() == BOUNDS.tasks;
        for key in 0..KEYS {
            let has_work = self.is_waiting(key) || self.chores.get(&key) == Some(&true);
            prop_assert!(is_full || !has_work || self.under_way.contains(&key));
        }
        Ok(())
    }

    fn end(
        &mut self,
        lanes: &mut Lanes<u8, u32, ()>,
        which: u8,
        done: bool,
    ) -> Result<(), TestCaseError> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        let key = self
            .under_way
            .remove(usize::from(which) % self.under_way.len());
        if done {
            let request = lanes.finish(&key);
            self.answer(key, request)
        } else {
            prop_assert_eq!(lanes.ended(&key), Some(()));
            prop_assert_eq!(lanes.ended(&key), None);
            Ok(())
        }
    }
}

proptest! {
    #[test]
    fn every_request_has_its_turn_in_order_and_every_bound_holds(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut lanes = Lanes::new(BOUNDS);
        let mut model = Model::default();
        let (mut taken, mut number) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Push(key) => {
                    number += 1;
                    let of_key = model.waiting.get(&key).map_or(0, VecDeque::len);
                    let all: usize = model.waiting.values().map(VecDeque::len).sum();
                    let due = if all >= BOUNDS.requests {
                        Some(Rejection::Full)
                    } else {
                        (of_key >= BOUNDS.requests_of_a_key).then_some(Rejection::KeyFull)
                    };
                    let rejected = lanes.push(key, number).err();
                    prop_assert_eq!(rejected.as_ref().map(|r| (r.why, r.request)), due.map(|d| (d, number)));
                    if rejected.is_none() {
                        model.waiting.entry(key).or_default().push_back(number);
                        taken.push(number);
                    }
                }
                Step::Chore(key) => {
                    lanes.ask_for_chore(key);
                    model.chores.insert(key, true);
                }
                Step::Turns(at_once) => model.turns(&mut lanes, at_once)?,
                Step::End(which, done) => model.end(&mut lanes, which, done)?,
            }
            prop_assert_eq!(lanes.requests(), model.waiting.values().map(VecDeque::len).sum::<usize>());
        }
        model.turns(&mut lanes, 0)?;
        while !model.under_way.is_empty() {
            model.end(&mut lanes, 0, true)?;
            model.turns(&mut lanes, 0)?;
        }
        prop_assert!(lanes.is_at_rest(), "and nothing is left of them");
        model.answered.sort_unstable();
        prop_assert_eq!(model.answered, taken);
    }
}
