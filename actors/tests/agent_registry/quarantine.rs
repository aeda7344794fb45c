//! A quarantine is over when an operator says so, whatever its agent does.

use std::time::Duration;

use loom_actors::agent_registry::AgentChange;
use loom_actors::domain::breaker::{AttemptEnd, BreakerTerms};
use loom_protocol::agent::{AgentStatus, RegisterRequest};
use loom_protocol::{AgentGuid, WorkId};
use serde_json::json;

use super::fixture::{Fixture, eventually, request};

const STALE_AFTER: Duration = Duration::from_secs(30);

async fn quarantined(fixture: &mut Fixture) -> AgentGuid {
    let guid = fixture.registered("broken").await.guid;
    let reason = "it failed 3 items".to_owned();
    fixture.registry.quarantine_in_background(guid, reason);
    fixture.sees(guid, AgentStatus::Quarantined).await;
    guid
}

fn the_same(guid: AgentGuid) -> RegisterRequest {
    RegisterRequest {
        guid: Some(guid),
        instance_id: Some("another-run".into()),
        ..request("broken")
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn deregistering_ends_no_quarantine() {
    let mut fixture = Fixture::start(STALE_AFTER).await;
    let guid = quarantined(&mut fixture).await;
    fixture.registry.deregister(guid).await.unwrap();
    fixture.changed(guid, AgentChange::Gone).await;
    assert!(fixture.told().contains(&"agent:shutdown".to_owned()));
    fixture.sees(guid, AgentStatus::Offline).await;
    assert_eq!(fixture.entry(guid).await["status"], json!("offline"));

    // Nor does it in the next process.
    fixture.replace_registry().await;
    let back = fixture.registry.register(the_same(guid)).await.unwrap();
    assert_eq!(back.status, AgentStatus::Quarantined);
    assert!(back.quarantine.unwrap().reason.contains("3 items"));
    fixture.registry.deregister(guid).await.unwrap();
    fixture.registry.deregister(guid).await.unwrap();

    // An operator does, while it is away too; then its entry goes with it as any other.
    fixture
        .registry
        .release_from_quarantine(guid)
        .await
        .unwrap();
    let back = fixture.registry.register(the_same(guid)).await.unwrap();
    assert_eq!((back.status, back.quarantine), (AgentStatus::Online, None));
    fixture.registry.deregister(guid).await.unwrap();
    assert_eq!(fixture.entry(guid).await, json!(null));
    let back = fixture.registry.register(the_same(guid)).await.unwrap();
    assert_eq!(back.status, AgentStatus::Online);
    fixture.end().await;
}

/// A broken program that is started anew after each item.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_leaves_between_its_failures_is_broken_all_the_same() {
    let fixture = Fixture::start(STALE_AFTER).await;
    let guid = fixture.registered("broken").await.guid;
    let terms = BreakerTerms {
        after: Some(3),
        within: Duration::from_secs(10),
    };
    let mut is_broken = Vec::new();
    for _ in 0..4 {
        let failed = AttemptEnd::Failed(WorkId::generate(), Duration::ZERO);
        let directory = &fixture.args.directory;
        is_broken.push(directory.note_attempt(guid, failed, &terms));
        fixture.registry.deregister(guid).await.unwrap();
        fixture.registry.register(the_same(guid)).await.unwrap();
    }
    assert_eq!(is_broken, [false, false, true, false]);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn deleting_its_own_entry_ends_no_quarantine() {
    let mut fixture = Fixture::start(STALE_AFTER).await;
    let guid = quarantined(&mut fixture).await;
    let bucket = fixture.bucket().await;
    bucket.delete(guid.to_string()).await.unwrap();
    fixture.sees(guid, AgentStatus::Offline).await;
    eventually("its entry is written again", async || {
        (fixture.entry(guid).await["status"] == json!("offline")).then_some(())
    })
    .await;
    fixture.put(guid, json!({})).await;
    fixture.sees(guid, AgentStatus::Quarantined).await;

    // Both at once.
    bucket.delete(guid.to_string()).await.unwrap();
    fixture.put(guid, json!({"handle": "again"})).await;
    let seen = eventually("it is back", async || {
        let agent = fixture.args.directory.snapshot(guid)?;
        (agent.handle == "again").then_some(agent)
    })
    .await;
    assert_eq!(seen.status, AgentStatus::Quarantined);
    fixture.end().await;
}
