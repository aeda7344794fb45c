//! The index against a walk through every pending item.

use std::collections::BTreeMap;

use loom_protocol::WorkId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const NAMES: [&str; 2] = ["a", "b"];

fn requirements() -> impl Strategy<Value = Requirements> {
    let name = || prop::sample::select(&NAMES[..]).prop_map(Arc::from);
    let maybe = || prop::option::of(prop::sample::select(&NAMES[..]).prop_map(Arc::from));
    (name(), name(), maybe(), maybe()).prop_map(|(capability, boundary, required, preferred)| {
        Requirements {
            capability,
            boundary,
            required_agent_type: required,
            preferred_agent_type: preferred,
        }
    })
}

fn header(slot: u32, needs: &Requirements, until: i64) -> Header {
    let id = WorkId::new(Uuid::from_u128(slot.into()));
    let until = Timestamp::from_millis(until);
    Header::for_test(id, slot.into(), 5, needs.clone(), until)
}

#[derive(Debug, Clone)]
enum Step {
    /// Into a slot, in the place of what is there.
    Put(u32, Requirements, i64),
    Take(u32),
    Release(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12u32, requirements(), (0..20i64).prop_map(|until| (until - 10).max(0)))
            .prop_map(|(slot, needs, until)| Step::Put(slot, needs, until)),
        2 => (0..12u32).prop_map(Step::Take),
        1 => (0..10i64).prop_map(Step::Release),
    ]
}

proptest! {
    #[test]
    fn the_index_says_what_a_walk_through_every_item_says(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut pending = PendingNeeds::default();
        let mut items: BTreeMap<u32, Header> = BTreeMap::new();
        // Those that may be offered, as they came to be so.
        let mut ready: Vec<u32> = Vec::new();
        for step in steps {
            match step {
                Step::Put(slot, needs, until) => {
                    let header = header(slot, &needs, until);
                    if let Some(before) = items.insert(slot, header.clone()) {
                        pending.remove(&before, slot);
                    }
                    ready.retain(|other| *other != slot);
                    pending.insert(&header, slot);
                    if until == 0 {
                        ready.push(slot);
                    }
                }
                Step::Take(slot) => {
                    if let Some(before) = items.remove(&slot) {
                        pending.remove(&before, slot);
                    }
                    ready.retain(|other| *other != slot);
                }
                Step::Release(now) => {
                    let now = Timestamp::from_millis(now);
                    let mut due: Vec<_> = items.iter()
                        .filter_map(|(slot, header)| Some((header.not_before()?, *slot)))
                        .filter(|(until, slot)| *until <= now && !ready.contains(slot))
                        .collect();
                    due.sort_unstable();
                    let mut released = pending.release(now);
                    let mut expected: Vec<_> =
                        due.iter().map(|(_, slot)| items[slot].needs.clone()).collect();
                    for needs in [&mut released, &mut expected] {
                        needs.sort_unstable();
                        needs.dedup();
                    }
                    prop_assert_eq!(released, expected);
                    ready.extend(due.into_iter().map(|(_, slot)| slot));
                }
            }
            let count = |slots: &[u32]| {
                let mut counts: BTreeMap<Arc<Requirements>, usize> = BTreeMap::new();
                for slot in slots {
                    *counts.entry(items[slot].needs.clone()).or_default() += 1;
                }
                counts
            };
            let all: Vec<u32> = items.keys().copied().collect();
            let owned = |(needs, count): (&Arc<Requirements>, usize)| (needs.clone(), count);
            prop_assert_eq!(pending.all().map(owned).collect::<BTreeMap<_, _>>(), count(&all));
            let counted = count(&ready);
            prop_assert_eq!(pending.ready().map(owned).collect::<BTreeMap<_, _>>(), counted.clone());
            prop_assert!(pending.ready_in(&Places::default()).is_empty());
            prop_assert_eq!(pending.ready_in(&Places::everywhere()).len(), counted.len());
            let next = items.iter().filter(|(slot, _)| !ready.contains(slot))
                .filter_map(|(_, header)| header.not_before()).min();
            prop_assert_eq!(pending.next(), next);
            for needs in items.values().map(|header| &header.needs) {
                let need = Need::from(&**needs);
                let of_need = |slot: &u32| Need::from(&*items[slot].needs) == need;
                let here = Some(&needs.boundary);
                for boundary in [here, None] {
                    let mut places = Places::default();
                    places.add(&needs.capability, boundary);
                    places.add(&needs.capability, here);
                    let is_in = |other: &Requirements| {
                        other.capability == needs.capability
                            && boundary.is_none_or(|boundary| *boundary == other.boundary)
                    };
                    let found: BTreeMap<_, _> = pending.ready_in(&places).into_iter().collect();
                    let walked: BTreeMap<_, _> =
                        counted.clone().into_iter().filter(|(other, _)| is_in(other)).collect();
                    prop_assert_eq!(found, walked);
                }
                let mut oldest: Vec<u32> = pending.oldest_of(&need).collect();
                let mut firsts: BTreeMap<_, u32> = BTreeMap::new();
                for slot in ready.iter().filter(|slot| of_need(slot)) {
                    firsts.entry(items[slot].needs.clone()).or_insert(*slot);
                }
                let mut firsts: Vec<u32> = firsts.into_values().collect();
                oldest.sort_unstable();
                firsts.sort_unstable();
                prop_assert_eq!(oldest, firsts);
            }
        }
    }
}

#[test]
fn a_look_is_told_of_the_need_that_has_changed_and_of_none_of_five_thousand_others() {
    let needs = |number: u32| Requirements {
        capability: format!("c{}", number % 100).into(),
        boundary: format!("b{}", number / 100).into(),
        required_agent_type: None,
        preferred_agent_type: None,
    };
    let mut pending = PendingNeeds::default();
    for number in 0..5_000 {
        pending.insert(&header(number, &needs(number), 0), number);
    }
    assert!(pending.ready_in(&Places::default()).is_empty());
    let changed = needs(4_321);
    pending.insert(&header(5_000, &changed, 0), 5_000);
    let mut places = Places::default();
    places.add(&changed.capability, Some(&changed.boundary));
    let told = pending.ready_in(&places);
    assert_eq!(told, [(Arc::new(changed.clone()), 2)]);
    // A target of every boundary has opened.
    places.add(&changed.capability, None);
    assert_eq!(pending.ready_in(&places).len(), 50);
    assert_eq!(pending.ready_in(&Places::everywhere()).len(), 5_000);
}
