//! The roster against a walk through every record, and what it looks at by the number of its steps.

use loom_protocol::TargetId;
use loom_protocol::target::{HealthStatus, RegisterTarget, SpinUpOperation};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::targets::testing::operation;
use crate::domain::targets::{Birth, LinkedAgent, TicketTerms, serves};

type Record = TargetRecord<()>;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn names(least: usize) -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(&NAMES[..]).prop_map(String::from);
    prop::collection::vec(name, least..3)
}

fn need() -> impl Strategy<Value = Need> {
    let name = || prop::sample::select(&NAMES[..]).prop_map(Arc::from);
    (name(), name(), prop::option::of(name())).prop_map(
        |(capability, boundary, required_agent_type)| Need {
            capability,
            boundary,
            required_agent_type,
        },
    )
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn blank(capabilities: &[String], boundaries: &[String], agent_type: &str) -> Record {
    let request: RegisterTarget = serde_json::from_value(json!({
        "name": "t", "agentType": agent_type, "capabilities": capabilities,
        "boundaries": boundaries, "mechanism": "local", "command": "run", "maxAgents": 3,
    }))
    .unwrap();
    let new = request.check().unwrap();
    TargetRecord::new(new.into_target(TargetId::generate(), "a test".into(), at(0)))
}

fn ticket(target: &loom_protocol::target::Target, boundary: &str) -> TicketTerms {
    let need = loom_protocol::target::Need {
        capability: "a".into(),
        boundary: boundary.into(),
        required_agent_type: None,
    };
    TicketTerms::of(target, Some(&need), [0; 32])
}

fn with_birth(record: &mut Record, id: u128, started: i64, boundary: &str) {
    let target = &record.target;
    record.births.push(Birth {
        operation: SpinUpOperation {
            target_id: target.id,
            started_at: at(started),
            ..operation(SpinUpId::new(Uuid::from_u128(id)))
        },
        ticket: ticket(target, boundary),
        reference: None,
        place: None,
        begun_again_at: None,
    });
}

fn with_agent(record: &mut Record, id: u128, guid: u8, boundary: &str) {
    record.agents.push(LinkedAgent {
        guid: AgentGuid::new(Uuid::from_u128(u128::from(guid) + 1)),
        instance_id: None,
        operation_id: SpinUpId::new(Uuid::from_u128(id)),
        ticket: ticket(&record.target, boundary),
        reference: None,
        born_at: at(0),
    });
}

prop_compose! {
    fn record()(
        capabilities in names(1), boundaries in names(0), agent_type in prop::sample::select(&NAMES[..]),
        (disabled, unhealthy) in (prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
        births in prop::collection::vec((0..9i64, prop::sample::select(&NAMES[..])), 0..3),
        agents in prop::collection::vec(
            (0..4u8, prop::sample::select(&NAMES[..]), any::<bool>()), 0..3,
        ),
        most in 1..4u32,
        cools in prop::option::of(5..15i64), used in prop::option::of(0..9i64),
        group in prop::option::of(prop::sample::select(&NAMES[..])),
        ids in any::<u64>(),
    ) -> Record {
        let mut record = blank(&capabilities, &boundaries, agent_type);
        let target = &mut record.target;
        if disabled {
            target.status = TargetStatus::Disabled;
        }
        if unhealthy {
            target.health_status = HealthStatus::Unhealthy;
        }
        target.last_used_at = used.map(at);
        target.limit_group = group.map(String::from);
        target.max_agents = most;
        record.cools_until = cools.map(at);
        let base = u128::from(ids) << 8;
        for (n, (started, boundary)) in (0..).zip(births) {
            with_birth(&mut record, base + n, started, boundary);
        }
        for (n, (guid, boundary, has_run)) in (100..).zip(agents) {
            with_agent(&mut record, base + n, guid, boundary);
            let linked = record.agents.last_mut().unwrap();
            linked.instance_id = has_run.then(|| "run".into());
        }
        record
    }
}

proptest! {
    #[test]
    fn the_roster_says_what_a_walk_through_every_record_says(
        before in prop::collection::vec(record(), 0..8),
        after in prop::collection::vec(record(), 0..8),
        changes in prop::collection::vec(prop::option::of(any::<[bool; 9]>()), 8),
        need in need(),
        preferred in prop::option::of(prop::sample::select(&NAMES[..])),
        (looked, now) in (0..16i64, 0..16i64),
    ) {
        let now = at(now);
        let mut roster = Roster::default();
        for (key, record) in before.iter().enumerate() {
            roster.replace(&key, None, Some(record));
        }
        roster.release(at(looked));
        for (key, record) in before.iter().enumerate() {
            roster.replace(&key, Some(record), None);
        }
        prop_assert!(roster.is_empty());
        for (key, record) in before.iter().enumerate() {
            roster.replace(&key, None, Some(record));
        }
        // Some change in part, and are what they were otherwise.
        let changed = |(key, after): (usize, &Record)| match (before.get(key), changes[key]) {
            (Some(before), Some(taken)) => mixed(before, after, taken),
            _ => after.clone(),
        };
        let records: Vec<Record> = after.iter().enumerate().map(changed).collect();
        roster.release(at(looked));
        for key in 0..before.len().max(records.len()) {
            roster.replace(&key, before.get(key), records.get(key));
        }
        roster.release(at(looked));
        roster.release(now);
        prop_assert!(!roster.is_to_release(now));
        let serving = |key: &usize| {
            serves(&TargetProfile::from(&records[*key].target), &need).is_ok()
        };
        let may = |key: &usize| may_start(&records[*key].condition(false), now).is_ok();
        let mut able: Vec<usize> = (0..records.len()).filter(serving).filter(may).collect();
        able.sort_by_key(|key| (records[*key].target.last_used_at, *key));
        let is_preferred = |key: &&usize| Some(&*records[**key].target.agent_type) == preferred;
        let expected: Vec<usize> = able.iter().filter(is_preferred).chain(&able).copied().collect();
        let preferred = preferred.map(Arc::from);
        let preferred = preferred.as_ref();
        let found: Vec<usize> =
            roster.choice.lists(&need, preferred).flatten().copied().collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(roster.pick(&need, preferred, |_| 0, |_, _| true), expected.first());
        let is_other = |key: &usize, _| Some(key) != expected.first();
        let other = expected.iter().find(|key| is_other(key, 0));
        prop_assert_eq!(roster.pick(&need, preferred, |_| 0, is_other), other);

        let births: BTreeSet<_> = records.iter().flat_map(|record| &record.births)
            .filter(|birth| birth.ticket.serves(&need))
            .map(|birth| (birth.operation.started_at, birth.operation.operation_id))
            .collect();
        let ids: Vec<_> = births.iter().map(|(_, id)| *id).collect();
        prop_assert_eq!(roster.births(&need).collect::<Vec<_>>(), ids);
        let is_known = |guid: AgentGuid, run: BornRun<'_>| {
            guid.to_string().ends_with('1') && run.instance_id.is_some()
        };
        let unknown = records.iter().flat_map(|record| &record.agents)
            .filter(|agent| agent.ticket.serves(&need))
            .filter(|agent| !is_known(agent.guid, agent.run()))
            .count();
        prop_assert_eq!(roster.count_expected(&need, is_known), births.len() + unknown);

        let rests = records.iter().filter(|record| is_able(record))
            .filter_map(|record| record.cools_until).filter(|until| *until > now).min();
        prop_assert_eq!(roster.next_rested(), rests);
        let groups: BTreeSet<&str> =
            records.iter().filter_map(|record| record.target.limit_group.as_deref()).collect();
        prop_assert_eq!(roster.groups().collect::<BTreeSet<_>>(), groups);
    }

    #[test]
    fn wherever_somebody_may_be_missing_since_a_change_is_touched(
        before in record(), other in record(), taken in any::<[bool; 9]>(),
        need in need(), paused in prop::sample::select(&NAMES[..]), now in 0..16i64,
    ) {
        let (now, after) = (at(now), mixed(&before, &other, taken));
        let mut roster = Roster::default();
        roster.replace(&1, None, Some(&before));
        roster.release(now);
        roster.take_touched();
        roster.replace(&1, Some(&before), Some(&after));
        roster.release(now);
        let touched = roster.take_touched();
        let is_touched = touched.named().is_none_or(|mut places| {
            let is_any = |boundary: Option<&Arc<str>>| boundary.is_none_or(|b| *b == need.boundary);
            places.any(|place| *place.0 == need.capability && is_any(place.1))
        });
        let serves_it = |record: &Record| serves(&TargetProfile::from(&record.target), &need).is_ok();
        let may_start = |record: &Record| {
            let is_paused = record.target.limit_group.as_deref() == Some(paused);
            serves_it(record) && may_start(&record.condition(is_paused), now).is_ok()
        };
        let capacity = |record: &Record| if serves_it(record) { capacity(record) } else { 0 };
        let expected = |record: &Record| {
            let births = record.births.iter().map(|birth| &birth.ticket);
            let all = births.chain(record.agents.iter().map(|agent| &agent.ticket));
            all.filter(|ticket| ticket.serves(&need)).count()
        };
        let may_be_missing = (may_start(&after) && !may_start(&before))
            || capacity(&after) > capacity(&before)
            || expected(&after) < expected(&before);
        prop_assert!(is_touched || !may_be_missing);
    }
}

/// A record with what is taken from another one.
fn mixed(record: &Record, other: &Record, taken: [bool; 9]) -> Record {
    let [
        births,
        agents,
        rest,
        status,
        health,
        group,
        most,
        boundaries,
        used,
    ] = taken;
    let (mut mixed, from) = (record.clone(), other.clone());
    if births {
        mixed.births = from.births;
    }
    if agents {
        mixed.agents = from.agents;
    }
    if rest {
        mixed.cools_until = from.cools_until;
    }
    let (target, from) = (&mut mixed.target, from.target);
    if status {
        target.status = from.status;
    }
    if health {
        target.health_status = from.health_status;
    }
    if group {
        target.limit_group = from.limit_group;
    }
    if most {
        target.max_agents = from.max_agents;
    }
    if boundaries {
        target.boundaries = from.boundaries;
    }
    if used {
        target.last_used_at = from.last_used_at;
    }
    mixed
}

/// Of so many targets, each of one of so many capabilities and of every boundary: how many are asked about for one start.
fn asked_about(targets: usize, capabilities: usize) -> usize {
    let mut roster = Roster::default();
    for at in 0..targets {
        let mut record = blank(&[format!("c{}", at % capabilities)], &[], "t");
        with_birth(&mut record, at as u128, 0, "elsewhere");
        roster.replace(&at, None, Some(&record));
    }
    let need = Need {
        capability: "c0".into(),
        boundary: "b".into(),
        required_agent_type: None,
    };
    assert_eq!(roster.count_expected(&need, |_, _| unreachable!()), 0);
    let asked = std::cell::Cell::new(0);
    let planned = |key: &usize| {
        asked.set(asked.get() + 1);
        u32::from(*key == 0)
    };
    assert!(roster.pick(&need, None, planned, |_, _| true).is_some());
    asked.get()
}

#[test]
fn a_choice_asks_about_as_many_targets_of_two_hundred_as_of_ten() {
    let of_ten = asked_about(10, 5);
    assert_eq!(of_ten, 2, "one has a start planned");
    assert_eq!(asked_about(200, 100), of_ten);
    assert_eq!(asked_about(200, 1), of_ten, "that serve the need");
}

#[test]
fn somebody_may_be_missing_where_a_target_opens_or_a_start_fails_and_nowhere_else() {
    let full = |births: u128| {
        let mut record = blank(&["c".into()], &["b".into()], "t");
        for id in 0..births {
            with_birth(&mut record, id, 0, "b");
        }
        record
    };
    let mut roster = Roster::default();
    let mut touched = |before: Option<&Record>, now: Option<&Record>| {
        roster.replace(&1, before, now);
        !roster.take_touched().is_empty()
    };
    let [none, one, three] = [0, 1, 3].map(full);
    assert!(touched(None, Some(&none)), "it is new");
    assert!(!touched(Some(&none), Some(&one)), "it starts an agent");
    assert!(!touched(Some(&one), Some(&three)), "it starts two more");
    let mut born = three.clone();
    let birth = born.births.remove(0);
    born.agents.push(LinkedAgent {
        guid: AgentGuid::generate(),
        instance_id: None,
        operation_id: birth.operation.operation_id,
        ticket: birth.ticket,
        reference: None,
        born_at: at(0),
    });
    assert!(!touched(Some(&three), Some(&born)), "an agent is born");
    let mut failed = born.clone();
    failed.births.pop();
    failed.cools_until = Some(at(9));
    assert!(touched(Some(&born), Some(&failed)), "a start has failed");
    let mut disabled = failed.clone();
    disabled.target.status = TargetStatus::Disabled;
    assert!(!touched(Some(&failed), Some(&disabled)), "it is disabled");
    assert!(touched(Some(&disabled), Some(&failed)), "it is enabled");
    roster.release(at(8));
    assert!(!roster.has_touched(), "it rests");
    roster.release(at(9));
    assert!(roster.has_touched(), "it has rested");
    let mut regrouped = failed.clone();
    regrouped.target.limit_group = Some("other".into());
    roster.take_touched();
    roster.replace(&1, Some(&failed), Some(&regrouped));
    assert!(roster.has_touched(), "another group may not be paused");
    roster.replace(&1, Some(&regrouped), Some(&failed));
    let mut gone = failed.clone();
    gone.agents.clear();
    roster.take_touched();
    roster.replace(&1, Some(&failed), Some(&gone));
    assert!(roster.has_touched(), "an agent has gone");
    roster.replace(&1, Some(&gone), None);
    assert!(roster.is_empty());
}
