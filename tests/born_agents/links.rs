//! An agent is linked to the target from which it was born for as long as it lives, whatever dies in between.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_protocol::AgentGuid;
use loom_testkit::births::Process;
use loom_testkit::fleet::{Role, TestProject};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::fixture::{Reporting, quick_fleet, register, registration};

/// An agent whose heart beats until this is dropped.
struct Beating(AbortHandle);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn newborn(here: &Reporting) -> Result<(AgentGuid, Process, Beating)> {
    let started = here.start().await?;
    let guid = AgentGuid::generate();
    let with_ticket = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
    register(&here.project, &with_ticket).await?;
    here.until_it_has(&[guid]).await?;
    let project = here.project.clone();
    let beating = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(200));
        loop {
            every.tick().await;
            let beat = json!({"guid": guid, "instanceId": "run-1"});
            // A coordinator that is killed with it answers never: its heart does not wait for that.
            let beat = project.request("agents.heartbeat", beat);
            let _ = tokio::time::timeout(Duration::from_millis(500), beat).await;
        }
    });
    Ok((guid, started, Beating(beating.abort_handle())))
}

async fn until_gone(project: &TestProject, started: &Process) -> Result<()> {
    let gone = async || (!started.lives()).then_some(());
    project.eventually("its process is ended", gone).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_deregisters_frees_its_target_and_its_ticket_is_of_no_more_use() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let (guid, started, _beating) = newborn(&here).await?;
    project.request("queue.purge", json!({"all": true})).await?;
    project
        .request("agents.deregister", json!({"guid": guid}))
        .await?;
    let target = here.until_it_has(&[]).await?;
    ensure!(target["status"] == "available", "{target}");
    let stats = project.request("stats", json!({})).await?;
    ensure!(
        stats["targets"]["available"] == 1 && stats["targets"]["inUse"] == 0,
        "{stats}"
    );
    let again = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
    let refused = register(&project, &again)
        .await
        .err()
        .context("it has gone")?;
    ensure!(refused.message.contains("has gone"), "{refused}");
    // Without its ticket it is an agent like any other.
    let plain = register(&project, &registration(guid, "run-1", None)).await?;
    assert_eq!(plain.agent.target_id, None);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_process_that_goes_on_after_its_agent_has_left_is_ended() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let (guid, started, beating) = newborn(&here).await?;
    drop(beating);
    project.request("queue.purge", json!({"all": true})).await?;
    project
        .request("agents.deregister", json!({"guid": guid}))
        .await?;
    here.until_it_has(&[]).await?;
    until_gone(&project, &started).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_falls_silent_frees_its_target_and_its_process_is_ended() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let (guid, started, beating) = newborn(&here).await?;
    project.request("queue.purge", json!({"all": true})).await?;
    // It is not taken for dead while it beats, for longer than it may be silent.
    // deliberate sleep: longer than `stale_after`
    tokio::time::sleep(Duration::from_secs(3)).await;
    here.until_it_has(&[guid]).await?;
    ensure!(started.lives());
    drop(beating);
    until_gone(&project, &started).await?;
    let agent = project.request("agents.get", json!({"guid": guid})).await?;
    ensure!(agent["status"] == "offline", "{agent}");
    here.until_it_has(&[]).await?;
    Ok(())
}

/// The coordinator died between the link and the entry, and the agent does not come back.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_was_linked_and_never_comes_frees_its_target() -> Result<()> {
    let mut fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    for crashes in [false, true] {
        let started = here.start().await?;
        let guid = AgentGuid::generate();
        started.redeem(&project, guid).await??;
        here.until_it_has(&[guid]).await?;
        project.request("queue.purge", json!({"all": true})).await?;
        if crashes {
            fleet.crash().await?;
            fleet.start_again().await?;
            project.insist("stats", json!({})).await?;
        }
        here.until_it_has(&[]).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_goes_while_no_coordinator_runs_is_unlinked_and_one_that_lives_is_not()
-> Result<()> {
    let mut fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::with(&project, &json!({"maxAgents": 2})).await?;
    let (gone, _started, beating) = newborn(&here).await?;
    project.request("queue.purge", json!({"all": true})).await?;
    fleet.crash().await?;
    drop(beating);
    // It takes its entry out by itself, as an agent may.
    let bucket = project.agents_bucket().await?;
    bucket.delete(gone.to_string()).await?;
    fleet.start_again().await?;
    project.insist("stats", json!({})).await?;
    here.until_it_has(&[]).await?;

    let (living, started, _beating) = newborn(&here).await?;
    project.request("queue.purge", json!({"all": true})).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    project.insist("stats", json!({})).await?;
    // deliberate sleep: longer than `stale_after`, in which it would be given up
    tokio::time::sleep(Duration::from_secs(4)).await;
    here.until_it_has(&[living]).await?;
    ensure!(started.lives());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_link_goes_although_the_actors_die_when_it_should() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    for role in [Role::GcReaper, Role::TargetManager, Role::AgentRegistry] {
        let (guid, _started, _beating) = newborn(&here).await?;
        project.request("queue.purge", json!({"all": true})).await?;
        project
            .insist("agents.deregister", json!({"guid": guid}))
            .await?;
        project.kill(role)?;
        here.until_it_has(&[]).await?;
    }
    Ok(())
}
