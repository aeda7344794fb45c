use std::time::Duration;

use loom_protocol::{AgentGuid, WorkId};

use super::super::operation::{Action, Claim, ItemSpec, Moment, Operation, Verb};
use super::super::stories::{ItemHistory, Stories};
use super::super::verdict::{Rule, Violation};
use super::matching::bar;

/// How long before a claim another one may have been sent that was still being served: as long as a claim waits and is
/// carried out. Only told with a finding, it excuses nothing.
const ABOUT_TO_BE_GIVEN: Duration = Duration::from_secs(4);

/// An item was certainly pending all this time.
struct Waiting<'h> {
    item: &'h ItemSpec,
    accepted: &'h Operation,
    from: Moment,
    until: Moment,
    /// It is not offered for a while to the agents that have released it, the last one or one before.
    not_to: Vec<AgentGuid>,
}

/// A claim was served, while nothing was disturbed.
struct Served<'h> {
    operation: &'h Operation,
    claim: &'h Claim,
    at: Moment,
}

/// Nobody was given an item while a higher one, or an older one of the same priority, certainly waited for him all the
/// time from the sending of the claim to its answer.
pub(super) fn higher_and_older_first(stories: &Stories, found: &mut Vec<Violation>) {
    let mut waiting: Vec<Waiting> = stories
        .items()
        .flat_map(|(_, s)| waits(stories, s))
        .collect();
    waiting.sort_by_key(|waiting| std::cmp::Reverse(waiting.from));
    let mut present: Vec<Waiting> = Vec::new();
    for served in calm_claims(stories) {
        let sent = served.operation.sent;
        while let Some(next) = waiting.pop_if(|next| next.from < sent) {
            present.push(next);
        }
        present.retain(|waiting| waiting.until > sent);
        let given = served.operation.given().iter();
        // What an agent has again comes before everything.
        let mut offered = given.filter(|given| !served.claim.resumes(**given));
        let passed_over = offered.find_map(|given| {
            let least = stories.get(given.id)?;
            let higher = present
                .iter()
                .find(|waiting| goes_before(stories, &served, waiting, least))?;
            Some((given.id, least, higher))
        });
        if let Some((given, least, higher)) = passed_over {
            let says = format!(
                "was given to {} although {} waited for it from {} to {}",
                served.claim.agent, higher.item.id, higher.from, higher.until
            );
            let mut events = vec![higher.accepted];
            events.extend(stories.of_leases(higher.item.id));
            events.extend(least.submits.first());
            events.push(served.operation);
            // Who may have been about to be given it.
            let open = stories.history.operations.iter().filter(|other| {
                matches!(&other.action, Action::Claim(claim) if other.given().is_empty()
                && other.accepted_at().is_none()
                && other.sent < served.at
                && other.sent.after(ABOUT_TO_BE_GIVEN) > sent
                && stories.specs(claim.agent, served.at).any(|agent| {
                    bar(agent, higher.item, claim.capabilities.as_deref()).is_none()
                }))
            });
            events.extend(open);
            found.push(Violation::new(Rule::Order, given, says, &events));
        }
    }
}

fn goes_before(stories: &Stories, served: &Served, waiting: &Waiting, given: &ItemHistory) -> bool {
    let Some(least) = given.spec else {
        return false;
    };
    let (higher, agent) = (waiting.item, served.claim.agent);
    let first_sent = given.submits.iter().map(|submit| submit.sent).min();
    let is_older = waiting
        .accepted
        .accepted_at()
        .zip(first_sent)
        .is_some_and(|(accepted, sent)| accepted < sent);
    let goes_first =
        higher.priority > least.priority || (higher.priority == least.priority && is_older);
    let mut known_as = stories.specs(agent, served.operation.sent).peekable();
    let is_known = known_as.peek().is_some();
    let asked_for = served.claim.capabilities.as_deref();
    goes_first
        && waiting.until > served.at
        && !waiting.not_to.contains(&agent)
        && is_known
        && known_as.all(|agent| bar(agent, higher, asked_for).is_none())
}

/// The claims that got something by their first sending, outside of every disturbance, in the order of their sending.
fn calm_claims<'s, 'h>(stories: &'s Stories<'h>) -> impl Iterator<Item = Served<'h>> + 's {
    let disturbances = &stories.history.disturbances;
    stories
        .history
        .operations
        .iter()
        .filter_map(move |operation| {
            let Action::Claim(claim) = &operation.action else {
                return None;
            };
            let at = operation.accepted_at()?;
            let is_calm = disturbances
                .iter()
                .all(|(from, until)| at < *from || operation.sent > *until);
            let counts = !operation.given().is_empty() && stories.is_first(operation, claim);
            (is_calm && counts).then_some(Served {
                operation,
                claim,
                at,
            })
        })
}

/// When an item was certainly pending: from its accepted submit to the first claim that can have got it, and from each
/// release to the next.
fn waits<'h>(stories: &Stories<'h>, story: &ItemHistory<'h>) -> Vec<Waiting<'h>> {
    let (Some(item), Some((accepted, at))) = (story.spec, story.accepted()) else {
        return Vec::new();
    };
    if !item.plain {
        return Vec::new();
    }
    let first_cancel = story.cancels.iter().map(|cancel| cancel.sent).min();
    let wait = |from: Moment, attempt: u32| {
        let releases = story.reports.iter().filter(|report| {
            matches!(report.verb, Verb::Release { .. }) && report.attempt < attempt
        });
        let not_to = releases.map(|report| report.agent).collect();
        let until = taken_not_before(stories, story, item.id, attempt)?;
        Some(Waiting {
            item,
            accepted,
            from,
            until: first_cancel.map_or(until, |cancel| cancel.min(until)),
            not_to,
        })
    };
    let released = story.reports.iter().filter_map(|report| {
        let plainly = report.verb == Verb::Release { delayed: false };
        let at = report.operation.accepted_at().filter(|_| plainly)?;
        wait(at, report.attempt + 1)
    });
    wait(at, 1).into_iter().chain(released).collect()
}

/// Not before this the attempt was given to anybody; `None` where an agent has it that was never told.
fn taken_not_before(
    stories: &Stories,
    story: &ItemHistory,
    id: WorkId,
    attempt: u32,
) -> Option<Moment> {
    let grants = story.grants.iter().filter(|grant| grant.attempt == attempt);
    let taken = grants.map(|grant| grant.from).min();
    let last = stories.history.operations.last()?.sent;
    let never_given = story
        .end()
        .is_some_and(|end| end.id == id && end.attempt < attempt);
    taken.or_else(|| never_given.then_some(last))
}
