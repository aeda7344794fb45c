//! A target's record under whatever happens in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loom_protocol::target::{
    Mechanism, RawConfig, RegisterTarget, SpinUpOperation, SpinUpStatus, Target,
};
use loom_protocol::{AgentGuid, SpinUpId, TargetId, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(30);
const MOST: u32 = 2;

pub(super) fn target(max_agents: u32) -> Target {
    let local = serde_json::json!({"command": "agent"});
    let request = RegisterTarget {
        name: "t".into(),
        agent_type: "codex".into(),
        capabilities: vec!["rust".into(), "go".into()],
        mechanism: Some(Mechanism::Local),
        config: Some(serde_json::from_value::<RawConfig>(local).unwrap()),
        max_agents: Some(max_agents),
        ..RegisterTarget::default()
    };
    let id = TargetId::new(Uuid::from_u128(1));
    request
        .check()
        .unwrap()
        .into_target(id, "test".into(), Timestamp::from_millis(0))
}

pub(super) fn birth(number: u8) -> Birth<u8> {
    Birth {
        operation: SpinUpOperation {
            operation_id: SpinUpId::new(Uuid::from_u128(u128::from(number) + 1)),
            target_id: TargetId::new(Uuid::from_u128(1)),
            target_name: "t".into(),
            mechanism: Mechanism::Local,
            status: SpinUpStatus::Pending,
            need: None,
            work_item_id: None,
            agent_guid: None,
            error: None,
            output: None,
            started_at: Timestamp::from_millis(0),
            ended_at: None,
        },
        ticket: TicketTerms {
            digest: digest(number),
            agent_type: "codex".into(),
            capabilities: vec!["rust".into(), "go".into()],
            boundaries: vec!["default".into()],
        },
        reference: None,
        place: None,
        begun_again_at: None,
    }
}

fn digest(number: u8) -> TicketDigest {
    [number; 32]
}

pub(super) fn guid(number: u8) -> AgentGuid {
    AgentGuid::new(Uuid::from_u128(u128::from(number) + 100))
}

/// What may happen to a target. Numbers are starts, agents and runs.
#[derive(Debug, Clone)]
enum Step {
    Begin(u8),
    Started(u8),
    BeginAgain(u8),
    Register {
        start: u8,
        agent: u8,
        run: Option<&'static str>,
    },
    GiveUp(u8),
    Unlink(u8),
    Switch(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let run = prop::option::of(prop::sample::select(vec!["one", "two"]));
    prop_oneof![
        3 => (0..4u8).prop_map(Step::Begin),
        1 => (0..4u8).prop_map(Step::Started),
        1 => (0..4u8).prop_map(Step::BeginAgain),
        4 => (0..4u8, 0..3u8, run)
            .prop_map(|(start, agent, run)| Step::Register { start, agent, run }),
        1 => (0..4u8).prop_map(Step::GiveUp),
        1 => (0..3u8).prop_map(Step::Unlink),
        1 => any::<bool>().prop_map(Step::Switch),
    ]
}

fn newborn<'a>(agent: u8, run: Option<&'a str>, capabilities: &'a [String]) -> Newborn<'a> {
    Newborn {
        guid: guid(agent),
        instance_id: run,
        agent_type: "codex",
        capabilities,
        boundaries: &[],
    }
}

proptest! {
    /// "No two births of one ticket", "never more agents of a target than allowed", "no start for a disabled target".
    #[test]
    fn a_ticket_is_one_agents_and_a_target_has_no_more_than_it_may(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let capabilities = ["rust".to_owned()];
        let mut record = TargetRecord::new(target(MOST));
        let mut decided: BTreeMap<u8, DecidedBirth<u8>> = BTreeMap::new();
        let mut begun = BTreeSet::new();
        let mut owner: BTreeMap<u8, (u8, Option<&str>)> = BTreeMap::new();
        let mut now = Timestamp::from_millis(0);
        for step in steps {
            now = now.after(Duration::from_secs(20));
            let id = |start: u8| birth(start).operation.operation_id;
            match step {
                Step::Begin(start) if begun.contains(&start) => {}
                Step::Begin(start) => {
                    let condition = record.condition(false);
                    let next = record.begin(birth(start), false, false, now);
                    prop_assert_eq!(next.is_ok(), may_start(&condition, now).is_ok());
                    if let Ok(next) = next {
                        prop_assert!(condition.is_enabled);
                        begun.insert(start);
                        record = next;
                    }
                }
                Step::Started(start) => {
                    record = record.started(id(start), start, now).unwrap_or(record);
                }
                Step::BeginAgain(start) => {
                    let again = record.begin_again(id(start), digest(start), now);
                    if let Some(next) = again {
                        prop_assert!(!decided.contains_key(&start));
                        record = next;
                    }
                }
                Step::Register { start, agent, run } => {
                    let newborn = newborn(agent, run, &capabilities);
                    let outcome = match decided.get(&start) {
                        Some(earlier) if !record.agents.iter().any(|a| a.ticket.digest == digest(start)) => {
                            record.redeem_late(earlier, &newborn, now).map(Some)
                        }
                        _ => record.redeem(&digest(start), &newborn, now),
                    };
                    match outcome {
                        Ok(Some((next, end))) => {
                            prop_assert!(begun.contains(&start));
                            prop_assert_eq!(end.operation.status, SpinUpStatus::Success);
                            let first = owner.entry(start).or_insert((agent, run));
                            prop_assert_eq!(*first, (agent, run), "two births of one ticket");
                            decided.insert(start, end);
                            record = next;
                        }
                        Ok(None) => prop_assert_eq!(owner.get(&start), Some(&(agent, run))),
                        Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
                    }
                }
                Step::GiveUp(start) => {
                    let end = (SpinUpStatus::Timeout, "nobody came", None);
                    if let Some((next, end)) = record.given_up(id(start), end, COOLDOWN, now) {
                        prop_assert!(next.cools_until > Some(now));
                        prop_assert!(decided.insert(start, end).is_none(), "decided twice");
                        record = next;
                    }
                }
                Step::Unlink(agent) => record = record.unlink(guid(agent), now).unwrap_or(record),
                Step::Switch(on) => record = record.switched(on, now).unwrap_or(record),
            }
            let condition = record.condition(false);
            prop_assert!(condition.agents <= MOST);
            let linked: Vec<_> = record.agents.iter().map(|agent| agent.guid).collect();
            prop_assert_eq!(&record.target.current_agent_guids, &linked);
            let apart: BTreeSet<_> = linked.iter().collect();
            prop_assert_eq!(apart.len(), linked.len(), "one agent twice");
            for birth in &record.births {
                prop_assert!(!birth.operation.status.is_over());
                prop_assert_eq!(
                    birth.reference.is_some(),
                    birth.operation.status == SpinUpStatus::InProgress
                );
            }
        }
    }
}

#[test]
fn an_agent_that_is_more_than_it_was_started_as_is_not_born() {
    let now = Timestamp::from_millis(0);
    let record = TargetRecord::new(target(1))
        .begin(birth(1), false, false, now)
        .unwrap();
    let own = ["rust".to_owned()];
    let beyond = ["rust".to_owned(), "deploy".to_owned()];
    let elsewhere = ["production".to_owned()];
    let honest = newborn(1, None, &own);
    for liar in [
        Newborn {
            agent_type: "other",
            ..honest
        },
        Newborn {
            capabilities: &beyond,
            ..honest
        },
        Newborn {
            boundaries: &elsewhere,
            ..honest
        },
    ] {
        let refused = record.redeem(&digest(1), &liar, now).unwrap_err();
        assert!(
            matches!(refused, TicketRefusal::OtherThan { .. }),
            "{refused}"
        );
    }
    assert!(record.redeem(&digest(1), &honest, now).is_ok());
    assert_eq!(
        record.redeem(&digest(2), &honest, now),
        Err(TicketRefusal::Unknown)
    );
}

#[test]
fn a_target_that_fails_rests_longer_each_time_and_no_longer_than_sixteen_times() {
    let mut now = Timestamp::from_millis(0);
    let mut record = TargetRecord::new(target(1));
    let mut rests = Vec::new();
    for number in 0..7 {
        record = record.begin(birth(number), false, true, now).unwrap();
        let id = birth(number).operation.operation_id;
        let end = (SpinUpStatus::Failed, "no such command", None);
        record = record.given_up(id, end, COOLDOWN, now).unwrap().0;
        rests.push(record.cools_until.unwrap().since(now).as_secs());
        assert_eq!(
            record.begin(birth(99), false, false, now),
            Err(TargetRule::CoolingDown)
        );
        now = now.after(Duration::from_hours(1));
    }
    assert_eq!(rests, [30, 60, 120, 240, 480, 480, 480]);
    let on_again = record
        .switched(false, now)
        .unwrap()
        .switched(true, now)
        .unwrap();
    assert_eq!(on_again.cools_until, None);
}

/// The crash comes between the two writes of an end: what the second one would have written is written later.
#[test]
fn an_end_that_was_written_leaves_the_record_as_if_nothing_had_come_between() {
    let now = Timestamp::from_millis(5000);
    let record = TargetRecord::new(target(2))
        .begin(birth(1), false, false, now)
        .and_then(|record| record.begin(birth(2), false, false, now))
        .unwrap();
    let own = ["rust".to_owned()];
    let newborn = newborn(7, Some("one"), &own);
    let (next, end) = record.redeem(&digest(1), &newborn, now).unwrap().unwrap();
    assert_eq!(record.settled(&end, COOLDOWN, now), Some(next.clone()));
    assert_eq!(next.settled(&end, COOLDOWN, now), None, "it has left");
    let id = birth(2).operation.operation_id;
    let failed = (
        SpinUpStatus::Failed,
        "no such command",
        Some("output".to_owned()),
    );
    let (next, end) = record.given_up(id, failed, COOLDOWN, now).unwrap();
    // What was said last is told with the error, and once only.
    let why = "no such command; it said: output";
    assert_eq!(end.operation.error.as_deref(), Some(why));
    assert_eq!(next.target.last_error.as_deref(), Some(why));
    assert_eq!(record.settled(&end, COOLDOWN, now), Some(next));
}

/// What takes a place among the starts that may be under way is what goes on, and clients see since when it is wanted.
#[test]
fn a_start_that_is_begun_again_is_begun_then_and_started_when_it_was_decided_on() {
    let at = Timestamp::from_millis;
    let record = TargetRecord::new(target(1))
        .begin(birth(1), false, false, at(0))
        .unwrap();
    let id = birth(1).operation.operation_id;
    assert_eq!(record.births[0].begun_at(), at(0));
    let record = record.begin_again(id, digest(7), at(60_000)).unwrap();
    let begun = &record.births[0];
    assert_eq!(begun.begun_at(), at(60_000));
    assert_eq!(begun.operation.started_at, at(0));
    assert_eq!(begun.ticket.digest, digest(7));
}

#[test]
fn an_agent_that_was_quicker_than_its_reference_is_found_by_it_all_the_same() {
    let now = Timestamp::from_millis(0);
    let record = TargetRecord::new(target(1))
        .begin(birth(1), false, false, now)
        .unwrap();
    let own = ["rust".to_owned()];
    let born = record.redeem(&digest(1), &newborn(7, None, &own), now);
    let (record, _) = born.unwrap().unwrap();
    let id = birth(1).operation.operation_id;
    let record = record.started(id, 42, now).unwrap();
    assert_eq!(record.agents[0].reference, Some(42));
    assert_eq!(record.started(id, 43, now), None, "it is known");
}
