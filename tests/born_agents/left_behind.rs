//! What goes on after its agent has left is ended, whatever becomes of the project and of the coordinator meanwhile.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::house::{House, LOOM};

/// Its agent does one item and leaves; what started the agent goes on.
async fn one_that_stays(house: &House) -> Result<()> {
    let script = format!("'{LOOM}' agent run --once -- true; exec sleep 1234");
    let config = json!({"command": "sh", "args": ["-c", script]});
    house.target_of(config).await?;
    let id = house.project.submit_plain("rust").await?;
    house.project.until_ended(id).await?;
    Ok(())
}

async fn until_nothing_lives(house: &House) -> Result<()> {
    let nothing = async || house.processes().is_empty().then_some(());
    let project = &house.project;
    project.eventually("no process is left", nothing).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_that_has_a_process_to_end_does_not_fall_asleep_over_it() -> Result<()> {
    let house = House::with(&[("projects.sleep_after", "1s")]).await?;
    one_that_stays(&house).await?;
    // Nobody asks the project anything: it would sleep long before `agents.idle_grace` is over.
    until_nothing_lives(&house).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_next_coordinator_ends_what_the_one_before_was_about_to() -> Result<()> {
    let mut house = House::open().await?;
    one_that_stays(&house).await?;
    let free = async || {
        let target = house.seen().await?;
        (target["status"] == "available").then_some(())
    };
    let project = &house.project;
    project.eventually("the agent has left", free).await?;
    house.coordinator.kill_9().await;
    ensure!(!house.processes().is_empty(), "it was ended too early");
    house.coordinator.restart().await?;
    until_nothing_lives(&house).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_command_that_goes_into_the_background_is_told_to_stay() -> Result<()> {
    let house = House::open().await?;
    house.target_of(json!({"command": "true"})).await?;
    house.project.submit_plain("rust").await?;
    let failed = async || {
        let operations = house.operations().await.ok()?;
        operations.into_iter().find_map(|operation| operation.error)
    };
    let project = &house.project;
    let error = project.eventually("the start has failed", failed).await?;
    ensure!(
        error.contains("exit status: 0; the command must stay"),
        "{error}"
    );
    ensure!(error.contains("`exec`"), "{error}");
    Ok(())
}
