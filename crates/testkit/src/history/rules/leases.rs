use loom_protocol::ErrorCode;

use super::super::operation::{Answer, Outcome};
use super::super::stories::{ItemHistory, Report, Stories};
use super::super::verdict::{Rule, Violation};
use crate::history::{Moment, Verb};

/// A steady agent is refused no report about a lease that it has not ended itself and that nobody called off.
pub(super) fn whoever_keeps_the_clocks_keeps_the_lease(
    stories: &Stories,
    found: &mut Vec<Violation>,
) {
    for (id, story) in stories.items() {
        let lost = story.reports.iter().find_map(|report| {
            let (at, code) = refusal(report)?;
            let mut known_as = stories.specs(report.agent, at);
            let judged =
                known_as.any(|agent| agent.steady) && !may_be_over(stories, story, report, at);
            judged.then_some((report, at, code))
        });
        if let Some((report, at, code)) = lost {
            let (agent, attempt) = (report.agent, report.attempt);
            let says = format!(
                "was taken from {agent}, which kept its lease of attempt {attempt} (refused with {code} at {at})"
            );
            let mut events: Vec<_> = story.grants.iter().map(|grant| grant.operation).collect();
            events.push(report.operation);
            found.push(Violation::new(Rule::LostLease, id, says, &events));
        }
    }
}

fn refusal(report: &Report) -> Option<(Moment, ErrorCode)> {
    match report.operation.answer {
        Some(Answer {
            at,
            outcome: Outcome::Refused(code),
        }) => {
            let lost = [
                ErrorCode::StaleLease,
                ErrorCode::TerminalState,
                ErrorCode::NotFound,
                ErrorCode::NotRegistered,
            ];
            lost.contains(&code).then_some((at, code))
        }
        _ => None,
    }
}

/// Whether the agent heard of the lease late or never, may have ended it itself, or the item may have been called off.
/// A repeated completion is answered like the first one for ever, so that its refusal proves the loss all the same.
fn may_be_over(stories: &Stories, story: &ItemHistory, report: &Report, at: Moment) -> bool {
    let same = |agent, attempt| agent == report.agent && attempt == report.attempt;
    let sent = report.operation.sent;
    let was_given = story.grants.iter().any(|grant| {
        let at_once = stories.is_first(grant.operation, grant.claim);
        same(grant.agent, grant.attempt) && at_once && grant.known < sent
    });
    let was_confirmed = story.reports.iter().any(|other| {
        let accepted = other.operation.accepted_at();
        same(other.agent, other.attempt) && accepted.is_some_and(|accepted| accepted < sent)
    });
    let ended = story.reports.iter().any(|other| {
        let by_completing = other.verb == Verb::Complete && report.verb == Verb::Complete;
        same(other.agent, other.attempt)
            && other.operation.number != report.operation.number
            && other.verb.ends()
            && !by_completing
            && other.operation.sent < at
    });
    let cancelled = story
        .cancels
        .iter()
        .any(|cancel| cancel.sent < at && !cancel.is_refused());
    !(was_given || was_confirmed) || ended || cancelled
}
