//! Agents that have nothing to do are sent home, and none that has, or might have.

use std::time::Duration;

use anyhow::{Result, ensure};
use loom_protocol::AgentGuid;
use loom_protocol::agent::{AgentStatus, DirectiveKind};
use loom_protocol::work::WorkStatus;
use loom_testkit::agent::Behaviour;
use serde_json::json;
use tokio::time::sleep;

use crate::fixture::{Reporting, lives, quick_fleet, register, registration};

/// How long an agent of the race may be idle.
const IDLE: Duration = Duration::from_millis(120);
/// A moment before.
const JUST_BEFORE: Duration = Duration::from_millis(114);

/// An item comes at the very moment at which an agent that asks for work is sent home. It gets the item and no order, or
/// the order and no item; then the item waits for somebody else.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn no_claim_and_no_order_to_end_cross() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let (mut served, mut sent_home) = (0, 0);
    for round in 0..60_u64 {
        let agent = project
            .agent("rust")
            .heartbeat_every(Duration::from_millis(200))
            .field("spindownAfterIdleMs", json!(IDLE.as_millis()))
            .spawn()
            .await?;
        let claiming = agent.claim(json!({"waitMs": 5000, "start": true}));
        let submitting = async {
            // deliberate sleep: until about the moment at which it has been idle for long enough
            sleep(JUST_BEFORE + Duration::from_micros(400 * (round % 30))).await;
            project.submit_plain("rust").await
        };
        let leaving = async {
            let orders = async || {
                let answer = agent.heartbeat(json!({})).await.ok()?;
                let mut orders = answer.directives.into_iter();
                orders.find(|order| order.kind == DirectiveKind::Shutdown)
            };
            project.eventually("it is told to end", orders).await
        };
        let id;
        tokio::select! {
            (claimed, submitted) = async { tokio::join!(claiming, submitting) } => {
                id = submitted?;
                let claimed = claimed?;
                if let Some(item) = claimed.first() {
                    assert_eq!(item.work_item.id, id);
                    for _ in 0..5 {
                        let beat = agent.heartbeat(json!({})).await?;
                        ensure!(beat.directives.is_empty(), "an order beside an item: {beat:?}");
                    }
                    agent.complete(item, "done").await?;
                    served += 1;
                    continue;
                }
            }
            told = leaving => {
                told?;
                ensure!(agent.seen().await?.status == AgentStatus::Draining);
                let refused = agent.claim(json!({})).await?;
                ensure!(refused.is_empty(), "an item beside an order");
                id = project.submit_plain("rust").await?;
            }
        }
        sent_home += 1;
        // Nothing is lost: whoever comes gets it, at its first attempt.
        agent.deregister().await?;
        let next = project.agent("rust").spawn().await?;
        let look = async || {
            for item in next.claim(json!({"max": 5})).await.ok()? {
                assert_eq!(item.lease.attempt, 1);
                next.complete(&item, "done").await.ok()?;
            }
            let item = project.work(id).await.ok()?;
            (item.status == WorkStatus::Completed).then_some(())
        };
        project
            .eventually("the item is done by somebody else", look)
            .await?;
        next.deregister().await?;
    }
    // Both must have happened, or nothing was tried.
    ensure!(
        served > 0 && sent_home > 0,
        "served {served}, sent home {sent_home}"
    );
    Ok(())
}

/// Killed between the steps of sending an agent home, the dispatcher and the reaper leave nobody withheld for ever.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_withheld_and_not_told_to_go_gets_work() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let agent = project
        .agent("rust")
        .heartbeat_every(Duration::from_millis(200))
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    let parts = project.parts()?;
    let before = parts.dispatcher.withhold(agent.guid()).await?;
    ensure!(before.is_some(), "it has nothing to do");
    let id = project.submit_plain("rust").await?;
    ensure!(
        agent.claim(json!({})).await?.is_empty(),
        "it is offered nothing"
    );
    // Asked again there is an item that it may take.
    ensure!(parts.dispatcher.withhold(agent.guid()).await?.is_none());
    let claimed = agent.claim(json!({"waitMs": 20_000})).await?;
    ensure!(
        claimed.first().is_some_and(|item| item.work_item.id == id),
        "{claimed:?}"
    );
    ensure!(
        parts.dispatcher.withhold(agent.guid()).await?.is_none(),
        "it has an item"
    );
    // Where the dispatcher had died meanwhile, the registry sees it too.
    let soon = tokio::time::Instant::now() + Duration::from_secs(1);
    ensure!(
        !parts
            .registry
            .send_home_idle(agent.guid(), "idle", soon)
            .await?
    );
    // An order that comes too late is none.
    agent.complete(&claimed[0], "done").await?;
    let late = tokio::time::Instant::now();
    let told = parts
        .registry
        .send_home_idle(agent.guid(), "late", late)
        .await?;
    ensure!(!told && agent.seen().await?.status == AgentStatus::Online);
    Ok(())
}

/// One that does not obey: its process is ended, and its target is free.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_idle_agent_that_does_not_obey_is_ended_with_its_process() -> Result<()> {
    let fleet = quick_fleet()
        .settings(|settings| settings.agents.idle_timeout = Duration::from_secs(1))
        .start()
        .await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let started = here.start().await?;
    let guid = AgentGuid::generate();
    let with_ticket = registration(guid, "run-1", Some(&started.ticket));
    register(&project, &with_ticket).await?;
    here.until_it_has(&[guid]).await?;
    let beat = async || {
        let beat = json!({"guid": guid, "instanceId": "run-1"});
        project.request("agents.heartbeat", beat).await
    };
    // Something waits that it may take: it stays, however long it is idle.
    for _ in 0..10 {
        let answer = beat().await?;
        ensure!(answer["directives"] == json!([]), "{answer}");
        // deliberate sleep: between two beats; all in all longer than it may be idle
        sleep(Duration::from_millis(200)).await;
    }
    project.request("queue.purge", json!({"all": true})).await?;
    let ordered = async || {
        let answer = beat().await.ok()?;
        let orders = answer["directives"].as_array()?;
        orders
            .iter()
            .any(|order| order["kind"] == "shutdown")
            .then_some(())
    };
    project.eventually("it is told to end", ordered).await?;
    ensure!(lives(&started.pid), "it has a grace");
    let gone = async || {
        let _ = beat().await;
        (!lives(&started.pid)).then_some(())
    };
    project.eventually("its process is ended", gone).await?;
    Ok(())
}
