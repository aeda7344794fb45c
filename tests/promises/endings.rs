//! Deadlines, and orders to stop.

use std::time::Duration;

use anyhow::Result;
use loom_actors::clock::Clock;
use loom_protocol::ErrorCode;
use loom_protocol::agent::DirectiveKind;
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{Reason, WorkStatus};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use super::clocks::{begun, lease, short_clocks};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_that_is_pending_at_its_deadline_fails() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let now = Clock::system().now();
    let soon = now.after(Duration::from_millis(300));
    let hour = Duration::from_hours(1);
    // Waiting for an agent; held back beyond its deadline; too late already.
    for (deadline, not_before) in [
        (soon, now),
        (soon, now.after(hour)),
        (now.before(hour), now),
    ] {
        let item = json!({
            "description": "d", "capability": "rust", "deadline": deadline, "notBefore": not_before,
        });
        let id = project.submit(item).await?.id;
        let failed = signals.work(WorkEventKind::Failed, id).await?;
        assert_eq!(failed.reason, Some(Reason::Deadline));
        assert!(failed.timestamp >= deadline, "not a moment before");
        let item = project.work(id).await?;
        assert_eq!((item.status, item.attempts), (WorkStatus::Failed, 0));
    }
    let agent = project.agent("rust").spawn().await?;
    assert_eq!(agent.claim(json!({})).await?.len(), 0, "nobody gets it");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_that_runs_at_its_deadline_is_stopped_and_fails() -> Result<()> {
    let fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    for obeys in [true, false] {
        let agent = project.agent("rust").spawn().await?;
        let now = Clock::system().now();
        let id = project
            .submit(json!({
                "description": "d", "capability": "rust", "timeoutMs": 60_000,
                "deadline": now.after(Duration::from_millis(300)),
            }))
            .await?
            .id;
        let items = agent.claim(json!({"start": true})).await?;
        let holding = json!({"holding": [lease(&items[0])]});
        let told = project.eventually("the agent is told to stop", async || {
            let answer = agent.heartbeat(holding.clone()).await.ok()?;
            let orders = answer.directives.into_iter();
            orders
                .into_iter()
                .find(|order| order.kind == DirectiveKind::Cancel)
        });
        let order = told.await?;
        assert_eq!((order.work_item_id, order.attempt), (Some(id), Some(1)));
        assert_eq!(
            project.work(id).await?.status,
            WorkStatus::InProgress,
            "in its grace"
        );
        if obeys {
            agent.report("stopped", &items[0], json!({})).await?;
        }
        let failed = signals.work(WorkEventKind::Failed, id).await?;
        assert_eq!(failed.reason, Some(Reason::Deadline));
        let refused = agent.complete(&items[0], "too late").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::StaleLease);
        project
            .eventually("the order is void", async || {
                let answer = agent.heartbeat(json!({"holding": []})).await.ok()?;
                answer.directives.is_empty().then_some(())
            })
            .await?;
        agent.deregister().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_has_not_stopped_yet_keeps_its_slot_over_a_restart() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let item = begun(&project, &agent).await?;
    let id = item.work_item.id;
    project.request("work.cancel", json!({"id": id})).await?;
    let next = project.submit_plain("rust").await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    assert_eq!(agent.claim(json!({})).await?.len(), 0, "it runs still");
    let holding = json!({"holding": [lease(&item)]});
    let told = project.eventually("it is told again", async || {
        let answer = agent.heartbeat(holding.clone()).await.ok()?;
        answer
            .directives
            .into_iter()
            .find(|order| order.work_item_id == Some(id))
    });
    told.await?;
    // That it does not name it any more says as much as `work.stopped`.
    agent.heartbeat(json!({"holding": []})).await?;
    let cancel = project.work(id).await?.cancel.unwrap();
    assert!(cancel.delivered_at.is_some() && cancel.stopped_at >= cancel.delivered_at);
    assert_eq!(agent.claim_one().await?.work_item.id, next);
    Ok(())
}
