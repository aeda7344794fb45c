//! What the registry knows of an id from before an agent was born with it says nothing of that agent: it has used its
//! ticket, and its own registration is on its way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_protocol::AgentGuid;
use loom_protocol::agent::AgentStatus;
use loom_protocol::target::Target;
use loom_testkit::births::{Place, Process, a_while, submit};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

use crate::{get, register};

/// A registration without a ticket; one without a name for its run where that is `None`.
fn by_itself(guid: AgentGuid, run: Option<&str>) -> Value {
    json!({
        "guid": guid, "instanceId": run, "handle": "before", "agentType": "claude-code",
        "capabilities": ["docs"],
    })
}

/// The start of an agent whose ticket nobody has used.
async fn one_started(project: &TestProject, place: &Place) -> Result<(Target, Process)> {
    let target = register(project, place.target("here", 1)).await?;
    submit(project, 1).await?;
    let process = place.started(project, 1).await?.remove(0);
    project.request("queue.purge", json!({"all": true})).await?;
    Ok((target, process))
}

/// The agent uses its ticket, and registers after what happens in between: it is its target's all the same.
async fn is_born(
    project: &TestProject,
    (before, run): (Option<&str>, Option<&str>),
    comes_again: bool,
) -> Result<()> {
    let place = Place::new()?;
    let guid = AgentGuid::generate();
    let (target, process) = one_started(project, &place).await?;
    project
        .request("agents.register", by_itself(guid, before))
        .await?;
    let mut newborn = process.newborn(guid);
    newborn.instance_id = run.map(str::to_owned);
    let manager = project.parts()?.target_manager.clone();
    manager.redeem(&process.ticket(), newborn).await?;

    if comes_again {
        let again = project.request("agents.register", by_itself(guid, before));
        ensure!(again.await?["targetId"].is_null(), "it was not born");
    } else {
        let gone = json!({"guid": guid, "instanceId": before});
        project.request("agents.deregister", gone).await?;
    }
    a_while().await;
    let targets = project.parts()?.targets.clone();
    ensure!(targets.linked(guid).is_some(), "it has not come yet");

    let mut registration = process.registration(guid);
    registration["instanceId"] = json!(run);
    let born = project.request("agents.register", registration).await?;
    ensure!(
        born["targetId"] == json!(target.id.to_string()),
        "{born}, and its target is {}",
        target.id
    );
    ensure!(get(project, "here").await?.current_agent_guids == [guid]);
    // From now on what the registry says of that id is said of it.
    let gone = json!({"guid": guid, "instanceId": run});
    project.request("agents.deregister", gone).await?;
    let is_gone = async || targets.linked(guid).is_none().then_some(());
    project.eventually("it has left its target", is_gone).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_run_of_before_that_goes_or_comes_again_takes_no_newborn_agent_from_its_target()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    for before in [Some("run-1"), None] {
        for run in [Some("run-2"), None] {
            for comes_again in [false, true] {
                let project = fleet.project().await?;
                let born = is_born(&project, (before, run), comes_again).await;
                born.with_context(|| {
                    format!("{before:?}, then {run:?}; it comes again: {comes_again}")
                })?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_newborn_agent_is_not_ended_because_a_run_of_before_has_been_silent() -> Result<()> {
    let stale_after = Duration::from_secs(2);
    let grace = Duration::from_millis(300);
    let fleet = Fleet::builder()
        .settings(move |settings| {
            settings.agents.stale_after = stale_after;
            settings.agents.heartbeat_every = Duration::from_millis(500);
            settings.agents.idle_grace = grace;
        })
        .start()
        .await?;
    for run in [Some("run-2"), None] {
        let (project, place) = (fleet.project().await?, Place::new()?);
        let guid = AgentGuid::generate();
        let (_target, process) = one_started(&project, &place).await?;
        let before = by_itself(guid, Some("run-1"));
        project.request("agents.register", before).await?;
        let parts = project.parts()?;
        let is_offline = async || {
            let entry = parts.agents.get(guid)?;
            (entry.agent().status == AgentStatus::Offline).then_some(())
        };
        project
            .eventually("the run of before is offline", is_offline)
            .await?;
        // deliberate sleep: so long is the process of one that is silent left alone
        tokio::time::sleep(grace * 2).await;

        let mut newborn = process.newborn(guid);
        newborn.instance_id = run.map(str::to_owned);
        let manager = parts.target_manager.clone();
        manager.redeem(&process.ticket(), newborn).await?;
        let looked = project.request("gc.run", json!({})).await?;
        a_while().await;
        ensure!(process.lives(), "{run:?}: its process is ended: {looked}");
    }
    Ok(())
}
