//! The events that such clients follow.

use anyhow::Result;
use loom_protocol::event::{AgentEvent, AgentEventKind, Event, ShutdownReason};
use loom_testkit::agent::Behaviour;
use loom_testkit::fleet::Signals;
use serde_json::json;

use crate::client::fleet;

/// Waits until an agent is told to have so many items.
async fn counted(
    signals: &mut Signals,
    agent: &loom_testkit::agent::FakeAgent,
    count: u32,
) -> Result<AgentEvent> {
    let guid = agent.guid();
    let what = format!("agent:updated with {count} items");
    let is_it = |event: &Event| match event {
        Event::Agent(event)
            if event.agent.guid == guid
                && event.kind == AgentEventKind::Updated
                && event.current_task_count == Some(count) =>
        {
            Some((**event).clone())
        }
        _ => None,
    };
    signals.find(&what, is_it).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn agent_updated_is_told_when_the_number_of_items_changes() -> Result<()> {
    let fleet = fleet().start().await?;
    let project = fleet.project().await?;
    let beating = project.agent("rust").slots(3).behaviour(Behaviour::Beat);
    let agent = beating.spawn().await?;
    let mut signals = project.signals().await?;
    project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    let told = counted(&mut signals, &agent, 1).await?;
    assert_eq!(told.previous_status, told.new_status);
    agent.complete(&item, "done").await?;
    counted(&mut signals, &agent, 0).await?;

    // A busy agent is told of together.
    for _ in 0..100 {
        project.submit_plain("rust").await?;
        let item = agent.claim_one().await?;
        agent.complete(&item, "done").await?;
    }
    project.submit_plain("rust").await?;
    agent.claim_one().await?;
    counted(&mut signals, &agent, 1).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn agent_shutdown_is_told_when_the_agent_has_gone_and_why() -> Result<()> {
    let fleet = fleet().start().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let told_to = project
        .agent("rust")
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    let order = json!({"guid": told_to.guid(), "reason": "enough"});
    project.request("agents.shutdown", order).await?;
    let draining = |event: &Event| match event {
        Event::Agent(event) if event.agent.guid == told_to.guid() => {
            assert_ne!(event.kind, AgentEventKind::Shutdown, "it has not gone yet");
            let status = event.new_status?;
            (status == loom_protocol::agent::AgentStatus::Draining).then_some(())
        }
        _ => None,
    };
    signals.find("it is draining", draining).await?;
    let guid = told_to.guid();
    told_to.deregister().await?;
    let told = signals.agent(AgentEventKind::Shutdown, guid).await?;
    assert_eq!(told.reason, Some(ShutdownReason::Manual));
    assert_eq!(told.detail.as_deref(), Some("enough"));

    let idle = project
        .agent("rust")
        .field("spindownAfterIdleMs", json!(300))
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    project
        .eventually("it is sent home", async || {
            let agent = idle.seen().await.ok()?;
            (agent.status == loom_protocol::agent::AgentStatus::Draining).then_some(())
        })
        .await?;
    let guid = idle.guid();
    idle.deregister().await?;
    let told = signals.agent(AgentEventKind::Shutdown, guid).await?;
    assert_eq!(told.reason, Some(ShutdownReason::IdleTimeout));
    assert_eq!(told.graceful, Some(true));
    Ok(())
}
