use std::collections::BTreeMap;

use loom_protocol::work::{Evidence, Session, Usage, limits};
use loom_protocol::{Body, WorkId};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::command::{Command, Decision, FailureReport, Fence, Refusal};
use super::super::record::{RawSubmission, WriteId};
use super::*;
use crate::settings::RetrySettings;

pub(in super::super) fn guid(n: u128) -> AgentGuid {
    AgentGuid::new(Uuid::from_u128(n))
}

pub(in super::super) fn holder(n: u128) -> Holder {
    Holder {
        guid: guid(n),
        handle: format!("agent-{n}"),
        agent_type: "test".into(),
        hostname: (n == 1).then(|| "host".into()),
    }
}

pub(in super::super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(in super::super) fn by(n: u128, attempt: u32) -> Fence {
    Fence {
        guid: guid(n),
        attempt: Some(attempt),
        reported_at: at(0),
    }
}

pub(in super::super) fn fresh(max_attempts: u32) -> WorkRecord {
    WorkRecord {
        task_id: "task".into(),
        capability: "c".into(),
        boundary: "default".into(),
        description: "d".into(),
        max_attempts,
        ..WorkRecord::blank(
            WorkId::new(Uuid::from_u128(9)),
            "me",
            at(0),
            BTreeMap::new(),
        )
    }
}

pub(in super::super) fn failure(recoverable: bool, spends: bool) -> FailureReport {
    FailureReport {
        message: "broken".into(),
        code: None,
        recoverable,
        occurred_at: at(1),
        reason: Reason::AgentError,
        spends_attempt: spends,
        not_before: None,
        backoff: backoff(),
    }
}

pub(in super::super) fn backoff() -> Backoff {
    RetrySettings::default().backoff(0.5)
}

pub(in super::super) fn result() -> WorkResult {
    WorkResult {
        summary: Some("done".into()),
        output: Some(Body::from_json("[1]").unwrap()),
        artifacts: None,
        completed_at: at(3),
    }
}

pub(in super::super) fn assign(n: u128) -> Command {
    Command::Assign {
        holder: holder(n),
        claim_id: Some("claim".into()),
        start: false,
    }
}

pub(in super::super) fn complete(n: u128, attempt: u32) -> Command {
    Command::Complete {
        by: by(n, attempt),
        result: result(),
        report: RunReport::default(),
    }
}

pub(in super::super) fn lose(n: u128, attempt: u32, reason: Reason) -> Command {
    let spends_attempt = reason == Reason::AgentLost || reason == Reason::Timeout;
    Command::Revoke {
        guid: guid(n),
        attempt,
        reason,
        spends_attempt,
        backoff: (reason == Reason::Timeout).then(backoff),
    }
}

pub(in super::super) fn release(n: u128, attempt: u32) -> Command {
    Command::Release {
        by: by(n, attempt),
        message: None,
        reason: Reason::Released,
        not_before: None,
        report: RunReport::default(),
    }
}

fn written(decision: Result<Decision, Refusal>) -> WorkRecord {
    match decision.unwrap() {
        Decision::Write(record) => *record,
        Decision::Already => panic!("nothing was written"),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "reads better at the call")]
pub(in super::super) fn then(record: &WorkRecord, command: Command) -> WorkRecord {
    written(command.decide(record, at(10)))
}

pub(in super::super) fn stop(result: Option<WorkResult>) -> Command {
    let by = by(1, 1);
    let report = RunReport::default();
    Command::Stopped { by, result, report }
}

#[test]
fn an_undisturbed_life() {
    let assigned = then(&fresh(3), assign(1));
    assert_eq!(
        (assigned.status, assigned.attempt),
        (WorkStatus::Assigned, 1)
    );
    let started = then(&assigned, Command::Start(by(1, 1)));
    assert_eq!(started.status, WorkStatus::InProgress);
    let completed = then(&started, complete(1, 1));
    assert_eq!(completed.status, WorkStatus::Completed);
    assert_eq!(completed.attempts, 0, "a completion spends nothing");
}

#[test]
fn a_completion_is_accepted_from_assigned_and_only_once() {
    let completed = then(&then(&fresh(3), assign(1)), complete(1, 1));
    let again = complete(1, 1).decide(&completed, at(20));
    assert_eq!(again, Ok(Decision::Already));
    for stranger in [complete(2, 1), complete(1, 2), complete(1, 0)] {
        let refused = stranger.decide(&completed, at(20));
        assert!(matches!(refused, Err(Refusal::Stale { .. })), "{refused:?}");
    }
}

#[test]
fn a_stale_attempt_changes_nothing_after_a_takeover() {
    let first = then(&fresh(3), assign(1));
    let lost = then(
        &first,
        Command::Revoke {
            guid: guid(1),
            attempt: 1,
            reason: Reason::AgentLost,
            spends_attempt: true,
            backoff: None,
        },
    );
    let second = then(&lost, assign(2));
    assert_eq!((second.attempt, second.attempts), (2, 1));
    assert!(matches!(
        complete(1, 1).decide(&second, at(20)),
        Err(Refusal::Stale { .. })
    ));
    assert_eq!(then(&second, complete(2, 2)).status, WorkStatus::Completed);
}

#[test]
fn a_report_without_attempt_counts_only_after_the_assignment() {
    let assigned = then(&fresh(3), assign(1));
    let report = |millis| Command::Complete {
        by: Fence {
            guid: guid(1),
            attempt: None,
            reported_at: at(millis),
        },
        result: result(),
        report: RunReport::default(),
    };
    assert!(report(9).decide(&assigned, at(20)).is_err());
    let completed = then(&assigned, report(10));
    assert_eq!(report(11).decide(&completed, at(20)), Ok(Decision::Already));
}

#[test]
fn failures_spend_attempts_until_none_is_left() {
    let mut record = fresh(2);
    for attempt in 1..=2 {
        record = then(&record, assign(1));
        let command = Command::Fail {
            by: by(1, attempt),
            failure: failure(true, true),
            report: RunReport::default(),
        };
        record = then(&record, command.clone());
        assert_eq!(command.decide(&record, at(20)), Ok(Decision::Already));
    }
    assert_eq!((record.status, record.attempts), (WorkStatus::Failed, 2));
    assert_eq!(record.errors.len(), 2);
}

#[test]
fn what_is_not_recoverable_fails_at_once() {
    let record = then(
        &then(&fresh(3), assign(1)),
        Command::Fail {
            by: by(1, 1),
            failure: failure(false, true),
            report: RunReport::default(),
        },
    );
    assert_eq!((record.status, record.attempts), (WorkStatus::Failed, 1));
}

#[test]
fn a_failure_is_followed_by_a_pause_unless_the_agent_says_when_or_that_it_is_hopeless() {
    let assigned = then(&fresh(5), assign(1));
    let fail = |recoverable, not_before| Command::Fail {
        by: by(1, 1),
        failure: FailureReport {
            not_before,
            ..failure(recoverable, true)
        },
        report: RunReport::default(),
    };
    // The first pause is up to 1 s, and the jitter of these tests a half.
    let again = then(&assigned, fail(true, None));
    assert_eq!(again.not_before, Some(at(10 + 500)));
    let told = then(&assigned, fail(true, Some(at(99_000))));
    assert_eq!(told.not_before, Some(at(99_000)));
    let hopeless = then(&assigned, fail(false, Some(at(99_000))));
    let hopeless = (hopeless.status, hopeless.not_before);
    assert_eq!(hopeless, (WorkStatus::Failed, None));
}

#[test]
fn a_missed_deadline_fails_the_item_wherever_it_stands_but_no_other_attempt() {
    let with_deadline = WorkRecord {
        deadline: Some(at(5)),
        ..fresh(3)
    };
    let assigned = then(&with_deadline, assign(1));
    let miss = |attempt| Command::MissDeadline { attempt };
    for failed in [then(&with_deadline, miss(0)), then(&assigned, miss(1))] {
        assert_eq!(failed.status, WorkStatus::Failed);
        assert_eq!(failed.errors.last().unwrap().reason, Reason::Deadline);
        assert_eq!(failed.attempts, 0, "the attempt is not to blame");
        assert!(miss(1).decide(&failed, at(20)).is_err(), "an end is an end");
    }
    assert!(
        miss(0).decide(&assigned, at(20)).is_err(),
        "it was claimed in between"
    );
    let obeyed = then(&assigned, stop(Some(result())));
    assert_eq!(obeyed.status, WorkStatus::Failed);
    assert_eq!(obeyed.result, Some(result()));
    let in_time = then(&fresh(3), assign(1));
    assert!(stop(None).decide(&in_time, at(20)).is_err());
}

fn session() -> Session {
    Session {
        agent_type: "claude-code".into(),
        id: "7c1e".into(),
        host_id: "h-1".into(),
        hostname: "host".into(),
        agent_guid: Some(guid(1)),
        store: "ab12".into(),
        path: None,
    }
}

fn evidence() -> Evidence {
    Evidence {
        name: "tests".into(),
        command: "cargo test".into(),
        exit_code: 101,
        duration_ms: 1_200,
        output_tail: "boom".into(),
        at: at(4),
        attempt: 1,
        commit: Some("abc123".into()),
        dirty: Some(true),
    }
}

pub(crate) fn any_record() -> impl Strategy<Value = WorkRecord> {
    (any_history(), any::<u64>(), any::<bool>()).prop_map(|(commands, created, rich)| {
        let mut record = fresh(2);
        record.created = created;
        record.write_id = WriteId {
            epoch: created,
            counter: 3,
        };
        if rich {
            record.labels = BTreeMap::from([("k".into(), "v".into())]);
            record.context_data = Some(Body::from_json(r#"{"x":1}"#).unwrap());
            record.deadline = Some(at(77));
            record.usage = Some(Usage {
                tokens: Some(1),
                cost_usd: Some(0.125),
                ..Usage::default()
            });
            record.usage_before = record.usage.clone();
            record.session = Some(session());
            record.evidence = vec![evidence()];
            record.retries = 2;
            record.auto_retries = 1;
            record.raw = Some(RawSubmission {
                bytes: b"\xff{".as_slice().into(),
                size: 7,
            });
            record.preferred_agent_type = Some("p".into());
            record.parent_id = Some(WorkId::new(Uuid::from_u128(8)));
        }
        play(&mut record, &commands);
        record
    })
}

pub(in super::super) fn any_history() -> impl Strategy<Value = Vec<Command>> {
    let fence = (1u128..3, 0u32..6).prop_map(|(n, attempt)| by(n, attempt));
    let command = prop_oneof![
        4 => (1u128..3, any::<bool>()).prop_map(|(n, start)| Command::Assign {
            holder: holder(n), claim_id: None, start
        }),
        2 => (1u128..3, 0u32..6, any::<bool>()).prop_map(|(n, attempt, start)| Command::Resume {
            holder: holder(n), attempt, claim_id: None, start
        }),
        2 => fence.clone().prop_map(Command::Start),
        2 => (fence.clone(), any::<bool>()).prop_map(|(by, message)| Command::Progress {
            by, progress: Some(1.5), message: message.then(|| "m".into()), report: RunReport::default()
        }),
        1 => fence.clone().prop_map(|by| Command::Complete { by, result: result(), report: RunReport::default() }),
        2 => (fence.clone(), any::<bool>(), any::<bool>()).prop_map(|(by, recoverable, spends)|
            Command::Fail { by, failure: failure(recoverable, spends), report: RunReport::default() }),
        2 => fence.clone().prop_map(|by| Command::Release {
            by, message: None, reason: Reason::UsageLimit, not_before: Some(at(50)),
            report: RunReport::default()
        }),
        2 => (1u128..3, 0u32..6, any::<bool>()).prop_map(|(n, attempt, spends_attempt)| Command::Revoke {
            guid: guid(n), attempt, spends_attempt,
            reason: if spends_attempt { Reason::AgentLost } else { Reason::NotStarted },
            backoff: spends_attempt.then(backoff),
        }),
        1 => (0u32..6).prop_map(|attempt| Command::MissDeadline { attempt }),
        1 => Just(Command::Cancel { by: "me".into(), reason: Some("because".into()), again: false }),
        1 => fence.clone().prop_map(Command::CancelDelivered),
        1 => (fence, any::<bool>()).prop_map(|(by, has_result)| Command::Stopped {
            by, result: has_result.then(result), report: RunReport::default()
        }),
    ];
    prop::collection::vec(command, 0..24)
}

pub(in super::super) fn play(record: &mut WorkRecord, commands: &[Command]) {
    for command in commands {
        if let Ok(Decision::Write(next)) = command.decide(record, at(10)) {
            *record = *next;
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_the_rules_hold(commands in any_history()) {
        let mut record = fresh(2);
        for command in &commands {
            let before = record.clone();
            match command.decide(&record, at(10)) {
                Ok(Decision::Write(next)) => record = *next,
                Ok(Decision::Already) | Err(_) => continue,
            }
            prop_assert!(record.attempt >= before.attempt, "the fence fell");
            let kept = match (command, &before.loss) {
                (Command::Complete { .. } | Command::Resume { .. }, Some(loss)) => loss.attempts,
                _ => before.attempts,
            };
            prop_assert_eq!(record.attempts.min(before.attempts), kept);
            prop_assert!(record.attempts <= record.max_attempts);
            prop_assert!(record.errors.len() <= limits::ERRORS);
            if before.status.is_terminal() {
                prop_assert_eq!(record.status, before.status, "an end is an end");
            }
            if record.status.is_leased() {
                prop_assert!(record.lease.is_some());
            }
            if record.status == WorkStatus::Failed && before.lease.is_some() {
                prop_assert_eq!(&record.lease, &before.lease, "who had it last stays named");
            }
            if record.status == WorkStatus::Pending {
                prop_assert!(record.lease.is_none());
                prop_assert!(record.attempts < record.max_attempts);
            } else {
                prop_assert_eq!(&record.loss, &None, "somebody has it, or nobody ever will");
            }
            prop_assert_eq!(
                record.attempt > before.attempt,
                matches!(command, Command::Assign { .. } | Command::Resume { .. }),
                "only a claim raises the fence"
            );
        }
    }

    #[test]
    fn asking_twice_is_asking_once(commands in any_history()) {
        let mut record = fresh(2);
        for command in &commands {
            play(&mut record, std::slice::from_ref(command));
            let once = record.clone();
            let repeats = !matches!(command, Command::Progress { .. } | Command::Assign { .. });
            if repeats {
                play(&mut record, std::slice::from_ref(command));
                prop_assert_eq!(&record, &once);
            }
        }
    }
}
