use std::collections::HashMap;

use loom_protocol::{AgentGuid, WorkId};

use super::super::operation::{Action, Moment, Operation};
use super::super::stories::Stories;
use super::super::verdict::{Rule, Violation};

/// Once another run of its agent has registered, no report of a run is accepted, and no claim of it is given anything.
///
/// What counts is what was sent after that registration was answered, and answered before a claim of the later run was
/// sent that was served: all that time the later one was the agent, whatever else became of the agent's entry.
pub(super) fn no_request_of_a_replaced_run_counts(stories: &Stories, found: &mut Vec<Violation>) {
    let mut of_agents: HashMap<AgentGuid, Vec<&Operation>> = HashMap::new();
    for operation in &stories.history.operations {
        if let (Some(agent), Some(_)) = (agent_of(&operation.action), &operation.run) {
            of_agents.entry(agent).or_default().push(operation);
        }
    }
    for operations in of_agents.values() {
        let registered = |operation: &&&Operation| {
            matches!(operation.action, Action::Register(_)) && !operation.is_refused()
        };
        let registrations: Vec<&Operation> =
            operations.iter().filter(registered).copied().collect();
        for later in &registrations {
            let Some((from, until)) = reign(later, &registrations, operations) else {
                continue;
            };
            let had_registered = |run: &Option<String>| {
                registrations.iter().any(|earlier| {
                    let at = earlier.accepted_at();
                    earlier.run == *run && at.is_some_and(|at| at < later.sent)
                })
            };
            let guilty = operations.iter().filter(|operation| {
                let at = operation.accepted_at();
                operation.run != later.run
                    && operation.sent > from
                    && at.is_some_and(|at| at < until)
                    && had_registered(&operation.run)
            });
            for operation in guilty {
                if let Some(item) = item_of(operation) {
                    let says = format!("heard a run of its agent that had been replaced at {from}");
                    found.push(Violation::new(
                        Rule::ReplacedRun,
                        item,
                        says,
                        &[later, operation],
                    ));
                }
            }
        }
    }
}

/// From when until when the run of a registration certainly was the agent: it had registered, and was served later
/// without having registered once more.
fn reign(
    registration: &Operation,
    all: &[&Operation],
    operations: &[&Operation],
) -> Option<(Moment, Moment)> {
    let from = registration.accepted_at()?;
    let once_more = all.iter().filter(|other| {
        let is_over = other.accepted_at().is_some_and(|at| at < registration.sent);
        other.run == registration.run && other.number != registration.number && !is_over
    });
    let once_more = once_more.map(|other| other.sent).min();
    let served = operations.iter().filter(|operation| {
        let at = operation.accepted_at();
        operation.run == registration.run
            && matches!(operation.action, Action::Claim(_))
            && at.is_some_and(|at| once_more.is_none_or(|again| at < again))
    });
    Some((from, served.map(|operation| operation.sent).max()?))
}

fn agent_of(action: &Action) -> Option<AgentGuid> {
    match action {
        Action::Register(spec) => Some(spec.guid),
        Action::Claim(claim) => Some(claim.agent),
        Action::Report { agent, .. } => Some(*agent),
        Action::Submit(_) | Action::Cancel(_) | Action::Retry(_) => None,
    }
}

/// The item that a request had an effect on.
fn item_of(operation: &Operation) -> Option<WorkId> {
    match &operation.action {
        Action::Report { lease, .. } => Some(lease.id),
        Action::Claim(_) => operation.given().first().map(|lease| lease.id),
        _ => None,
    }
}
