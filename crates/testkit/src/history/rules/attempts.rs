use std::collections::HashSet;

use loom_actors::domain::work::FREE_RETURNS;
use loom_protocol::work::{LeaseRef, WorkStatus};

use super::super::stories::{ItemHistory, Stories};
use super::super::verdict::{Rule, Violation};
use crate::history::Verb;

/// Nobody holds an attempt while another one is valid, and the fence never falls.
pub(super) fn one_attempt_at_a_time(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let mut add_finding = |says: String, events: &[&crate::history::Operation]| {
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
                add_finding(says, &[other.operation, grant.operation]);
            }
            let stale = story.disproof(grant.agent, grant.attempt, grant.operation.sent, None);
            if let Some(proof) = stale {
                let says = format!(
                    "was given to {} with attempt {}, which was over",
                    grant.agent, grant.attempt
                );
                add_finding(says, &[proof, grant.operation]);
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
                add_finding(says, &[proof, report.operation]);
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

/// Not more attempts are spent than may be, a completion spends none (a late one neither: what the loss before it had
/// spent is given back), and not more are given than can come back without being spent.
pub(super) fn no_more_than_allowed(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let Some(end) = story.end() else {
            continue;
        };
        let max = end.max_attempts;
        let retries = story.retries.iter().filter(|retry| !retry.is_refused());
        let lives = 1 + count(retries);
        let spent = spent_by_reports(story, lives);
        let given = story.grants.iter().map(|grant| grant.attempt).max();
        let given = given.unwrap_or(0).max(end.attempt);
        let may_be_given = most_grants(story, lives, max);
        let is_completed = end.status == WorkStatus::Completed;
        let says = if end.attempts > max {
            format!("has spent {} attempts of {max}", end.attempts)
        } else if is_completed && end.attempts >= end.attempt {
            format!(
                "was completed with attempt {}, and has spent {}",
                end.attempt, end.attempts
            )
        } else if spent > lives.saturating_mul(max) {
            format!("has spent {spent} attempts by its agents, and {max} are allowed")
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

/// How many attempts have certainly been spent: by failures, and by releases beyond those that are free.
fn spent_by_reports(story: &ItemHistory, lives: u32) -> u32 {
    let ended = |is: fn(Verb) -> bool| {
        let reports = story.reports.iter().filter(|report| is(report.verb));
        let accepted = reports.filter(|report| report.operation.accepted_at().is_some());
        count(
            accepted
                .map(|report| report.attempt)
                .collect::<HashSet<_>>(),
        )
    };
    let failed = ended(|verb| verb == Verb::Fail { spends: true });
    let released = ended(|verb| verb == Verb::Release { delayed: false });
    let free = lives.saturating_mul(FREE_RETURNS.into());
    failed + released.saturating_sub(free)
}

/// How often an item can be given at the most: each attempt that was started was spent, released, ended by a limit or
/// had again; and between two of these it may come back without a start.
fn most_grants(story: &ItemHistory, lives: u32, max: u32) -> u32 {
    let free = u32::from(FREE_RETURNS);
    let limits = story.reports.iter().filter(|report| {
        matches!(
            report.verb,
            Verb::Fail { spends: false } | Verb::Release { delayed: true }
        )
    });
    let resumed = story.grants.iter().filter(|grant| {
        let (id, attempt) = (story.id(), grant.attempt);
        id.is_some_and(|id| grant.claim.resumes(LeaseRef { id, attempt }))
    });
    let started = lives * (max + free) + count(limits) + count(resumed);
    started + (started + 1) * free
}

fn count(all: impl IntoIterator) -> u32 {
    u32::try_from(all.into_iter().count()).unwrap_or(u32::MAX / 64)
}
