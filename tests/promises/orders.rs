use std::time::Duration;

use anyhow::Result;
use loom_protocol::AgentGuid;
use loom_protocol::agent::{Agent, AgentStatus, DirectiveKind, HeartbeatAnswer};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

async fn register(project: &TestProject, guid: AgentGuid, run: &str) -> Result<()> {
    let body = json!({
        "guid": guid, "handle": "sleeper", "agentType": "t", "capabilities": ["rust"],
        "instanceId": run,
    });
    project.request("agents.register", body).await?;
    Ok(())
}

async fn is_told_to_end(project: &TestProject, guid: AgentGuid) -> Result<bool> {
    let body = json!({ "guid": guid });
    let answer: HeartbeatAnswer = project.call("agents.heartbeat", &body).await?;
    let mut orders = answer.directives.iter();
    Ok(orders.any(|order| order.kind == DirectiveKind::Shutdown))
}

async fn until_offline(project: &TestProject, guid: AgentGuid) -> Result<()> {
    let look = async || {
        let body = json!({ "guid": guid });
        let seen: Agent = project.call("agents.get", &body).await.ok()?;
        (seen.status == AgentStatus::Offline).then_some(())
    };
    project.eventually("it is offline", look).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_order_to_end_waits_for_the_run_of_an_offline_agent_and_not_for_the_next() -> Result<()>
{
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.agents.heartbeat_every = Duration::from_millis(200);
            settings.agents.stale_after = Duration::from_millis(600);
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    register(&project, guid, "one").await?;
    until_offline(&project, guid).await?;

    let named = guid.to_string();
    let path = ["agents", &named, "shutdown"];
    let said: Value = project.api()?.post(&path, &json!({})).await?;
    let message = said["message"].as_str().unwrap_or_default();
    assert!(message.contains("is offline"), "{said}");
    assert_eq!(said["guid"], json!(guid));

    let path = ["agents", &named, "resume"];
    let said: Value = project.api()?.post(&path, &json!({})).await?;
    assert_eq!(said["guid"], json!(guid));

    // The same run is heard of again, and registers again.
    assert!(is_told_to_end(&project, guid).await?);
    register(&project, guid, "one").await?;
    assert!(is_told_to_end(&project, guid).await?);
    // Another run of it was not meant.
    register(&project, guid, "two").await?;
    assert!(!is_told_to_end(&project, guid).await?);
    Ok(())
}
