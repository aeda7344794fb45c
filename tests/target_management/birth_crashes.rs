//! Deaths while agents are started: of the coordinator, of agents meanwhile, and of NATS.

use anyhow::{Result, ensure};
use loom_protocol::AgentGuid;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_testkit::births::{Place, a_while, came_to, operations, submit};
use loom_testkit::fleet::{Fleet, PATIENCE};
use tokio::time::timeout;

use crate::{get, register};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_ended_while_no_coordinator_lived_has_failed_and_what_runs_goes_on() -> Result<()> {
    let mut fleet = Fleet::builder()
        .settings(|settings| settings.targets.max_concurrent = 2)
        .start()
        .await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 2)).await?;
    submit(&project, 2).await?;
    let processes = place.started(&project, 2).await?;
    let both_run = async || {
        let all = operations(&project).ok()?;
        let run = |operation: &&SpinUpOperation| operation.status == SpinUpStatus::InProgress;
        (all.iter().filter(run).count() == 2).then_some(())
    };
    project.eventually("both are in progress", both_run).await?;
    fleet.crash().await?;
    processes[0].kill();
    fleet.start_again().await?;
    project
        .insist("targets.list", serde_json::json!({}))
        .await?;
    let failed = came_to(&project, SpinUpStatus::Failed, "here").await?;
    assert_eq!(failed.operation_id, processes[0].start);
    let agent = processes[1]
        .register(&project, AgentGuid::generate())
        .await?;
    let born = came_to(&project, SpinUpStatus::Success, "here").await?;
    assert_eq!(born.operation_id, processes[1].start);
    assert!(processes[1].lives());
    assert_eq!(
        get(&project, "here").await?.current_agent_guids,
        [agent.guid()]
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn after_a_start_those_who_lived_before_have_the_time_to_be_heard() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let agent = project.agent("rust").spawn().await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    register(&project, place.target("here", 1)).await?;
    // Another one can be done by nobody who is there; nobody knows that yet.
    submit(&project, 1).await?;
    a_while().await;
    assert_eq!(operations(&project)?, [], "an agent has not been heard");
    agent.heartbeat(serde_json::json!({})).await?;
    a_while().await;
    assert_eq!(operations(&project)?, [], "it is there");
    agent.deregister().await?;
    place.started(&project, 1).await?;
    Ok(())
}

/// NATS is away while agents are started and while they register: whatever was in doubt, each is there once.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_outage_of_nats_doubles_nobody_and_loses_nobody() -> Result<()> {
    let fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 3)).await?;
    submit(&project, 3).await?;
    let outage = async || -> Result<()> {
        fleet.nats().kill().await?;
        fleet.nats().restart().await
    };
    outage().await?;
    let (mut registering, mut known) = (Vec::new(), Vec::new());
    while registering.len() < 3 {
        let process = place.another(&project, &mut known).await?;
        let project = project.clone();
        registering.push(tokio::spawn(async move {
            let guid = AgentGuid::generate();
            process.register_insistently(&project, guid).await
        }));
        outage().await?;
    }
    for registering in registering {
        timeout(PATIENCE, registering).await???;
    }
    let is_so = async || Some(get(&project, "here").await.ok()?).filter(|t| t.use_count == 3);
    let target = project.eventually("three are born", is_so).await?;
    a_while().await;
    assert_eq!(target.current_agent_guids.len(), 3);
    assert_eq!(place.processes().len(), 3);
    let all = operations(&project)?;
    ensure!(
        all.len() == 3 && all.iter().all(|o| o.status == SpinUpStatus::Success),
        "{all:?}"
    );
    Ok(())
}
