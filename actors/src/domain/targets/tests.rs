//! The index against the rules, and the rules against what they say.

use std::sync::Arc;

use loom_protocol::Timestamp;
use proptest::prelude::*;

use super::choice::{Choice, Standing};
use super::*;
use crate::domain::matching::{FilterRef, fits};

const NAMES: [&str; 3] = ["a", "b", "c"];
const NOW: Timestamp = Timestamp::from_millis(10);

#[derive(Debug, Clone)]
struct Target {
    profile: TargetProfile,
    condition: TargetCondition,
    last_used: Option<Timestamp>,
}

impl Target {
    fn capacity(&self) -> u32 {
        if self.condition.is_enabled {
            self.condition.max_agents
        } else {
            0
        }
    }

    fn standing(&self) -> Standing {
        Standing {
            capacity: self.capacity(),
            is_startable: may_start(&self.condition, NOW).is_ok(),
            last_used: self.last_used,
        }
    }
}

fn name() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(&NAMES[..]).prop_map(Arc::from)
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of((8..13i64).prop_map(Timestamp::from_millis))
}

fn target() -> impl Strategy<Value = Target> {
    let names = || prop::collection::vec(name(), 0..3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (0..3u32, 1..4u32, time(), time());
    (name(), names(), names(), flags, numbers).prop_map(
        |(agent_type, capabilities, boundaries, flags, numbers)| Target {
            profile: TargetProfile {
                agent_type,
                capabilities,
                boundaries,
            },
            condition: TargetCondition {
                is_enabled: flags.0,
                is_group_paused: flags.1,
                is_unhealthy: flags.2,
                agents: numbers.0,
                max_agents: numbers.1,
                cools_until: numbers.2,
            },
            last_used: numbers.3,
        },
    )
}

fn need() -> impl Strategy<Value = Need> {
    (name(), name(), prop::option::of(name())).prop_map(
        |(capability, boundary, required_agent_type)| Need {
            capability,
            boundary,
            required_agent_type,
        },
    )
}

/// The same choice by looking at every target.
fn by_looking_at_all(targets: &[Target], need: &Need, preferred: Option<&str>) -> Option<usize> {
    let may = |at: &usize| {
        let target = &targets[*at];
        serves(&target.profile, need).is_ok() && may_start(&target.condition, NOW).is_ok()
    };
    let is_preferred = |at: &usize| Some(&*targets[*at].profile.agent_type) == preferred;
    (0..targets.len())
        .filter(may)
        .min_by_key(|at| (!is_preferred(at), targets[*at].last_used, *at))
}

proptest! {
    #[test]
    fn the_index_chooses_what_looking_at_every_target_chooses(
        before in prop::collection::vec(target(), 0..12),
        targets in prop::collection::vec(target(), 0..12),
        need in need(),
        preferred in prop::option::of(name()),
    ) {
        let mut choice = Choice::default();
        for (at, target) in before.iter().enumerate() {
            choice.set(at, &target.profile, target.standing());
        }
        for at in targets.len()..before.len() {
            choice.remove(&at);
        }
        for (at, target) in targets.iter().enumerate() {
            choice.set(at, &target.profile, target.standing());
        }
        let expected = by_looking_at_all(&targets, &need, preferred.as_deref());
        prop_assert_eq!(choice.lists(&need, preferred.as_ref()).flatten().next().copied(), expected);
        let capacity: u64 = targets.iter()
            .filter(|target| serves(&target.profile, &need).is_ok())
            .map(|target| u64::from(target.capacity()))
            .sum();
        prop_assert_eq!(choice.capacity(&need), capacity);
        for at in 0..targets.len() {
            choice.remove(&at);
        }
        prop_assert!(choice.is_empty());
    }

    /// An agent that is started and never fits is started again and again.
    #[test]
    fn whatever_a_target_starts_may_take_what_it_was_started_for(
        target in target(), started_for in need(), other in need(),
    ) {
        let own = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let profile = &target.profile;
        let as_registered = loom_protocol::target::Target {
            agent_type: profile.agent_type.to_string(),
            capabilities: own(&profile.capabilities),
            boundaries: own(&profile.boundaries),
            ..record_tests::target(1)
        };
        let wire = loom_protocol::target::Need::from(&started_for);
        let ticket = TicketTerms::of(&as_registered, Some(&wire), [0; 32]);
        prop_assert_eq!(ticket.serves(&started_for), serves(profile, &started_for).is_ok());
        let born = FilterRef {
            agent_type: &ticket.agent_type,
            capabilities: &ticket.capabilities,
            boundaries: &ticket.boundaries,
        };
        let requirements = Requirements {
            capability: other.capability.clone(),
            boundary: other.boundary.clone(),
            required_agent_type: other.required_agent_type.clone(),
            preferred_agent_type: None,
        };
        prop_assert_eq!(ticket.serves(&other), fits(&born, &requirements).is_ok());
    }

    #[test]
    fn a_refusal_names_a_rule_that_is_broken(target in target(), need in need()) {
        let (profile, condition) = (&target.profile, &target.condition);
        let verdict = serves(profile, &need).and_then(|()| may_start(condition, NOW));
        let Err(rule) = verdict else {
            return Ok(());
        };
        let broken = match rule {
            TargetRule::Capability => !profile.capabilities.contains(&need.capability),
            TargetRule::Boundary => {
                !profile.boundaries.is_empty() && !profile.boundaries.contains(&need.boundary)
            }
            TargetRule::AgentType => need.required_agent_type.as_ref() != Some(&profile.agent_type),
            TargetRule::Disabled => !condition.is_enabled,
            TargetRule::Paused => condition.is_group_paused,
            TargetRule::Unhealthy => condition.is_unhealthy,
            TargetRule::Full => condition.agents >= condition.max_agents,
            TargetRule::CoolingDown => condition.cools_until > Some(NOW),
        };
        prop_assert!(broken, "{rule}");
        prop_assert!(rule.sentence(profile, condition, &need).starts_with("it"));
    }

    /// One look after another, each of which starts what is missing, ends at the policy's number and stays there.
    #[test]
    fn looking_again_starts_nobody_twice(
        capacity in 0..10u64, pending in 0..200u64, per_agent in 0..5u32, there in 0..12u64,
    ) {
        let first = missing(capacity, pending, per_agent, there);
        prop_assert_eq!(missing(capacity, pending, per_agent, there + first), 0);
        prop_assert!(first == 0 || there + first <= capacity);
        prop_assert!(first == 0 || (there + first - 1) * u64::from(per_agent.max(1)) < pending);
        if pending == 0 {
            prop_assert_eq!(first, 0);
        }
    }
}

#[test]
fn a_hundred_items_of_one_need_ask_for_as_many_agents_as_its_targets_may_have() {
    assert_eq!(missing(1, 100, 1, 0), 1);
    assert_eq!(missing(5, 100, 1, 0), 5);
    assert_eq!(missing(5, 100, 50, 0), 2);
    assert_eq!(missing(5, 3, 1, 1), 2);
    assert_eq!(missing(0, 100, 1, 0), 0);
}
