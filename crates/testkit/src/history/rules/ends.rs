use loom_protocol::work::WorkStatus;

use super::super::stories::{ItemHistory, Report, Stories};
use super::super::verdict::{Rule, Violation};
use crate::history::Verb;

/// An accepted submit ends in completed, failed or cancelled.
pub(super) fn every_item_ends(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let says = match (story.end(), story.accepted()) {
            (None, Some((_, at))) => format!("was accepted at {at} and is gone"),
            (Some(end), _) if !end.status.is_terminal() => {
                format!("is {} at the end", end.status)
            }
            _ => continue,
        };
        let submits = &story.submits;
        found.push(Violation::new(Rule::NoEnd, id, says, submits));
    }
}

/// What is there was submitted, and is there once. What was refused when it was taken from the stream fails under an
/// id of its own.
pub(super) fn nothing_is_there_unasked(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let Some(end) = story.end() else {
            continue;
        };
        let submits = &story.submits;
        if story.ends.len() > 1 {
            let says = format!("is listed {} times at the end", story.ends.len());
            found.push(Violation::new(Rule::Phantom, id, says, submits));
        }
        let may_be = submits.iter().any(|submit| !submit.is_refused());
        if !may_be && end.status != WorkStatus::Failed {
            let says = format!("is {} at the end, and nobody submitted it", end.status);
            found.push(Violation::new(Rule::Phantom, id, says, submits));
        }
    }
}

/// An end that was answered is recorded, and one that is recorded was asked for.
pub(super) fn the_end_is_the_answered_one(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let Some(end) = story.end() else {
            continue;
        };
        let says = unkept(story).or_else(|| unfounded(story));
        if let Some(says) = says {
            let says = format!(
                "is {} with attempt {} at the end, {says}",
                end.status, end.attempt
            );
            let ends = story.reports.iter().filter(|report| report.verb.ends());
            let mut events: Vec<_> = ends.map(|report| report.operation).collect();
            events.extend(&story.cancels);
            found.push(Violation::new(Rule::WrongEnd, id, says, &events));
        }
    }
}

/// An accepted end that is not the recorded one. A second completion, or a stale one, is another rule's business.
fn unkept(story: &ItemHistory) -> Option<String> {
    let end = story.end().filter(|end| end.status.is_terminal())?;
    let mut completions: Vec<_> = story.completions().collect();
    completions.dedup_by_key(|report| (report.agent, report.attempt));
    let is_stale = |completion: &Report| {
        let (agent, attempt) = (completion.agent, completion.attempt);
        let sent = story.earliest(completion);
        let proof = story.disproof(agent, attempt, sent, Some(Verb::Complete));
        proof.is_some()
    };
    if completions.len() > 1 || completions.iter().any(|completion| is_stale(completion)) {
        return None;
    }
    if let Some(completion) = completions.first() {
        let (agent, attempt) = (completion.agent, completion.attempt);
        if end.status != WorkStatus::Completed || end.attempt != attempt {
            return Some(format!(
                "although the completion of attempt {attempt} by {agent} was accepted"
            ));
        }
    }
    let cancelled = story.cancels.iter().find_map(|cancel| cancel.accepted_at());
    cancelled
        .filter(|_| end.status != WorkStatus::Cancelled)
        .map(|at| format!("although it was called off at {at}"))
}

/// A recorded end that nobody can have brought about.
fn unfounded(story: &ItemHistory) -> Option<String> {
    let end = story.end()?;
    match end.status {
        WorkStatus::Completed => {
            let asked = story.reports.iter().any(|report| {
                report.verb == Verb::Complete
                    && report.attempt == end.attempt
                    && !report.operation.is_refused()
            });
            let other = story.completions().next().is_some();
            (!asked && !other).then(|| "and nobody completed that attempt".into())
        }
        WorkStatus::Cancelled => {
            let asked = story.cancels.iter().any(|cancel| !cancel.is_refused());
            (!asked).then(|| "and nobody called it off".into())
        }
        _ => None,
    }
}
