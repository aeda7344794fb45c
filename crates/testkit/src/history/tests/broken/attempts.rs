use loom_protocol::ErrorCode;
use loom_protocol::work::WorkStatus;

use super::super::world::Tale;
use super::{COMPLETE, FAIL, RELEASE, breaks};
use crate::history::{Rule, Verb};

#[test]
fn the_same_attempt_given_to_two() {
    breaks(Rule::Overlap, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.claim(1, &[(item, if broken { 1 } else { 2 })]);
        tale.report(1, item, if broken { 1 } else { 2 }, COMPLETE);
        tale.end(item, WorkStatus::Completed, if broken { 1 } else { 2 });
    });
}

#[test]
fn a_report_of_an_attempt_that_was_over() {
    breaks(Rule::Overlap, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, Verb::Start);
        tale.claim(1, &[(item, 2)]);
        if broken {
            tale.report(0, item, 1, Verb::Progress);
        } else {
            tale.refused(0, item, 1, Verb::Progress, ErrorCode::StaleLease);
        }
        tale.report(1, item, 2, COMPLETE);
        tale.end(item, WorkStatus::Completed, 2);
    });
}

#[test]
fn a_report_that_is_under_way_while_the_next_attempt_is_given_may_count() {
    let mut tale = Tale::new();
    let item = tale.submit(5);
    tale.claim(0, &[(item, 1)]);
    let under_way = tale.open_report(0, item, 1, FAIL);
    tale.claim(1, &[(item, 2)]);
    tale.close(under_way);
    // Repeated, it gets the answer of the first one.
    tale.report(0, item, 1, FAIL);
    tale.report(1, item, 2, COMPLETE);
    tale.end(item, WorkStatus::Completed, 2);
    let verdict = tale.check();
    assert!(verdict.is_sound(), "{verdict}");
}

#[test]
fn a_fence_that_falls() {
    breaks(Rule::Overlap, |tale, broken| {
        let item = tale.submit(5);
        let attempts = if broken { [2, 1] } else { [1, 2] };
        tale.claim(0, &[(item, attempts[0])]);
        tale.claim(1, &[(item, attempts[1])]);
        tale.unanswered(1, item, attempts[1], COMPLETE);
        tale.end(item, WorkStatus::Completed, attempts[1]);
    });
}

#[test]
fn a_completion_of_an_attempt_that_was_over() {
    breaks(Rule::StaleCompletion, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.claim(1, &[(item, 2)]);
        if broken {
            tale.report(0, item, 1, COMPLETE);
            tale.end(item, WorkStatus::Completed, 1);
        } else {
            tale.refused(0, item, 1, COMPLETE, ErrorCode::StaleLease);
            tale.report(1, item, 2, COMPLETE);
            tale.end(item, WorkStatus::Completed, 2);
        }
    });
}

#[test]
fn a_completion_after_a_release() {
    breaks(Rule::StaleCompletion, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        if broken {
            tale.report(0, item, 1, RELEASE);
        }
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn a_completion_after_a_cancellation() {
    breaks(Rule::StaleCompletion, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.cancel(item);
        if broken {
            tale.report(0, item, 1, COMPLETE);
        }
        tale.end(item, WorkStatus::Cancelled, 1);
    });
}

#[test]
fn an_item_that_is_completed_twice() {
    breaks(Rule::DoubleCompletion, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        let under_way = tale.open_report(0, item, 1, COMPLETE);
        tale.claim(1, &[(item, 2)]);
        tale.report(1, item, 2, COMPLETE);
        if broken {
            tale.close(under_way);
        }
        tale.end(item, WorkStatus::Completed, 2);
    });
}

#[test]
fn more_attempts_than_are_allowed() {
    breaks(Rule::TooManyAttempts, |tale, broken| {
        let item = tale.submit(5);
        for attempt in 1..=3 + u32::from(broken) {
            tale.claim(0, &[(item, attempt)]);
            tale.report(0, item, attempt, FAIL);
        }
        tale.end(item, WorkStatus::Failed, 3 + u32::from(broken));
    });
}

#[test]
fn a_completion_that_is_late_and_that_nobody_contradicts_counts_until_somebody_has_the_item() {
    breaks(Rule::StaleCompletion, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        // Its lease is taken back.
        if broken {
            tale.claim(1, &[(item, 2)]);
        }
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1 + u32::from(broken));
    });
}

#[test]
fn a_completion_of_what_somebody_has_again() {
    breaks(Rule::StaleCompletion, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.resume(0, (item, 1), &[(item, 2)]);
        let attempt = if broken { 1 } else { 2 };
        tale.report(0, item, attempt, COMPLETE);
        tale.end(item, WorkStatus::Completed, attempt);
    });
}

#[test]
fn a_completion_that_has_spent_an_attempt() {
    breaks(Rule::TooManyAttempts, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
        tale.items[0].attempts = u32::from(broken);
    });
}

#[test]
fn more_returns_than_can_be_free() {
    breaks(Rule::TooManyAttempts, |tale, broken| {
        let item = tale.submit(5);
        for attempt in 1..=8 + u32::from(broken) {
            tale.claim(0, &[(item, attempt)]);
            tale.report(0, item, attempt, RELEASE);
        }
        tale.end(item, WorkStatus::Failed, 8 + u32::from(broken));
    });
}
