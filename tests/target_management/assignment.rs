//! The lines of the document about agents at targets: assign, verify the state, unassign; each also with the coordinator
//! killed in the middle.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use loom_protocol::event::SpinUpEventKind;
use loom_protocol::rest::Stats;
use loom_protocol::target::{Target, TargetStatus};
use loom_protocol::{AgentGuid, ErrorCode};
use loom_testkit::agent::FakeAgent;
use loom_testkit::births::{Place, Process, a_while};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

use crate::{get, register};

/// In how many parts the time of a change is divided: at the end of each the coordinator is killed.
const MOMENTS: u32 = 6;

/// An agent that was started by the target for an item that nobody waits for any more.
async fn assigned(project: &TestProject, place: &Place) -> Result<(Process, FakeAgent)> {
    let mut before = place.processes();
    project.submit_plain("rust").await?;
    let process = place.another(project, &mut before).await?;
    let agent = process.register(project, AgentGuid::generate()).await?;
    project.insist("queue.purge", json!({"all": true})).await?;
    Ok((process, agent))
}

/// A fleet whose agents count as gone after a moment.
async fn impatient() -> Result<Fleet> {
    let fleet = Fleet::builder().settings(|settings| {
        settings.agents.stale_after = Duration::from_secs(3);
        settings.agents.heartbeat_every = Duration::from_millis(300);
    });
    fleet.start().await
}

async fn until_it_has(project: &TestProject, agents: &[AgentGuid]) -> Result<Target> {
    let look = async || {
        let target = get(project, "here").await.ok()?;
        (target.current_agent_guids == agents).then_some(target)
    };
    let what = format!("the target has {agents:?}");
    project.eventually(&what, look).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn assign_agent_to_target() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let mut signals = project.signals().await?;
    let target = register(&project, place.target("here", 1)).await?;
    assert_eq!((target.use_count, target.last_used_at), (0, None));
    let (process, agent) = assigned(&project, &place).await?;
    let told = signals.spin_up(SpinUpEventKind::Completed, "here").await?;
    assert_eq!(told.operation_id, process.start);

    // The target knows its agent, and the agent its target.
    let seen = get(&project, "here").await?;
    assert_eq!((seen.status, seen.use_count), (TargetStatus::InUse, 1));
    assert_eq!(seen.current_agent_guids, [agent.guid()]);
    assert!(seen.last_used_at >= Some(target.registered_at), "{seen:?}");
    let at = agent.seen().await?.target_id;
    assert_eq!(at, Some(target.id.to_string()));
    let api = project.api()?;
    let by_rest: Value = api.get(&["targets", "here"], &[]).await?;
    assert_eq!(by_rest["currentAgentGuid"], json!(agent.guid()));
    let stats: Stats = api.get(&["stats"], &[]).await?;
    assert_eq!((stats.targets.in_use, stats.targets.available), (1, 0));

    // It is assigned for as long as it is there: such a target is not removed.
    let removed = project.request("targets.remove", json!({"target": "here"}));
    let refused = removed.await.expect_err("it has an agent");
    assert_eq!(refused.code, ErrorCode::InvalidRequest, "{refused}");
    ensure!(refused.message.contains("has 1 agent;"), "{refused}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn unassign_agent() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    let (process, agent) = assigned(&project, &place).await?;
    let guid = agent.guid();
    agent.deregister().await?;
    let seen = until_it_has(&project, &[]).await?;
    assert_eq!(
        (seen.status, seen.use_count),
        (TargetStatus::Available, 1),
        "it was used once"
    );
    let stats: Stats = project.call("stats", &json!({})).await?;
    assert_eq!((stats.targets.in_use, stats.targets.available), (0, 1));
    let again = process.redeem(&project, guid).await?;
    let refused = again.expect_err("its ticket was for that assignment");
    assert_eq!(refused.code, ErrorCode::Forbidden, "{refused}");
    // It has room for the next one, and may be removed when that has gone too.
    let (_, agent) = assigned(&project, &place).await?;
    until_it_has(&project, &[agent.guid()]).await?;
    agent.deregister().await?;
    until_it_has(&project, &[]).await?;
    let target = json!({"target": "here"});
    project.request("targets.remove", target).await?;
    Ok(())
}

/// Killed while nothing is under way: what is known of a target afterwards is the same.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_state_of_a_target_is_the_same_after_the_coordinator_was_killed() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 2)).await?;
    let mut off = place.target("off", 1);
    off["enabled"] = json!(false);
    register(&project, off).await?;
    let (process, agent) = assigned(&project, &place).await?;
    until_it_has(&project, &[agent.guid()]).await?;
    let (here, off) = (get(&project, "here").await?, get(&project, "off").await?);
    for _ in 0..2 {
        fleet.crash().await?;
        fleet.start_again().await?;
        project.insist("targets.list", json!({})).await?;
        assert_eq!(get(&project, "here").await?, here);
        assert_eq!(get(&project, "off").await?, off);
    }
    a_while().await;
    assert_eq!(get(&project, "here").await?, here);
    assert_eq!(place.processes(), [process], "nobody else was started");
    Ok(())
}

/// An agent leaves, and the coordinator is killed at one moment after the other of that.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_leaves_while_the_coordinator_is_killed_is_assigned_no_longer() -> Result<()>
{
    // One that has left the registry and not its target yet has so long to come back.
    let mut fleet = impatient().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    let (_, agent) = assigned(&project, &place).await?;
    let began = Instant::now();
    agent.deregister().await?;
    until_it_has(&project, &[]).await?;
    let undisturbed = began.elapsed();
    for moment in 0..=MOMENTS {
        let (process, agent) = assigned(&project, &place).await?;
        let guid = agent.guid();
        let leaving = tokio::spawn(agent.deregister());
        // deliberate sleep: until the moment at which the coordinator is killed
        tokio::time::sleep(undisturbed * moment / MOMENTS).await;
        fleet.crash().await?;
        // An answer or none: it says so once more, as long as it is known.
        let _ = leaving.await?;
        fleet.start_again().await?;
        let gone = project.insist("agents.deregister", json!({"guid": guid}));
        if let Err(error) = gone.await {
            assert_eq!(error.code, ErrorCode::NotRegistered, "{error}");
        }
        let seen = until_it_has(&project, &[]).await?;
        ensure!(seen.use_count == u64::from(moment) + 2, "{seen:?}");
        let again = process.redeem(&project, guid).await?;
        let error = again.expect_err("it has left");
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        process.kill();
    }
    a_while().await;
    let count = usize::try_from(MOMENTS)? + 2;
    ensure!(place.processes().len() == count, "one for each item");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_dies_while_no_coordinator_runs_is_assigned_no_longer() -> Result<()> {
    let mut fleet = impatient().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    let (process, agent) = assigned(&project, &place).await?;
    fleet.crash().await?;
    process.kill();
    agent.die();
    fleet.start_again().await?;
    project.insist("targets.list", json!({})).await?;
    let seen = until_it_has(&project, &[]).await?;
    assert_eq!(seen.status, TargetStatus::Available);
    let (_, next) = assigned(&project, &place).await.context("the next one")?;
    until_it_has(&project, &[next.guid()]).await?;
    Ok(())
}
