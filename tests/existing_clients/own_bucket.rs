//! Clients that keep their entry in the bucket of their project by themselves.

use anyhow::{Context as _, Result};
use loom_protocol::AgentGuid;
use loom_protocol::agent::AgentStatus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{BARE_STALE, fleet, is};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_entry_that_a_client_keeps_is_written_only_where_our_verdict_has_to_be_seen()
-> Result<()> {
    let mut fleet = fleet().start().await?;
    let project = fleet.project().await?;
    project.submit_plain("python").await?;
    let bucket = project.agents_bucket().await?;
    let guid = AgentGuid::generate();
    // In upper case, as some write it.
    let key = guid.to_string().to_uppercase();
    let entry = |n: u32| json!({"capabilities": ["a b"], "mine": {"n": n}}).to_string();
    let mut revision = bucket.put(&key, entry(0).into()).await?;
    is(&project, guid, AgentStatus::Online).await?;
    let until = Instant::now() + BARE_STALE * 2;
    let mut n = 0;
    while Instant::now() < until {
        n += 1;
        let updated = bucket.update(&key, entry(n).into(), revision).await;
        revision = updated.context("somebody wrote into the entry")?;
        if n == 5 {
            fleet.crash().await?;
            fleet.start_again().await?;
        }
        // deliberate sleep: the client beats at a pace of its own
        sleep(BARE_STALE / 10).await;
    }
    is(&project, guid, AgentStatus::Online).await?;

    // Then it is silent, and that is to be seen, beside all that it wrote.
    is(&project, guid, AgentStatus::Offline).await?;
    let shown = async |status: &str| {
        let look = async || {
            let value = bucket.get(&key).await.ok()??;
            let value: Value = serde_json::from_slice(&value).ok()?;
            (value["status"] == status).then_some(value)
        };
        project.eventually(status, look).await
    };
    let written = shown("offline").await?;
    assert_eq!(written["mine"], json!({"n": n}));
    assert_eq!(written["capabilities"], json!(["a b"]));
    assert!(written["handle"].is_null(), "nothing is filled in");
    assert!(
        bucket
            .update(&key, entry(0).into(), revision)
            .await
            .is_err()
    );

    // The next coordinator reads it as it is.
    fleet.crash().await?;
    fleet.start_again().await?;
    is(&project, guid, AgentStatus::Offline).await?;
    // Heard of otherwise, the verdict is taken back where it was written.
    project
        .request("agents.heartbeat", json!({"guid": guid}))
        .await?;
    shown("online").await?;
    let mut revision = bucket.put(&key, entry(7).into()).await?;
    for n in 8..12 {
        let updated = bucket.update(&key, entry(n).into(), revision).await;
        revision = updated.context("somebody wrote into the entry")?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_quarantine_is_seen_in_a_clients_entry_and_outlasts_its_puts() -> Result<()> {
    let mut fleet = fleet().start().await?;
    let project = fleet.project().await?;
    project.submit_plain("python").await?;
    let bucket = project.agents_bucket().await?;
    let guid = AgentGuid::generate();
    let entry = || json!({"capabilities": ["rust"], "mine": 1}).to_string();
    bucket.put(guid.to_string(), entry().into()).await?;
    is(&project, guid, AgentStatus::Online).await?;
    let parts = project.parts()?;
    parts
        .registry
        .quarantine_in_background(guid, "it failed".into());
    drop(parts);
    let shown = async || {
        let look = async || {
            let value = bucket.get(guid.to_string()).await.ok()??;
            let value: Value = serde_json::from_slice(&value).ok()?;
            (value["status"] == "quarantined" && value["mine"] == 1).then_some(())
        };
        project.eventually("it is shown as quarantined", look).await
    };
    shown().await?;
    // A put may come while the answer to our own write is on its way.
    for _ in 0..20 {
        bucket.put(guid.to_string(), entry().into()).await?;
        shown().await?;
    }
    fleet.crash().await?;
    fleet.start_again().await?;
    is(&project, guid, AgentStatus::Quarantined).await?;
    bucket.put(guid.to_string(), entry().into()).await?;
    shown().await?;
    let agent = is(&project, guid, AgentStatus::Quarantined).await?;
    assert_eq!(agent.quarantine.context("why")?.reason, "it failed");
    Ok(())
}
