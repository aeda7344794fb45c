use loom_protocol::TargetId;
use loom_protocol::target::{RegisterTarget, TargetUpdates};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn record(fields: &Value) -> TargetRecord<Value> {
    let mut body = json!({
        "name": "here", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
    });
    let fields = fields.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    let request: RegisterTarget = serde_json::from_value(body).unwrap();
    let new = request.check().unwrap();
    TargetRecord::new(new.into_target(TargetId::generate(), "a test".into(), at(0)))
}

fn checkup(record: &TargetRecord<Value>, error: Option<&str>, seconds: i64) -> Checkup {
    Checkup {
        of: record.target.config.clone(),
        status: match error {
            None => HealthStatus::Healthy,
            Some(_) => HealthStatus::Unhealthy,
        },
        error: error.map(ToOwned::to_owned),
        at: at(seconds),
    }
}

#[test]
fn a_change_is_written_at_once_and_nothing_new_never() {
    let new = record(&json!({}));
    let well = new.checked(&checkup(&new, None, 1)).unwrap();
    assert_eq!(well.target.health_status, HealthStatus::Healthy);
    assert_eq!(well.target.last_health_check, Some(at(1)));
    assert_eq!(
        well.target.updated_at, new.target.updated_at,
        "nobody has changed it"
    );
    for seconds in [2, 60, 86_400] {
        assert_eq!(well.checked(&checkup(&well, None, seconds)), None);
    }
    let ill = well.checked(&checkup(&well, Some("no route"), 3)).unwrap();
    assert_eq!(ill.target.last_error.as_deref(), Some("no route"));
    assert_eq!(ill.checked(&checkup(&ill, Some("no route"), 86_400)), None);
    let again = ill.checked(&checkup(&ill, None, 5)).unwrap();
    assert_eq!(
        (again.target.health_status, again.target.last_error),
        (HealthStatus::Healthy, None)
    );
}

#[test]
fn an_error_that_is_another_one_each_time_is_written_seldom() {
    let mut record = record(&json!({}));
    let mut writes = 0;
    for minute in 1..=600_i64 {
        let error = format!("try {minute} took too long");
        if let Some(next) = record.checked(&checkup(&record, Some(&error), minute * 60)) {
            record = next;
            writes += 1;
        }
    }
    assert_eq!(writes, 60, "every ten minutes");
}

#[test]
fn the_error_of_a_failed_start_is_left_to_the_next_start() {
    let mut failed = record(&json!({}));
    failed.target.last_error = Some("the agent ended".into());
    let well = failed.checked(&checkup(&failed, None, 1)).unwrap();
    assert_eq!(well.target.last_error.as_deref(), Some("the agent ended"));
}

#[test]
fn what_was_seen_of_another_configuration_says_nothing_and_is_forgotten() {
    let here = record(&json!({}));
    let ill = here.checked(&checkup(&here, Some("gone"), 1)).unwrap();
    let other: TargetUpdates = serde_json::from_value(json!({"command": "run2"})).unwrap();
    let other = ill.updated(&other, at(2)).unwrap().unwrap();
    assert_eq!(other.target.health_status, HealthStatus::Unknown);
    assert_eq!(other.target.last_error, None);
    assert_eq!(other.checked(&checkup(&here, None, 3)), None);
    let same: TargetUpdates = serde_json::from_value(json!({"maxAgents": 3})).unwrap();
    let same = ill.updated(&same, at(2)).unwrap().unwrap();
    assert_eq!(same.target.health_status, HealthStatus::Unhealthy);
}

#[test]
fn it_is_looked_at_where_that_is_wanted_or_it_is_ill_and_never_where_it_is_off() {
    let minute = Some(Duration::from_mins(1));
    let none = record(&json!({}));
    assert_eq!(none.checked_every(), None);
    let ill = none.checked(&checkup(&none, Some("gone"), 1)).unwrap();
    assert_eq!(ill.checked_every(), minute);
    let on = record(&json!({"healthCheck": {"intervalMs": 5000}}));
    assert_eq!(on.checked_every(), Some(Duration::from_secs(5)));
    let off = on.switched(false, at(1)).unwrap();
    assert_eq!(off.checked_every(), None);
    let not = record(&json!({"healthCheck": {"enabled": false, "timeoutMs": 90_000}}));
    assert_eq!(not.checked_every(), None);
    assert_eq!(
        not.look_limit(Duration::from_secs(30)),
        Duration::from_secs(30)
    );
}

proptest! {
    #[test]
    fn whatever_the_looks_say_the_record_says_the_last_of_them(
        looks in proptest::collection::vec((proptest::option::of("[a-c]"), 1..2000_i64), 1..40),
    ) {
        let mut record = record(&json!({}));
        let (mut now, mut writes) = (0, 0);
        let mut changes = 0;
        let mut last = HealthStatus::Unknown;
        for (error, pause) in looks {
            now += pause;
            let look = checkup(&record, error.as_deref(), now);
            changes += usize::from(look.status != last);
            last = look.status;
            if let Some(next) = record.checked(&look) {
                writes += 1;
                record = next;
            }
            prop_assert_eq!(record.target.health_status, last);
            prop_assert_eq!(record.target.last_error.is_some(), last == HealthStatus::Unhealthy);
        }
        let seldom = usize::try_from(now / 600).unwrap() + 1;
        prop_assert!(writes <= changes + seldom);
    }

    #[test]
    fn an_error_of_any_length_is_kept_in_part(error in "\\PC{0,2000}") {
        let here = record(&json!({}));
        let ill = here.checked(&checkup(&here, Some(&error), 1)).unwrap();
        let kept = ill.target.last_error.unwrap();
        prop_assert!(kept.len() <= LONGEST_ERROR && error.starts_with(&kept));
    }
}
