//! Whom we take for dead, and where our verdict is seen: never in an entry of that bucket.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::kv::Operation;
use loom_protocol::agent::AgentStatus;
use loom_protocol::event::{AgentEventKind, ShutdownReason};
use loom_protocol::names;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{
    BARE_STALE, Client, STALE, fleet, house, is, is_gone, is_there, make_bucket, seen,
};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_silent_client_is_offline_after_its_own_time_and_its_entry_stays_its_own() -> Result<()> {
    let (_fleet, project, bucket) = house(fleet()).await?;
    let mut client = Client::new(&bucket, project.id());
    client.put().await?;
    let put_at = Instant::now();
    is(&project, client.guid, AgentStatus::Online).await?;
    is(&project, client.guid, AgentStatus::Offline).await?;
    assert!(put_at.elapsed() >= BARE_STALE, "{:?}", put_at.elapsed());
    client.assert_untouched().await?;
    // It goes on with the revision that it wrote last.
    client.update().await?;
    is(&project, client.guid, AgentStatus::Online).await?;
    // One that names an interval is judged by it.
    let mut entry = client.entry();
    entry["heartbeatIntervalMs"] = json!("200");
    bucket.put(&client.key, entry.to_string().into()).await?;
    let named_at = Instant::now();
    is(&project, client.guid, AgentStatus::Offline).await?;
    assert!(named_at.elapsed() >= STALE, "{:?}", named_at.elapsed());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_client_whose_clock_is_wrong_is_alive_for_as_long_as_it_beats() -> Result<()> {
    let (mut fleet, project, bucket) = house(fleet()).await?;
    let mut clients = Vec::new();
    for off_by in [-3, 5, 0] {
        let mut client = Client::new(&bucket, project.id());
        client.off_by = off_by;
        client.put().await?;
        is(&project, client.guid, AgentStatus::Online).await?;
        clients.push(client);
    }
    let until = Instant::now() + BARE_STALE * 2;
    while Instant::now() < until {
        for client in &mut clients {
            client.update().await?;
            let agent = seen(&project, client.guid).await?;
            assert_eq!(agent.status, AgentStatus::Online, "{}", client.off_by);
        }
        // deliberate sleep: the clients beat at a pace of their own
        sleep(BARE_STALE / 10).await;
    }
    // A coordinator that starts learns of the wrong clock by the next beat at the latest.
    fleet.crash().await?;
    fleet.start_again().await?;
    for client in &mut clients {
        client.update().await?;
        is(&project, client.guid, AgentStatus::Online).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_old_entry_that_is_found_at_the_start_is_not_online() -> Result<()> {
    let (mut fleet, project, bucket) = house(fleet()).await?;
    fleet.stop().await?;
    let (mut old, mut young) = (
        Client::new(&bucket, project.id()),
        Client::new(&bucket, project.id()),
    );
    old.off_by = -2;
    old.put().await?;
    fleet.start_again().await?;
    young.put().await?;
    is(&project, young.guid, AgentStatus::Online).await?;
    let found = is(&project, old.guid, AgentStatus::Offline).await?;
    let written: Value = serde_json::from_slice(&bucket.get(&old.key).await?.context("one")?)?;
    assert_eq!(written["lastHeartbeat"], found.last_heartbeat.to_string());
    old.update().await?;
    is(&project, old.guid, AgentStatus::Online).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_client_that_deletes_its_entry_has_left_and_finds_its_own_mark() -> Result<()> {
    let fleet = fleet().start().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let bucket = make_bucket(&project).await?;
    let mut client = Client::new(&bucket, project.id());
    client.put().await?;
    signals
        .agent(AgentEventKind::Registered, client.guid)
        .await?;
    client.delete().await?;
    let told = signals.agent(AgentEventKind::Shutdown, client.guid).await?;
    assert_eq!(told.reason, Some(ShutdownReason::Manual));
    assert_eq!(told.graceful, Some(true));
    is_gone(&project, client.guid).await?;
    let mark = bucket.entry(&client.key).await?.context("a mark")?;
    assert_eq!(mark.operation, Operation::Delete);
    assert_eq!(mark.revision, client.revision + 1);
    client.put().await?;
    is(&project, client.guid, AgentStatus::Online).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_dead_are_buried_and_the_living_are_not() -> Result<()> {
    let builder = fleet().settings(|settings| settings.agents.bury_after = BARE_STALE);
    let (_fleet, project, bucket) = house(builder).await?;
    let mut signals = project.signals().await?;
    let (mut dead, mut living) = (
        Client::new(&bucket, project.id()),
        Client::new(&bucket, project.id()),
    );
    dead.put().await?;
    living.put().await?;
    let living_guid = living.guid;
    let beating = living.keep_beating(BARE_STALE / 6);
    let told = signals.agent(AgentEventKind::Shutdown, dead.guid).await?;
    assert_eq!(told.reason, Some(ShutdownReason::Error));
    assert_eq!(told.detail.as_deref(), Some("silent for too long"));
    let entry = bucket.entry(&dead.key).await?;
    assert!(entry.is_none_or(|entry| entry.operation != Operation::Put));
    assert_eq!(
        seen(&project, living_guid).await?.status,
        AgentStatus::Online
    );
    beating.abort();
    Ok(())
}

/// Each puts at about the moment at which it is buried: who is gone from the bucket was judged by
/// the entry that was there, and who is there lives.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_entry_that_was_put_meanwhile_is_not_buried() -> Result<()> {
    let builder = fleet().settings(|settings| {
        settings.agents.bare_stale_after = STALE;
        settings.agents.bury_after = STALE;
    });
    let (_fleet, project, bucket) = house(builder).await?;
    // The bucket was made just now: until it is read, nobody is known by it.
    let mut first = Client::new(&bucket, project.id());
    first.put().await?;
    is_there(&project, first.guid).await?;
    let mut clients: Vec<_> = (0..40)
        .map(|_| Client::new(&bucket, project.id()))
        .collect();
    for client in &mut clients {
        client.put().await?;
    }
    // deliberate sleep: their burials begin about now
    sleep(STALE).await;
    for (n, client) in clients.iter_mut().enumerate() {
        // deliberate sleep: each puts a little later than the one before
        sleep(Duration::from_millis(10 + (n as u64 % 7))).await;
        client.put().await?;
        let entry = bucket
            .entry(&client.key)
            .await?
            .context("it was put just now")?;
        assert_eq!(
            (entry.operation, entry.revision),
            (Operation::Put, client.revision)
        );
        client.is_online_by_its_put(&project, STALE).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_pause_outlasts_the_coordinator_and_is_not_written_into_the_entry() -> Result<()> {
    let (mut fleet, project, bucket) = house(fleet()).await?;
    let mut client = Client::online(&bucket, &project).await?;
    let item = json!({"description": "d", "capability": "rust", "boundary": "work"});
    project.submit(item).await?;
    let items = project.claim(client.guid, json!({})).await?;
    let release = json!({
        "guid": client.guid, "id": items[0].work_item.id, "attempt": items[0].lease.attempt,
        "reason": "usage-limit", "retryAfterMs": 600_000,
    });
    project.request("work.release", release).await?;
    is(&project, client.guid, AgentStatus::Paused).await?;
    client.update().await?;
    let own = project.agents_bucket().await?;
    let remembered = async || own.get(client.guid.to_string()).await.ok()?;
    project
        .eventually("the pause is remembered", remembered)
        .await?;

    fleet.crash().await?;
    fleet.start_again().await?;
    client.update().await?;
    let paused = is(&project, client.guid, AgentStatus::Paused).await?;
    assert!(paused.paused_until.is_some());
    let resume = json!({"guid": client.guid});
    project.request("agents.resume", resume).await?;
    is(&project, client.guid, AgentStatus::Online).await?;
    let forgotten = async || {
        let entry = own.get(client.guid.to_string()).await.ok()?;
        entry.is_none().then_some(())
    };
    project
        .eventually("nothing is left of it", forgotten)
        .await?;
    client.update().await?;
    assert_eq!(names::SHARED_AGENTS_BUCKET, bucket.name);
    Ok(())
}
