use loom_protocol::ErrorCode;
use loom_protocol::work::WorkStatus;

use super::super::world::Tale;
use super::{COMPLETE, breaks};
use crate::history::{Rule, Verb};

/// Agent 0 runs twice, and the second run is served at last.
fn second_run_is_served(tale: &mut Tale) {
    tale.asks_as("b");
    tale.claim(0, &[]);
}

fn sound(tale: &Tale) {
    let verdict = tale.check();
    assert!(verdict.is_sound(), "{verdict}");
}

#[test]
fn a_report_of_a_replaced_run_that_is_accepted() {
    breaks(Rule::ReplacedRun, |tale, broken| {
        let item = tale.submit(5);
        tale.registers_as(0, "a", true);
        tale.claim(0, &[(item, 1)]);
        tale.registers_as(0, "b", true);
        tale.asks_as(if broken { "a" } else { "b" });
        tale.report(0, item, 1, COMPLETE);
        second_run_is_served(tale);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn a_claim_of_a_replaced_run_that_is_served() {
    breaks(Rule::ReplacedRun, |tale, broken| {
        let item = tale.submit(5);
        tale.registers_as(0, "a", true);
        tale.registers_as(0, "b", true);
        tale.asks_as(if broken { "a" } else { "b" });
        tale.claim(0, &[(item, 1)]);
        tale.asks_as("b");
        tale.report(0, item, 1, COMPLETE);
        second_run_is_served(tale);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn what_was_under_way_when_the_other_run_registered_may_count() {
    let mut tale = Tale::new();
    let item = tale.submit(5);
    tale.registers_as(0, "a", true);
    tale.claim(0, &[(item, 1)]);
    let report = tale.open_report(0, item, 1, COMPLETE);
    tale.registers_as(0, "b", true);
    tale.close(report);
    second_run_is_served(&mut tale);
    tale.end(item, WorkStatus::Completed, 1);
    sound(&tale);
}

#[test]
fn a_refused_report_of_a_replaced_run_and_one_that_names_no_run_are_innocent() {
    let mut tale = Tale::new();
    let item = tale.submit(5);
    tale.registers_as(0, "a", true);
    tale.claim(0, &[(item, 1)]);
    tale.registers_as(0, "b", true);
    tale.asks_as("a");
    tale.refused(0, item, 1, Verb::Progress, ErrorCode::NotRegistered);
    tale.run = None;
    tale.report(0, item, 1, COMPLETE);
    second_run_is_served(&mut tale);
    tale.end(item, WorkStatus::Completed, 1);
    sound(&tale);
}

#[test]
fn a_registration_that_nobody_answered_proves_nothing() {
    let mut tale = Tale::new();
    let item = tale.submit(5);
    tale.registers_as(0, "a", true);
    tale.claim(0, &[(item, 1)]);
    tale.registers_as(0, "b", false);
    tale.asks_as("a");
    tale.report(0, item, 1, COMPLETE);
    second_run_is_served(&mut tale);
    tale.end(item, WorkStatus::Completed, 1);
    sound(&tale);
}

#[test]
fn a_run_that_registered_again_after_the_entry_had_gone_is_the_agent() {
    let mut tale = Tale::new();
    let item = tale.submit(5);
    tale.registers_as(0, "a", true);
    tale.registers_as(0, "b", true);
    // Buried meanwhile, so that the first one may come back, and the second one after it.
    tale.registers_as(0, "a", true);
    tale.claim(0, &[(item, 1)]);
    tale.report(0, item, 1, COMPLETE);
    tale.registers_as(0, "b", true);
    second_run_is_served(&mut tale);
    tale.end(item, WorkStatus::Completed, 1);
    sound(&tale);
}
