use proptest::prelude::*;

use super::super::command::Command;
use super::super::record::LeaseEnd;
use super::super::run_report::RunReport;
use super::super::transition::tests::{
    any_history, assign, at, by, complete, failure, fresh, holder, lose, play, release, result,
    then,
};
use super::*;

fn resume(n: u128, attempt: u32) -> Command {
    Command::Resume {
        holder: holder(n),
        attempt,
        claim_id: Some("claim".into()),
        start: true,
    }
}

/// Held by the first agent, started.
fn running() -> WorkRecord {
    let held = then(&fresh(3), assign(1));
    then(&held, Command::Start(by(1, 1)))
}

fn without_attempt(n: u128, reported_at: i64) -> Command {
    Command::Complete {
        by: Fence {
            guid: by(n, 1).guid,
            attempt: None,
            reported_at: at(reported_at),
        },
        result: result(),
        report: RunReport::default(),
    }
}

#[test]
fn a_late_completion_that_nobody_contradicts_is_the_completion() {
    for reason in LOSSES {
        let held = match reason {
            Reason::NotStarted => then(&fresh(3), assign(1)),
            _ => running(),
        };
        let lost = then(&held, lose(1, 1, reason));
        assert_eq!(lost.status, WorkStatus::Pending);
        for report in [complete(1, 1), without_attempt(1, 10)] {
            let done = then(&lost, report.clone());
            assert_eq!(done.status, WorkStatus::Completed, "{reason}");
            assert_eq!((done.attempts, done.unstarted_returns), (0, 0));
            assert_eq!((&done.errors[..], done.pending_reason), (&[][..], None));
            assert_eq!(done.lease, held.lease, "who has done it is said");
            assert_eq!(report.decide(&done, at(20)), Ok(Decision::Already));
        }
    }
}

#[test]
fn everything_else_that_is_late_changes_nothing() {
    let lost = then(&running(), lose(1, 1, Reason::Timeout));
    let late = [
        Command::Start(by(1, 1)),
        Command::Progress {
            by: by(1, 1),
            progress: None,
            message: None,
            report: RunReport::default(),
        },
        Command::Fail {
            by: by(1, 1),
            failure: failure(true, true),
            report: RunReport::default(),
        },
        release(1, 1),
        complete(2, 1),
        complete(1, 0),
        complete(1, 2),
        resume(2, 1),
        resume(1, 0),
        resume(1, 2),
        // Published before the item was assigned, at 10.
        without_attempt(1, 9),
        without_attempt(2, 10),
    ];
    for command in late {
        let refused = command.decide(&lost, at(20));
        assert!(
            matches!(refused, Err(Refusal::Stale { .. })),
            "{command:?}: {refused:?}"
        );
    }
}

#[test]
fn nothing_is_late_but_a_loss_that_nobody_has_overtaken() {
    let running = running();
    let lost = then(&running, lose(1, 1, Reason::AgentLost));
    let cancel = Command::Cancel {
        by: "me".into(),
        reason: None,
        again: false,
    };
    let fail = Command::Fail {
        by: by(1, 1),
        failure: failure(true, true),
        report: RunReport::default(),
    };
    let retry = Command::Retry {
        retries: None,
        reset_attempts: true,
        automatic: false,
    };
    let given_up = then(&then(&fresh(1), assign(1)), lose(1, 1, Reason::Timeout));
    let over = [
        ("claimed by another", then(&lost, assign(2))),
        ("claimed by itself", then(&lost, assign(1))),
        ("had again", then(&lost, resume(1, 1))),
        ("cancelled", then(&lost, cancel)),
        (
            "past its deadline",
            then(&lost, Command::MissDeadline { attempt: 1 }),
        ),
        ("released", then(&running, release(1, 1))),
        ("left", then(&running, lose(1, 1, Reason::Released))),
        ("failed by itself", then(&running, fail)),
        ("given up", given_up.clone()),
        ("retried", then(&given_up, retry)),
    ];
    for (what, record) in over {
        for command in [complete(1, 1), resume(1, 1)] {
            let refused = command.decide(&record, at(20));
            assert!(
                matches!(refused, Err(Refusal::Stale { .. })),
                "{what}: {refused:?}"
            );
        }
    }
}

#[test]
fn an_agent_that_was_away_has_its_item_again_unspent() {
    let lost = then(&running(), lose(1, 1, Reason::Timeout));
    assert_eq!((lost.attempts, lost.errors.len()), (1, 1));
    assert!(lost.not_before.is_some());
    let again = then(&lost, resume(1, 1));
    assert_eq!((again.status, again.attempt), (WorkStatus::InProgress, 2));
    assert_eq!((again.attempts, again.errors.len()), (0, 0));
    assert_eq!(again.not_before, None);
    assert_eq!(then(&again, complete(1, 2)).status, WorkStatus::Completed);
}

/// What a loss leaves of a lease, and what it does not: the progress that was told.
fn as_ended(mut record: WorkRecord) -> WorkRecord {
    record.progress = None;
    record.progress_message = None;
    record
}

proptest! {
    #[test]
    fn a_late_completion_leaves_what_one_in_time_would_have_left(
        history in any_history(),
        reason in prop::sample::select(&LOSSES[..]),
    ) {
        let mut record = fresh(4);
        play(&mut record, &history);
        let Some(lease) = record.lease.clone().filter(|_| record.status.is_leased()) else {
            return Ok(());
        };
        let by = Fence { guid: lease.holder.guid, attempt: Some(record.attempt), reported_at: at(20) };
        let completion = Command::Complete { by, result: result(), report: RunReport::default() };
        let n = u128::from(lease.holder.guid == holder(2).guid) + 1;
        let mut lost = record.clone();
        play(&mut lost, &[lose(n, record.attempt, reason)]);
        if lost.status != WorkStatus::Pending {
            return Ok(());
        }
        let mut late = lost.clone();
        play(&mut late, std::slice::from_ref(&completion));
        let mut in_time = record.clone();
        play(&mut in_time, &[completion]);
        prop_assert_eq!(late.ended_lease.as_ref().map(|ended| ended.end), Some(LeaseEnd::Completed));
        prop_assert_eq!(as_ended(late), as_ended(in_time));
        let mut again = lost;
        play(&mut again, &[resume(n, record.attempt)]);
        prop_assert_eq!(again.attempt, record.attempt + 1);
        prop_assert_eq!((again.attempts, again.releases), (record.attempts, record.releases));
        prop_assert_eq!(again.errors, record.errors);
    }
}
