use loom_protocol::ErrorCode;
use loom_protocol::work::WorkStatus;

use super::super::world::Tale;
use super::{COMPLETE, FAIL, RELEASE, breaks};
use crate::history::{Rule, Verb};

#[test]
fn a_failed_item_without_a_dead_letter() {
    breaks(Rule::DeadLetter, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, FAIL);
        tale.end(item, WorkStatus::Failed, 1);
        if broken {
            tale.letters.clear();
        }
    });
}

#[test]
fn a_failed_item_with_two_dead_letters() {
    breaks(Rule::DeadLetter, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, FAIL);
        tale.end(item, WorkStatus::Failed, 1);
        if broken {
            tale.letters.push(item);
        }
    });
}

#[test]
fn a_dead_letter_of_an_item_that_is_not_failed() {
    breaks(Rule::DeadLetter, |tale, broken| {
        let item = tale.submit(5);
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
        if broken {
            tale.letters.push(item);
        }
    });
}

#[test]
fn dead_letters_that_nobody_looked_at_are_not_judged() {
    let mut tale = Tale::new();
    let item = tale.submit(5);
    tale.claim(0, &[(item, 1)]);
    tale.report(0, item, 1, FAIL);
    tale.end(item, WorkStatus::Failed, 1);
    tale.letters.clear();
    let mut at_the_end = tale.at_the_end();
    at_the_end.dead_letters = None;
    assert!(tale.history.check(&at_the_end).is_sound());
}

#[test]
fn a_lease_that_a_steady_agent_loses() {
    breaks(Rule::LostLease, |tale, broken| {
        let agent = tale.agent(broken);
        let item = tale.submit(5);
        tale.claim(agent, &[(item, 1)]);
        tale.claim(1, &[(item, 2)]);
        tale.refused(agent, item, 1, Verb::Progress, ErrorCode::StaleLease);
        tale.report(1, item, 2, COMPLETE);
        tale.end(item, WorkStatus::Completed, 2);
    });
}

#[test]
fn a_steady_agent_that_ends_its_lease_itself_has_lost_nothing() {
    let mut tale = Tale::new();
    let agent = tale.agent(true);
    let (given_back, called_off) = (tale.submit(5), tale.submit(5));
    tale.claim(agent, &[(given_back, 1), (called_off, 1)]);
    tale.unanswered(agent, given_back, 1, RELEASE);
    tale.refused(agent, given_back, 1, Verb::Progress, ErrorCode::StaleLease);
    tale.cancel(called_off);
    tale.refused(agent, called_off, 1, COMPLETE, ErrorCode::StaleLease);
    tale.claim(1, &[(given_back, 2)]);
    tale.report(1, given_back, 2, COMPLETE);
    tale.end(given_back, WorkStatus::Completed, 2);
    tale.end(called_off, WorkStatus::Cancelled, 1);
    let verdict = tale.check();
    assert!(verdict.is_sound(), "{verdict}");
}
