use std::time::Duration;

use loom_protocol::work::WorkStatus;

use super::super::world::Tale;
use super::{COMPLETE, RELEASE, breaks};
use crate::history::{Moment, Rule};

#[test]
fn an_agent_of_another_boundary() {
    breaks(Rule::WrongAgent, |tale, broken| {
        let boundary = if broken { "corporate" } else { "default" };
        let item = tale.submit_where(|spec| spec.boundary = boundary.into());
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn an_agent_without_the_capability() {
    breaks(Rule::WrongAgent, |tale, broken| {
        let capability = if broken { "python" } else { "rust" };
        let item = tale.submit_where(|spec| spec.capability = capability.into());
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn an_agent_of_another_type() {
    breaks(Rule::WrongAgent, |tale, broken| {
        let required = if broken { "codex" } else { "fake" };
        let item = tale.submit_where(|spec| spec.required_agent_type = Some(required.into()));
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn an_item_before_its_time() {
    breaks(Rule::TooEarly, |tale, broken| {
        let hours = u64::from(broken);
        let not_before = Moment::new(Duration::from_hours(hours));
        let item = tale.submit_where(|spec| spec.not_before = Some(not_before));
        tale.claim(0, &[(item, 1)]);
        tale.report(0, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn an_agent_that_nobody_knows() {
    breaks(Rule::WrongAgent, |tale, broken| {
        let item = tale.submit(5);
        let agent = if broken { tale.unknown_agent() } else { 0 };
        tale.claim(agent, &[(item, 1)]);
        tale.report(agent, item, 1, COMPLETE);
        tale.end(item, WorkStatus::Completed, 1);
    });
}

#[test]
fn a_lower_item_before_a_higher_one() {
    breaks(Rule::Order, |tale, broken| {
        let (low, high) = (tale.submit(1), tale.submit(9));
        let order = if broken { [low, high] } else { [high, low] };
        for item in order {
            tale.claim(0, &[(item, 1)]);
            tale.report(0, item, 1, COMPLETE);
            tale.end(item, WorkStatus::Completed, 1);
        }
    });
}

#[test]
fn a_younger_item_before_an_older_one() {
    breaks(Rule::Order, |tale, broken| {
        let (older, younger) = (tale.submit(5), tale.submit(5));
        let order = if broken {
            [younger, older]
        } else {
            [older, younger]
        };
        for item in order {
            tale.claim(0, &[(item, 1)]);
            tale.report(0, item, 1, COMPLETE);
            tale.end(item, WorkStatus::Completed, 1);
        }
    });
}

#[test]
fn a_released_item_keeps_its_place_for_others() {
    breaks(Rule::Order, |tale, broken| {
        let (low, high) = (tale.submit(1), tale.submit(9));
        tale.claim(0, &[(high, 1)]);
        tale.report(0, high, 1, RELEASE);
        // It is not offered to the first agent for a while.
        tale.claim(usize::from(broken), &[(low, 1)]);
        tale.claim(1, &[(high, 2)]);
        for (agent, item, attempt) in [(usize::from(broken), low, 1), (1, high, 2)] {
            tale.report(agent, item, attempt, COMPLETE);
            tale.end(item, WorkStatus::Completed, attempt);
        }
    });
}

#[test]
fn a_released_item_is_kept_from_all_who_released_it() {
    breaks(Rule::Order, |tale, broken| {
        let (low, high) = (tale.submit(1), tale.submit(9));
        for (agent, attempt) in [(0, 1), (1, 2)] {
            tale.claim(agent, &[(high, attempt)]);
            tale.report(agent, high, attempt, RELEASE);
        }
        // The first one is kept from it as long as the second.
        let third = tale.agent(true);
        let who = if broken { third } else { 0 };
        tale.claim(who, &[(low, 1)]);
        tale.claim(third, &[(high, 3)]);
        for (agent, item, attempt) in [(who, low, 1), (third, high, 3)] {
            tale.report(agent, item, attempt, COMPLETE);
            tale.end(item, WorkStatus::Completed, attempt);
        }
    });
}

#[test]
fn what_an_agent_has_again_comes_before_everything_else() {
    breaks(Rule::Order, |tale, broken| {
        let low = tale.submit(1);
        tale.claim(0, &[(low, 1)]);
        // Its lease is taken back.
        let high = tale.submit(9);
        if broken {
            tale.claim(1, &[(low, 2)]);
        } else {
            tale.resume(1, (low, 1), &[(low, 2)]);
        }
        tale.claim(0, &[(high, 1)]);
        for (agent, item, attempt) in [(1, low, 2), (0, high, 1)] {
            tale.report(agent, item, attempt, COMPLETE);
            tale.end(item, WorkStatus::Completed, attempt);
        }
    });
}

#[test]
fn no_order_is_expected_while_something_is_broken_or_where_nobody_can_know() {
    for case in 0..3 {
        let mut tale = Tale::new();
        let low = tale.submit(1);
        let high = match case {
            0 => tale.submit_where(|spec| (spec.priority, spec.plain) = (9, false)),
            1 => tale.submit_where(|spec| (spec.priority, spec.boundary) = (9, "other".into())),
            _ => tale.submit(9),
        };
        tale.claim(0, &[(low, 1)]);
        if case == 2 {
            tale.disturbed_so_far();
        }
        tale.report(0, low, 1, COMPLETE);
        tale.end(low, WorkStatus::Completed, 1);
        tale.cancel(high);
        tale.end(high, WorkStatus::Cancelled, 0);
        let verdict = tale.check();
        assert!(verdict.is_sound(), "case {case}: {verdict}");
    }
}
