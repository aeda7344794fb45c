use std::collections::HashSet;

use loom_actors::domain::work::UNSPENT_RETURNS;

use super::super::stories::{Stories, Story};
use super::super::verdict::{Rule, Violation};
use crate::history::Verb;

/// Nobody holds an attempt while another one is valid, and the fence never falls.
pub(super) fn one_attempt_at_a_time(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let mut accuse = |says: String, events: &[&crate::history::Operation]| {
            found.push(Violation::new(Rule::Overlap, id, says, events));
        };
        for (place, grant) in story.grants.iter().enumerate() {
            let before = &story.grants[..place];
            let twice = before
                .iter()
                .find(|other| other.attempt == grant.attempt && other.agent != grant.agent);
            if let Some(other) = twice {
                let says = format!(
                    "was given with attempt {} to {} and to {}",
                    grant.attempt, other.agent, grant.agent
                );
                accuse(says, &[other.operation, grant.operation]);
            }
            let stale = story.disproof(grant.agent, grant.attempt, grant.operation.sent, None);
            if let Some(proof) = stale {
                let says = format!(
                    "was given to {} with attempt {}, which was over",
                    grant.agent, grant.attempt
                );
                accuse(says, &[proof, grant.operation]);
            }
        }
        let others = story.reports.iter().filter(|report| {
            report.verb != Verb::Complete && report.operation.accepted_at().is_some()
        });
        for report in others {
            let (agent, attempt) = (report.agent, report.attempt);
            let sent = story.earliest(report);
            let itself = report.verb.ends().then_some(report.verb);
            if let Some(proof) = story.disproof(agent, attempt, sent, itself) {
                let says = format!("took a report of attempt {attempt} by {agent}, which was over");
                accuse(says, &[proof, report.operation]);
            }
        }
    }
}

/// No completion counts of an attempt that was over when it was sent for the first time.
pub(super) fn no_stale_completion(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        for completion in story.completions() {
            let (agent, attempt) = (completion.agent, completion.attempt);
            let sent = story.earliest(completion);
            let proof = story.disproof(agent, attempt, sent, Some(Verb::Complete));
            if let Some(proof) = proof {
                let says =
                    format!("took a completion of attempt {attempt} by {agent}, which was over");
                let events = [proof, completion.operation];
                found.push(Violation::new(Rule::StaleCompletion, id, says, &events));
            }
        }
    }
}

/// Two completions are never both accepted, unless one repeats the other.
pub(super) fn one_completion(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let by: HashSet<_> = story
            .completions()
            .map(|completion| (completion.agent, completion.attempt))
            .collect();
        if by.len() > 1 {
            let says = format!("was completed {} times", by.len());
            let events: Vec<_> = story
                .completions()
                .map(|completion| completion.operation)
                .collect();
            found.push(Violation::new(Rule::DoubleCompletion, id, says, &events));
        }
    }
}

/// Not more attempts are spent than may be, and not more are given than can come back without being spent.
pub(super) fn no_more_than_allowed(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let Some(end) = story.end() else {
            continue;
        };
        let max = end.max_attempts;
        let retries = story.retries.iter().filter(|retry| !retry.is_refused());
        let lives = 1 + u32::try_from(retries.count()).unwrap_or(u32::MAX);
        let spent = spent_by_failing(story);
        let given = story.grants.iter().map(|grant| grant.attempt).max();
        let given = given.unwrap_or(0).max(end.attempt);
        let may_be_given = lives.saturating_mul(max + u32::from(UNSPENT_RETURNS) - 1);
        let says = if end.attempts > max {
            format!("has spent {} attempts of {max}", end.attempts)
        } else if spent > lives.saturating_mul(max) {
            format!("failed {spent} times, and {max} attempts are allowed")
        } else if given > may_be_given {
            format!(
                "was given {given} times, and {may_be_given} times is the most that {max} attempts allow"
            )
        } else {
            continue;
        };
        let events: Vec<_> = story.grants.iter().map(|grant| grant.operation).collect();
        found.push(Violation::new(Rule::TooManyAttempts, id, says, &events));
    }
}

/// How many attempts have certainly been spent by failures.
fn spent_by_failing(story: &Story) -> u32 {
    let failed: HashSet<_> = story
        .reports
        .iter()
        .filter(|report| report.verb == Verb::Fail { spends: true })
        .filter(|report| report.operation.accepted_at().is_some())
        .map(|report| report.attempt)
        .collect();
    u32::try_from(failed.len()).unwrap_or(u32::MAX)
}
