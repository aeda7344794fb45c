//! The index against what is found by a walk through every record.

use loom_protocol::target::{RegisterTarget, SpinUpOperation};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::targets::TicketTerms;
use crate::domain::targets::testing::operation;

const TARGETS: u8 = 3;
/// An agent that may be born from any of the targets; the others each from one.
const SHARED: u8 = 0;

fn target_id(number: u8) -> TargetId {
    TargetId::new(Uuid::from_u128(u128::from(number) + 1))
}

fn guid(number: u128) -> AgentGuid {
    AgentGuid::new(Uuid::from_u128(number + 1))
}

fn blank(number: u8) -> Record {
    let request: RegisterTarget = serde_json::from_value(json!({
        "name": "t", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
    }))
    .unwrap();
    let new = request.check().unwrap();
    let now = Timestamp::from_millis(0);
    Record::new(new.into_target(target_id(number), "a test".into(), now))
}

/// A ticket that nobody else has.
fn ticket(record: &Record, of: u128) -> TicketTerms {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&of.to_be_bytes());
    TicketTerms::of(&record.target, None, digest)
}

fn with_birth(record: &mut Record, id: u128, again: u8) {
    let ticket = ticket(record, (id << 8) + u128::from(again));
    record.births.push(Birth {
        operation: SpinUpOperation {
            started_at: Timestamp::from_millis(i64::try_from(id % 4).unwrap()),
            ..operation(SpinUpId::new(Uuid::from_u128(id)))
        },
        ticket,
        reference: None,
        place: None,
        begun_again_at: (again > 0).then(|| Timestamp::from_millis(i64::from(again) + 4)),
    });
}

fn with_agent(record: &mut Record, agent: u128, start: u128) {
    let ticket = ticket(record, start << 8);
    record.agents.push(LinkedAgent {
        guid: guid(agent),
        instance_id: None,
        operation_id: SpinUpId::new(Uuid::from_u128(start)),
        ticket,
        reference: None,
        born_at: Timestamp::from_millis(0),
    });
}

/// What a target may have: starts with how often they were begun again, and agents, some of them by those starts.
fn record(number: u8) -> impl Strategy<Value = Record> {
    let of_target = u128::from(number + 1) << 32;
    let births = prop::collection::btree_map(0..6u128, 0..2u8, 0..5);
    let agents = prop::collection::btree_map(0..6u8, 0..2u128, 0..5);
    (births, agents).prop_map(move |(births, agents)| {
        let mut record = blank(number);
        for (id, again) in births {
            with_birth(&mut record, of_target + id, again);
        }
        for (agent, start) in agents {
            let own = of_target + u128::from(agent);
            let guid = if agent == SHARED { 0 } else { own };
            with_agent(&mut record, guid, own + 100 + (start << 16));
        }
        record
    })
}

fn step() -> impl Strategy<Value = (u8, Option<Record>)> {
    (0..TARGETS).prop_flat_map(|number| (Just(number), prop::option::weighted(0.8, record(number))))
}

proptest! {
    #[test]
    fn the_index_says_what_a_walk_through_every_record_says(
        steps in prop::collection::vec(step(), 0..12),
    ) {
        let mut index = BirthIndex::default();
        let mut records: [Option<Record>; TARGETS as usize] = [const { None }; TARGETS as usize];
        for (number, now) in steps {
            let known = &mut records[usize::from(number)];
            index.replace(known.as_ref(), now.as_ref());
            *known = now;

            let mut walked = BirthIndex::default();
            for record in records.iter().flatten() {
                walked.insert(record.target.id, &record.births, &record.agents);
            }
            prop_assert_eq!(&index.births, &walked.births);
            prop_assert_eq!(&index.begun, &walked.begun);
            prop_assert_eq!(&index.tickets, &walked.tickets);
            prop_assert_eq!(index.agents(), walked.agents());
            for guid in walked.agents.keys() {
                let with_it = |record: &&Record| record.agents.iter().any(|a| a.guid == *guid);
                let has: Vec<TargetId> = records.iter().flatten().filter(with_it)
                    .map(|record| record.target.id).collect();
                let found = index.of_agent(*guid);
                prop_assert!(found.is_some_and(|found| has.contains(&found)), "{found:?} {has:?}");
                let before = index.before.iter().filter(|(of, _)| of == guid).count();
                prop_assert_eq!(before + 1, has.len());
            }
        }
        for known in records.iter().flatten() {
            index.replace(Some(known), None);
        }
        prop_assert_eq!(index, BirthIndex::default());
    }
}

#[test]
fn an_agent_that_was_born_from_another_target_since_is_that_ones_until_it_leaves_it() {
    let with_it = |number: u8| {
        let mut record = blank(number);
        with_agent(&mut record, 0, u128::from(number));
        record
    };
    let [first, second] = [0, 1].map(with_it);
    let mut index = BirthIndex::default();
    index.replace(None, Some(&first));
    index.replace(Some(&blank(1)), Some(&second));
    assert_eq!(index.of_agent(guid(0)), Some(target_id(1)));
    let mut busy = first.clone();
    with_birth(&mut busy, 7, 0);
    index.replace(Some(&first), Some(&busy));
    assert_eq!(
        index.of_agent(guid(0)),
        Some(target_id(1)),
        "another start of its former target does not bring it back"
    );
    index.replace(Some(&second), Some(&blank(1)));
    assert_eq!(index.of_agent(guid(0)), Some(target_id(0)));
    index.replace(Some(&busy), Some(&blank(0)));
    assert_eq!(index.of_agent(guid(0)), None);
}
