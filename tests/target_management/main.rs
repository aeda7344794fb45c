//! The group "Target Management": the lines of the integration-test document about the registry of targets, as a
//! program outside does it, each also with the coordinator killed in the middle; what a registry must withstand; and the
//! births of agents, with real processes.

#![allow(clippy::expect_used, reason = "a test may panic")]

mod birth_crashes;
mod births;
mod crashes;
mod file;
mod gate;
mod health;
mod late_births;
mod outside;
mod place;
mod program;
mod refused;
mod registry;
mod silent_starts;
mod starts;
mod starts_explained;
mod starts_refused;
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
