use loom_protocol::ErrorCode;
use loom_protocol::work::WorkStatus;

use super::super::world::Tale;
use super::{COMPLETE, breaks};
use crate::history::Rule;

#[test]
fn an_accepted_item_that_is_gone() {
    breaks(Rule::NoEnd, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        if !broken {
            tale.end(item, WorkStatus::Completed, 1);
        }
    });
}

#[test]
fn an_item_that_never_ends() {
    breaks(Rule::NoEnd, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.unanswered(0, item, 1, COMPLETE);
        let status = if broken {
            WorkStatus::InProgress
        } else {
            WorkStatus::Completed
        };
        tale.end(item, status, 1);
    });
}

#[test]
fn a_submit_without_an_answer_may_be_lost() {
    let mut tale = Tale::new();
    tale.submit_unanswered();
    let verdict = tale.check();
    assert!(verdict.is_sound(), "{verdict}");
}

#[test]
fn an_item_that_is_there_twice() {
    breaks(Rule::Phantom, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        for _ in 0..=usize::from(broken) {
            tale.end(item, WorkStatus::Completed, 1);
        }
    });
}

#[test]
fn an_item_that_nobody_submitted() {
    breaks(Rule::Phantom, |tale, broken| {
        let item = if broken {
            Tale::unknown_item()
        } else {
            tale.submit(5)
        };
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn an_answered_completion_that_is_not_recorded() {
    breaks(Rule::WrongEnd, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        let status = if broken {
            WorkStatus::Failed
        } else {
            WorkStatus::Completed
        };
        tale.end(item, status, 1);
    });
}

#[test]
fn an_answered_cancellation_that_is_not_recorded() {
    breaks(Rule::WrongEnd, |tale, broken| {
        let item = tale.submit(5);
        tale.cancel(item);
        let status = if broken {
            WorkStatus::Failed
        } else {
            WorkStatus::Cancelled
        };
        tale.end(item, status, 0);
    });
}

#[test]
fn a_refused_completion_that_is_recorded() {
    breaks(Rule::WrongEnd, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        if broken {
            tale.refused(0, item, 1, COMPLETE, ErrorCode::TooLarge);
        } else {
            tale.unanswered(0, item, 1, COMPLETE);
        }
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn a_cancellation_that_nobody_asked_for() {
    breaks(Rule::WrongEnd, |tale, broken| {
        let item = tale.submit(5);
        if !broken {
            tale.cancel(item);
        }
        tale.end(item, WorkStatus::Cancelled, 0);
    });
}
