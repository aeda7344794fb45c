use super::super::operation::{AgentSpec, ItemSpec};
use super::super::stories::{Grant, Stories};
use super::super::verdict::{Rule, Violation};

/// Every item was given to an agent of its boundary, its capability and its required type.
pub(super) fn only_those_who_may(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let Some(item) = story.spec else {
            continue;
        };
        for grant in &story.grants {
            if let Some(why) = why_not(stories, grant, item) {
                let says = format!("was given to {}, {why}", grant.agent);
                let events = [grant.operation];
                found.push(Violation::new(Rule::WrongAgent, id, says, &events));
            }
        }
    }
}

/// No item was given before its `notBefore`.
pub(super) fn not_before_its_time(stories: &Stories, found: &mut Vec<Violation>) {
    for (id, story) in stories.items() {
        let Some(not_before) = story.spec.and_then(|item| item.not_before) else {
            continue;
        };
        for grant in story.grants.iter().filter(|g| g.known < not_before) {
            let says = format!("was given to {} before {not_before}", grant.agent);
            let events = [grant.operation];
            found.push(Violation::new(Rule::TooEarly, id, says, &events));
        }
    }
}

fn why_not(stories: &Stories, grant: &Grant, item: &ItemSpec) -> Option<String> {
    let mut why = "which never registered".to_owned();
    for agent in stories.specs(grant.agent, grant.known) {
        match bar(agent, item, grant.claim.capabilities.as_deref()) {
            None => return None,
            Some(bar) => why = bar,
        }
    }
    Some(why)
}

/// What keeps an item from an agent.
pub(super) fn bar(
    agent: &AgentSpec,
    item: &ItemSpec,
    asked_for: Option<&[String]>,
) -> Option<String> {
    let (capability, boundary) = (&item.capability, &item.boundary);
    if !agent.capabilities.contains(capability) {
        return Some(format!("which has not the capability {capability}"));
    }
    if asked_for.is_some_and(|asked_for| !asked_for.contains(capability)) {
        return Some(format!("which did not claim {capability}"));
    }
    if !agent.boundaries.contains(boundary) {
        return Some(format!("which is not in the boundary {boundary}"));
    }
    match &item.required_agent_type {
        Some(required) if *required != agent.agent_type => {
            Some(format!("which is not of the required type {required}"))
        }
        _ => None,
    }
}
