//! A bucket that comes later, goes, comes again; NATS that is away.

use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream;
use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::names;
use loom_testkit::fleet::{PATIENCE, Role, TestProject};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::{
    BARE_STALE, Client, find_bucket, fleet, house, is, is_gone, is_there, make_bucket, seen,
};

async fn destroy(project: &TestProject) -> Result<()> {
    let jetstream = jetstream::new(project.client().clone());
    jetstream
        .delete_key_value(names::SHARED_AGENTS_BUCKET)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_bucket_that_appears_later_is_read_and_one_that_was_destroyed_stays_so() -> Result<()> {
    let fleet = fleet().start().await?;
    let project = fleet.project().await?;
    // An agent of ours lives and dies without that bucket.
    let silent = project.agent("rust").spawn().await?;
    is(&project, silent.guid(), AgentStatus::Offline).await?;
    let bucket = make_bucket(&project).await?;
    let mut client = Client::online(&bucket, &project).await?;

    destroy(&project).await?;
    // Who is known is judged by its silence, and nothing makes the bucket again.
    is(&project, client.guid, AgentStatus::Offline).await?;
    assert!(find_bucket(&project).await.is_none());

    let bucket = make_bucket(&project).await?;
    client.bucket = bucket.clone();
    client.put().await?;
    is(&project, client.guid, AgentStatus::Online).await?;
    Client::online(&bucket, &project).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_empty_bucket_keeps_nobody_waiting() -> Result<()> {
    let (mut fleet, project, bucket) = house(fleet()).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    let silent = project.agent("rust").spawn().await?;
    is(&project, silent.guid(), AgentStatus::Offline).await?;
    Client::online(&bucket, &project).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_outage_of_nats_is_nobodys_silence() -> Result<()> {
    let (fleet, project, bucket) = house(fleet()).await?;
    let mut client = Client::online(&bucket, &project).await?;
    for _ in 0..2 {
        fleet.nats().kill().await?;
        // deliberate sleep: an outage longer than anybody may be silent
        sleep(BARE_STALE + Duration::from_millis(500)).await;
        fleet.nats().restart().await?;
        let back_at = Instant::now();
        let beaten = async || client.put().await.ok();
        project.eventually("it beats again", beaten).await?;
        while back_at.elapsed() < BARE_STALE {
            if let Ok(agent) = seen(&project, client.guid).await {
                assert_eq!(agent.status, AgentStatus::Online);
            }
            client.put().await?;
            // deliberate sleep: the client beats at a pace of its own
            sleep(BARE_STALE / 10).await;
        }
    }
    // The reader goes on, too.
    let another = Client::online(&bucket, &project).await?;
    another.delete().await?;
    is_gone(&project, another.guid).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_put_and_deleted_while_nobody_looked_is_known_afterwards() -> Result<()> {
    let builder = fleet().settings(|settings| settings.agents.bury_after = 4 * BARE_STALE);
    let (mut fleet, project, bucket) = house(builder).await?;
    let mut clients: Vec<_> = (0..3).map(|_| Client::new(&bucket, project.id())).collect();
    for client in &mut clients[..2] {
        client.put().await?;
        client.is_online_by_its_put(&project, BARE_STALE).await?;
    }
    fleet.crash().await?;
    clients[0].delete().await?;
    clients[1].update().await?;
    clients[2].put().await?;
    fleet.start_again().await?;
    for client in &mut clients[1..] {
        is_there(&project, client.guid).await?;
        client.is_online_by_its_put(&project, BARE_STALE).await?;
    }
    is_gone(&project, clients[0].guid).await?;
    // What went without a mark, as by its age, is buried as any other.
    let subject = format!("$KV.{}.{}", names::SHARED_AGENTS_BUCKET, clients[1].key);
    bucket.stream.purge().filter(subject).await?;
    is_gone(&project, clients[1].guid).await?;
    clients[2].put().await?;
    clients[2].is_online_by_its_put(&project, BARE_STALE).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_of_the_registry_loses_no_agent_and_revives_nobody() -> Result<()> {
    let (_fleet, project, bucket) = house(fleet()).await?;
    let (mut dead, mut living) = (
        Client::new(&bucket, project.id()),
        Client::new(&bucket, project.id()),
    );
    dead.put().await?;
    is(&project, dead.guid, AgentStatus::Online).await?;
    is(&project, dead.guid, AgentStatus::Offline).await?;
    for n in 1..4 {
        project.kill(Role::AgentRegistry)?;
        living.put().await?;
        project.wait_until_restarted(Role::AgentRegistry, n).await?;
        is(&project, living.guid, AgentStatus::Online).await?;
        assert_eq!(
            seen(&project, dead.guid).await?.status,
            AgentStatus::Offline
        );
    }
    let listed: Vec<serde_json::Value> = project.call("agents.list", &json!({})).await?;
    assert_eq!(listed.len(), 2);
    dead.update().await?;
    is(&project, dead.guid, AgentStatus::Online).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_starts_takes_no_work_from_such_a_client() -> Result<()> {
    let (mut fleet, project, bucket) = house(fleet()).await?;
    let mut client = Client::online(&bucket, &project).await?;
    let item = json!({"description": "d", "capability": "rust", "boundary": "work"});
    let id = project.submit(item).await?.id;
    project.claim(client.guid, json!({"start": true})).await?;
    for _ in 0..3 {
        fleet.crash().await?;
        client.update().await?;
        fleet.start_again().await?;
        is(&project, client.guid, AgentStatus::Online).await?;
        // What nobody holds would have gone back by now.
        let other = project.agent("rust").spawn().await?;
        is(&project, other.guid(), AgentStatus::Offline).await?;
        client.update().await?;
        let item = project.work(id).await?;
        assert_eq!((item.attempt, item.assigned_to), (1, Some(client.guid)));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_that_slept_knows_its_clients_when_it_is_opened_again() -> Result<()> {
    let (fleet, project, bucket) = house(fleet()).await?;
    let stays = Client::online(&bucket, &project).await?;
    let leaves = Client::online(&bucket, &project).await?;
    let beating = stays.keep_beating(BARE_STALE / 6);
    let goes_idle = async || {
        let projects = fleet.service()?.projects();
        let stopped = // deliberate sleep: the project's
        projects.deactivate(project.id(), PATIENCE).await;
        anyhow::Ok(stopped?)
    };
    for _ in 0..2 {
        goes_idle().await?;
        project.submit_plain("rust").await?;
    }
    let listed = async |count: usize| {
        let look = async || {
            let listed: Vec<Agent> = project.call("agents.list", &json!({})).await.ok()?;
            let online = listed
                .iter()
                .filter(|agent| agent.status == AgentStatus::Online);
            (online.count() == count).then_some(())
        };
        project.eventually("those who live are online", look).await
    };
    listed(1).await?;
    leaves.delete().await?;
    is_gone(&project, leaves.guid).await?;
    goes_idle().await?;
    let mut comes = Client::new(&bucket, project.id());
    comes.put().await?;
    is(&project, comes.guid, AgentStatus::Online).await?;
    is_gone(&project, leaves.guid).await?;
    beating.abort();
    Ok(())
}
