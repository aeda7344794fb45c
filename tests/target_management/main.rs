//! The group "Target Management": the lines of the integration-test document about targets, as a program outside does
//! them; what a registry must withstand; and the births of agents, with real processes.
//!
//! | line of the document | its test | the coordinator is killed in the middle |
//! |---|---|---|
//! | Register a spin-up target | `registry::register_a_spin_up_target` | `crashes::a_coordinator_that_is_killed_in_the_middle_leaves_a_target_as_it_was_or_is_to_be` |
//! | Assign agent to target | `assignment::assign_agent_to_target` | `birth_steps` after each step; `born_agents` at each moment of a registration |
//! | Verify target state | `registry::verify_target_state` | `assignment::the_state_of_a_target_is_the_same_after_the_coordinator_was_killed` |
//! | Unassign agent | `assignment::unassign_agent` | `assignment::an_agent_that_leaves_while_the_coordinator_is_killed_is_assigned_no_longer` |
//! | Deregister target | `registry::deregister_target` | as for the first line |
//! | Spin-up deduplication under load (Multi-Agent) | `births::a_hundred_submits_at_once_start_exactly_as_many_agents_as_may_be` | `submits::a_hundred_submits_by_several_clients_start_exactly_as_many_agents_although_the_coordinator_is_killed` |

#![allow(clippy::expect_used, reason = "a test may panic")]

mod assignment;
mod begun_again;
mod birth_crashes;
mod birth_steps;
mod births;
mod crashes;
mod file;
mod health;
mod late_births;
mod late_writes;
mod old_entries;
mod outside;
mod program;
mod refused;
mod registry;
mod silent_starts;
mod starts;
mod starts_explained;
mod starts_refused;
mod submits;
mod unheard;

use anyhow::Result;
use loom_protocol::WireError;
use loom_protocol::target::{Target, TargetAnswer};
use loom_testkit::fleet::TestProject;
use serde_json::{Value, json};

pub(crate) const SECRET: &str = "hunter2-never-shown";

/// A target that is started by a command on this machine.
pub(crate) fn local(name: &str) -> Value {
    json!({
        "name": name, "agentType": "claude-code", "capabilities": ["rust"], "mechanism": "local",
        "config": {"mechanism": "local", "local": {"command": "run", "env": {"TOKEN": SECRET}}},
    })
}

pub(crate) async fn register(project: &TestProject, target: Value) -> Result<Target, WireError> {
    let answer: TargetAnswer = project.call("targets.register", &target).await?;
    Ok(answer.target)
}

pub(crate) async fn get(project: &TestProject, target: &str) -> Result<Target, WireError> {
    let answer: TargetAnswer = project
        .call("targets.get", &json!({ "target": target }))
        .await?;
    Ok(answer.target)
}

pub(crate) async fn all(project: &TestProject) -> Result<Vec<Target>, WireError> {
    let filter = json!({"includeDisabled": true, "limit": 100});
    let answers: Vec<TargetAnswer> = project.call("targets.list", &filter).await?;
    Ok(answers.into_iter().map(|answer| answer.target).collect())
}

pub(crate) fn names_of(targets: &[Target]) -> Vec<&str> {
    targets.iter().map(|target| target.name.as_str()).collect()
}

/// A target with some fields otherwise.
pub(crate) fn with(mut target: Value, changes: &Value) -> Value {
    for (field, value) in changes.as_object().into_iter().flatten() {
        target[field] = value.clone();
    }
    target
}
