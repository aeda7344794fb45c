//! An agent registers after its start was given up, and the coordinator dies between the two writes of that birth.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_actors::target_manager::BirthStep;
use loom_protocol::AgentGuid;
use loom_protocol::target::SpinUpStatus;
use loom_testkit::births::{Place, StepGate, came_to, operations, submit};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use crate::{get, register};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_late_birth_outlives_a_coordinator_that_dies_between_its_two_writes() -> Result<()> {
    let gate = StepGate::default();
    let mut fleet = Fleet::builder()
        .on_birth_step(gate.hook())
        .settings(|settings| settings.targets.birth_timeout.local = Duration::from_secs(1))
        .start()
        .await?;
    for step in [BirthStep::EndWritten, BirthStep::Decided] {
        let (project, place) = (fleet.project().await?, Place::new()?);
        register(&project, place.target("here", 1)).await?;
        submit(&project, 1).await?;
        let process = place.started(&project, 1).await?.remove(0);
        came_to(&project, SpinUpStatus::Timeout, "here").await?;
        // Nobody else is to be started in its place.
        project.request("queue.purge", json!({"all": true})).await?;

        gate.close(step);
        let guid = AgentGuid::generate();
        let registering = tokio::spawn({
            let (project, process) = (project.clone(), process.clone());
            async move { process.redeem(&project, guid).await }
        });
        gate.reached().await?;
        fleet.crash().await?;
        registering.abort();
        gate.open();
        fleet.start_again().await?;
        project.insist("targets.list", json!({})).await?;

        let again = process.redeem(&project, guid).await?;
        again.with_context(|| format!("after {step:?}"))?;
        let born = came_to(&project, SpinUpStatus::Success, "here").await?;
        ensure!(born.agent_guid == Some(guid), "{step:?}: {born:?}");
        ensure!(operations(&project)? == [born.clone()], "{step:?}");
        let target = get(&project, "here").await?;
        ensure!(target.current_agent_guids == [guid], "{step:?}: {target:?}");
        ensure!(target.use_count == 1, "{step:?}: {target:?}");
        let other = process.redeem(&project, AgentGuid::generate()).await?;
        ensure!(other.is_err(), "{step:?}: a ticket is for one agent");

        // The end stands in the bucket, too.
        fleet.crash().await?;
        fleet.start_again().await?;
        project.insist("targets.list", json!({})).await?;
        let still = came_to(&project, SpinUpStatus::Success, "here").await?;
        ensure!(still == born, "{step:?}: {still:?}");
    }
    Ok(())
}
