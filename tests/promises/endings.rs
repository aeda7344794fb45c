//! Deadlines, and orders to stop.

use std::time::Duration;

use anyhow::Result;
use loom_actors::clock::Clock;
use loom_protocol::ErrorCode;
use loom_protocol::agent::DirectiveKind;
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{ClaimedItem, Reason, WorkStatus, limits};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use super::clocks::{begun, lease, short_clocks};

/// Far enough away that a submission with this deadline arrives before it.
const SOON: Duration = Duration::from_secs(2);
const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_that_is_pending_at_its_deadline_fails() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let now = Clock::system().now();
    let soon = now.after(SOON);
    // Waiting for an agent; held back until the moment before.
    for (deadline, not_before) in [
        (soon, now),
        (soon.after(SOON), soon.after(SOON).before(MOMENT)),
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
                "deadline": now.after(SOON),
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

/// The order is published with each cancellation, and that alone reaches nobody.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn cancel_says_when_its_agent_was_reached() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(3).spawn().await?;
    let mut items = Vec::new();
    for _ in 0..3 {
        items.push(begun(&project, &agent).await?);
    }
    for item in &items {
        let cancel = json!({"id": item.work_item.id});
        project.request("work.cancel", cancel).await?;
    }
    let cancel_of = async |item: &ClaimedItem| {
        let item = project.work(item.work_item.id).await.ok()?;
        item.cancel
    };
    let reached = async |item: &ClaimedItem| cancel_of(item).await?.delivered_at;
    for item in &items {
        let cancel = cancel_of(item).await.unwrap();
        assert_eq!(cancel.delivered_at, None, "nobody has heard of it");
    }

    // By the refusal of its next write.
    let refused = agent.complete(&items[0], "done").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleLease);
    project
        .eventually("the refusal reached it", async || reached(&items[0]).await)
        .await?;
    assert_eq!(reached(&items[1]).await, None);

    // Because it has stopped: nobody told it, or it had been told by the message.
    let done = json!({"result": {"summary": "half of it", "output": {"n": 1}}});
    agent.report("stopped", &items[1], done.clone()).await?;
    let stopped = project.work(items[1].work_item.id).await?;
    let cancel = stopped.cancel.unwrap();
    assert!(cancel.stopped_at.is_some());
    assert_eq!(cancel.delivered_at, cancel.stopped_at);
    assert_eq!(stopped.status, WorkStatus::Cancelled);
    let result = stopped.result.expect("what there was by then");
    assert_eq!(result.summary.as_deref(), Some("half of it"));
    assert_eq!(result.output.unwrap().as_bytes().as_ref(), br#"{"n":1}"#);
    agent.report("stopped", &items[1], done).await?;
    let again = project.work(items[1].work_item.id).await?;
    assert_eq!(again.revision, stopped.revision, "nothing is written twice");

    // By the answer to its heartbeat, however often that is repeated.
    let holding = json!({"holding": [lease(&items[2])]});
    agent.heartbeat(holding.clone()).await?;
    let first = project.eventually("the order reached it", async || reached(&items[2]).await);
    let first = first.await?;
    agent.heartbeat(holding).await?;
    agent.complete(&items[2], "done").await.unwrap_err();
    agent.report("stopped", &items[2], json!({})).await?;
    let cancel = cancel_of(&items[2]).await.unwrap();
    assert_eq!(cancel.delivered_at, Some(first), "the first time counts");
    assert!(cancel.stopped_at.is_some());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stopped_agent_whose_result_is_too_large_has_stopped() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let item = begun(&project, &agent).await?;
    let id = item.work_item.id;
    project.request("work.cancel", json!({"id": id})).await?;
    let large = json!({"result": {"summary": "x".repeat(limits::RESULT + 1)}});
    let refused = agent.report("stopped", &item, large).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    let stopped = project.work(id).await?;
    assert!(stopped.cancel.unwrap().stopped_at.is_some());
    assert!(stopped.result.is_none());
    Ok(())
}
