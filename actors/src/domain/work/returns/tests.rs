use proptest::prelude::*;

use super::super::command::{Command, Decision};
use super::super::run_report::RunReport;
use super::super::transition::tests::{assign, at, by, fresh, lose, play, release, then};
use super::*;

/// Takes attempts one after the other, as `end` says how each ends, until the item fails; how many
/// attempts were spent after each.
fn until_failed(max: u32, end: impl Fn(&WorkRecord) -> Vec<Command>) -> (Vec<u32>, WorkRecord) {
    let mut record = fresh(max);
    let mut spent = Vec::new();
    while record.status == WorkStatus::Pending {
        record = then(&record, assign(1));
        for command in end(&record) {
            record = then(&record, command);
        }
        spent.push(record.attempts);
    }
    (spent, record)
}

#[test]
fn of_each_kind_of_return_five_are_free_and_the_sixth_and_every_later_one_costs_an_attempt() {
    let as_spent = [0, 0, 0, 0, 0, 1, 2, 3];
    let (spent, released) = until_failed(3, |record| {
        let start = Command::Start(by(1, record.attempt));
        vec![start, release(1, record.attempt)]
    });
    assert_eq!(spent, as_spent);
    assert_eq!(released.failure_reason(), Reason::Released);
    let (spent, unstarted) = until_failed(3, |record| {
        vec![lose(1, record.attempt, Reason::NotStarted)]
    });
    assert_eq!(spent, as_spent);
    assert_eq!(unstarted.failure_reason(), Reason::NotStarted);
}

#[test]
fn the_letter_of_an_item_that_never_ran_says_so_however_it_came_back() {
    let (_, released) = until_failed(1, |record| vec![release(1, record.attempt)]);
    assert_eq!(released.failure_reason(), Reason::NotStarted);
    let (_, left) = until_failed(1, |record| vec![lose(1, record.attempt, Reason::Released)]);
    assert_eq!(left.failure_reason(), Reason::NotStarted);
}

#[test]
fn a_start_forgets_what_was_never_started_and_only_a_retry_forgets_releases() {
    let mut record = fresh(1);
    for round in 0..4 {
        for _ in 0..5 {
            record = then(&record, assign(1));
            record = then(&record, lose(1, record.attempt, Reason::NotStarted));
        }
        assert_eq!(record.unstarted_returns, 5);
        record = then(&record, assign(1));
        record = then(&record, Command::Start(by(1, record.attempt)));
        assert_eq!((record.unstarted_returns, record.releases), (0, round));
        record = then(&record, release(1, record.attempt));
    }
    assert_eq!((record.attempts, record.releases), (0, 4));
    let failed = until_failed(1, |record| vec![release(1, record.attempt)]).1;
    let retry = Command::Retry {
        retries: None,
        reset_attempts: true,
        automatic: false,
    };
    let retried = then(&failed, retry);
    assert_eq!((retried.unstarted_returns, retried.releases), (0, 0));
}

#[test]
fn what_the_agent_says_of_a_return_stands_in_the_items_errors() {
    let says = |record: &WorkRecord| Command::Release {
        by: by(1, record.attempt),
        reason: Reason::Released,
        message: Some("the disk is full".into()),
        not_before: None,
        report: RunReport::default(),
    };
    let mut record = then(&fresh(1), assign(1));
    record = then(&record, says(&record));
    let told = record.errors.last().unwrap();
    assert_eq!((record.attempts, told.reason), (0, Reason::Released));
    assert_eq!(told.message, "released: the disk is full");
    for _ in 0..FREE_RETURNS {
        record = then(&record, assign(1));
        record = then(&record, says(&record));
    }
    assert_eq!((record.status, record.attempts), (WorkStatus::Failed, 1));
    let told = &record.errors.last().unwrap().message;
    assert!(
        told.starts_with("released: the disk is full; the item has come back 6 times"),
        "{told}"
    );
}

#[test]
fn what_is_nobodys_failure_may_happen_as_often_as_it_likes() {
    let mut record = fresh(1);
    for n in 0..300 {
        record = then(&record, assign(1));
        let limit = Command::Release {
            by: by(1, record.attempt),
            reason: [Reason::UsageLimit, Reason::Outage, Reason::Account][n % 3],
            message: None,
            not_before: Some(at(50)),
            report: RunReport::default(),
        };
        record = then(&record, limit);
    }
    assert_eq!((record.attempts, record.releases), (0, 0));
}

/// How an attempt ends that came to nothing.
#[derive(Debug, Clone, Copy)]
enum End {
    NeverStarted,
    Released { started: bool },
    TimedOut,
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => Just(End::NeverStarted),
        2 => any::<bool>().prop_map(|started| End::Released { started }),
        1 => Just(End::TimedOut),
    ]
}

proptest! {
    /// Counted by hand: what each return costs.
    #[test]
    fn what_returns_cost_is_what_the_two_counts_say(ends in prop::collection::vec(any_end(), 0..60)) {
        let mut record = fresh(100);
        let (mut unstarted, mut releases, mut spent) = (0, 0, 0);
        for end in ends {
            record = then(&record, assign(1));
            let attempt = record.attempt;
            let start = Command::Start(by(1, attempt));
            match end {
                End::NeverStarted => {
                    unstarted += 1;
                    spent += u32::from(unstarted > 5);
                    play(&mut record, &[lose(1, attempt, Reason::NotStarted)]);
                }
                End::Released { started } => {
                    releases += 1;
                    spent += u32::from(releases > 5);
                    if started {
                        unstarted = 0;
                        play(&mut record, &[start]);
                    }
                    play(&mut record, &[release(1, attempt)]);
                }
                End::TimedOut => {
                    unstarted = 0;
                    spent += 1;
                    play(&mut record, &[start, lose(1, attempt, Reason::Timeout)]);
                }
            }
            prop_assert_eq!(record.attempts, spent, "{:?} after {:?}", end, record);
            let told = record.errors.last().and_then(|error| error.attempt);
            prop_assert!(spent == 0 || told <= Some(attempt));
        }
    }
}

#[test]
fn a_repeated_release_counts_once() {
    let held = then(&fresh(3), assign(1));
    let released = then(&held, release(1, 1));
    let again = release(1, 1).decide(&released, at(20));
    assert_eq!(again, Ok(Decision::Already));
}
