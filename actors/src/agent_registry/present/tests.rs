//! The counters against a walk through every agent.

use std::time::Duration;

use loom_protocol::agent::RegisterRequest;
use loom_protocol::{AgentGuid, ProjectId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::domain::agent::{Terms, register, with_status};
use crate::domain::matching::{FilterRef, Requirements, fits};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(&NAMES[..]).prop_map(String::from);
    prop::collection::vec(name, 1..4)
}

fn agent() -> impl Strategy<Value = Agent> {
    let kind = prop::sample::select(&NAMES[..]);
    let status = prop::sample::select(&AgentStatus::ALL[..]);
    (names(), names(), kind, status).prop_map(|(capabilities, boundaries, kind, status)| {
        let project = ProjectId::new("p").unwrap();
        let request = RegisterRequest {
            handle: "a".into(),
            agent_type: kind.into(),
            capabilities: capabilities.clone(),
            boundaries: Some(boundaries.clone()),
            ..Default::default()
        };
        let terms = Terms {
            project: &project,
            heartbeat_every: Duration::from_secs(10),
            now: Timestamp::from_millis(0),
        };
        let agent = register(&request, AgentGuid::generate(), None, false, &terms).unwrap();
        // What others write into the bucket may name a thing twice.
        let named = Agent {
            capabilities,
            boundaries,
            ..agent
        };
        with_status(&named, status)
    })
}

proptest! {
    #[test]
    fn the_counters_say_what_a_walk_through_every_agent_says(
        agents in prop::collection::vec((agent(), any::<bool>()), 0..20),
        capability in prop::sample::select(&NAMES[..]), boundary in prop::sample::select(&NAMES[..]),
        required in prop::option::of(prop::sample::select(&NAMES[..])),
    ) {
        let mut present = Present::default();
        // Each was what the next one is before.
        let mut before = agents.last().map(|(agent, _)| agent);
        before.map(|agent| present.replace(None, Some(agent)));
        for (agent, _) in &agents {
            let is_lost = present.replace(before, Some(agent));
            let was = before.filter(|before| is_there(before.status));
            let is = Some(agent).filter(|agent| is_there(agent.status));
            let named = |agent: &Agent| {
                (agent.agent_type.clone(), agent.capabilities.clone(), agent.boundaries.clone())
            };
            prop_assert_eq!(is_lost, was.is_some() && was.map(named) != is.map(named));
            before = Some(agent);
        }
        present.replace(before, None);
        for (agent, _) in &agents {
            prop_assert!(!present.replace(None, Some(agent)));
        }
        for (agent, _) in agents.iter().filter(|(_, has_gone)| *has_gone) {
            prop_assert_eq!(present.replace(Some(agent), None), is_there(agent.status));
        }
        let needs = Requirements {
            capability: capability.into(),
            boundary: boundary.into(),
            required_agent_type: required.map(Into::into),
            preferred_agent_type: None,
        };
        let fit: Vec<&Agent> = agents.iter().filter(|(_, has_gone)| !has_gone).map(|(agent, _)| agent)
            .filter(|agent| is_there(agent.status))
            .filter(|agent| {
                let filter = FilterRef {
                    agent_type: &agent.agent_type,
                    capabilities: &agent.capabilities,
                    boundaries: &agent.boundaries,
                };
                fits(&filter, &needs).is_ok()
            })
            .collect();
        prop_assert_eq!(present.count(capability, boundary, required), fit.len());
        let most = |status: AgentStatus, of_type: &str| {
            fit.iter().filter(|agent| agent.status == status && agent.agent_type == of_type).count()
        };
        let counts = |of_type: &str| {
            (most(AgentStatus::Online, of_type), most(AgentStatus::Busy, of_type))
        };
        let found = present.agent_type(capability, boundary, required);
        prop_assert_eq!(found.map(counts), fit.iter().map(|agent| counts(&agent.agent_type)).max());
        for (agent, _) in agents.iter().filter(|(_, has_gone)| !has_gone) {
            present.replace(Some(agent), None);
        }
        prop_assert!(present.by_capability.is_empty());
    }
}
