//! Entries that go by themselves, in buckets that somebody else has made or emptied.

use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::stream;
use loom_protocol::AgentGuid;
use loom_protocol::work::{ClaimedItem, LeaseRef, Reason, WorkStatus};
use loom_testkit::fleet::{Fleet, FleetBuilder, TestProject};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

const STALE: Duration = Duration::from_secs(2);
/// How long an agent may be silent of which nothing is known.
const BARE_STALE: Duration = Duration::from_secs(6);
/// Shorter than any of our clocks.
const AGE: Duration = Duration::from_secs(1);

fn fleet() -> FleetBuilder {
    Fleet::builder().settings(|settings| {
        settings.agents.heartbeat_every = STALE / 8;
        settings.agents.stale_after = STALE;
        settings.agents.bare_stale_after = BARE_STALE;
    })
}

/// An agent that registered by request and has begun an item.
async fn at_work(project: &TestProject, guid: AgentGuid) -> Result<ClaimedItem> {
    register(project, guid).await?;
    project.submit_plain("rust").await?;
    let body = json!({"guid": guid, "instanceId": "one", "start": true});
    let mut answer = project.request("work.claim", body).await?;
    Ok(serde_json::from_value(answer["items"][0].take())?)
}

async fn register(project: &TestProject, guid: AgentGuid) -> Result<Value> {
    let body = json!({
        "guid": guid, "instanceId": "one", "handle": "ada", "agentType": "t", "capabilities": ["rust"],
    });
    Ok(project.request("agents.register", body).await?)
}

fn lease(item: &ClaimedItem) -> LeaseRef {
    LeaseRef {
        id: item.work_item.id,
        attempt: item.lease.attempt,
    }
}

/// As other clients make a bucket: what is in it goes by its age, here with a mark that tells.
async fn make_aging(project: &TestProject, bucket: &str) -> Result<()> {
    let bucket = format!("{bucket}-{}", project.id());
    let config = stream::Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        deny_delete: true,
        max_age: AGE,
        duplicate_window: AGE,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(AGE * 5),
        ..Default::default()
    };
    project.jetstream().create_stream(config).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn buckets_that_somebody_made_with_an_age_limit_take_no_work_from_the_living() -> Result<()> {
    let mut fleet = fleet().start().await?;
    let project = fleet.project().await?;
    for bucket in ["loom-work", "loom-graveyard", "loom-agents"] {
        make_aging(&project, bucket).await?;
    }
    let guid = AgentGuid::generate();
    let item = project.eventually("it has begun", async || at_work(&project, guid).await.ok());
    let item = item.await?;
    let mut pace = interval(STALE / 8);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for times in 0..2 {
        let until = Instant::now() + AGE * 4;
        while Instant::now() < until {
            pace.tick().await;
            let body = json!({"guid": guid, "instanceId": "one", "holding": [lease(&item)]});
            let Ok(answer) = project.insist("agents.heartbeat", body).await else {
                anyhow::bail!("it is not known any more");
            };
            assert_eq!(answer["lost"], json!([]));
        }
        if times == 0 {
            fleet.crash().await?;
            fleet.start_again().await?;
        }
    }
    let body = json!({"guid": guid, "instanceId": "one", "id": item.work_item.id, "attempt": 1});
    project.insist("work.complete", body).await?;
    let item = project.work(item.work_item.id).await?;
    assert_eq!(
        (item.status, item.attempt, item.attempts),
        (WorkStatus::Completed, 1, 0)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_whose_entry_was_lost_while_nobody_looked_has_its_time_to_come_back() -> Result<()>
{
    let mut fleet = fleet().start().await?;
    let project = fleet.project().await?;
    let (back, away) = (AgentGuid::generate(), AgentGuid::generate());
    let kept = at_work(&project, back).await?;
    let lost = at_work(&project, away).await?;
    let bucket = project.agents_bucket().await?;
    fleet.crash().await?;
    bucket.stream.purge().await?;
    fleet.start_again().await?;
    let answer = project.eventually("it registers again", async || {
        register(&project, back).await.ok()
    });
    assert_eq!(answer.await?["leases"], json!([lease(&kept)]));
    // The other one is given the time that an agent may be silent, and not more.
    let mut pace = interval(STALE / 8);
    let gone = loop {
        pace.tick().await;
        let body = json!({"guid": back, "instanceId": "one", "holding": [lease(&kept)]});
        project.insist("agents.heartbeat", body).await?;
        let item = project.work(lost.work_item.id).await?;
        if item.status == WorkStatus::Pending {
            break item;
        }
    };
    assert_eq!(gone.pending_reason, Some(Reason::AgentLost));
    let body = json!({"guid": back, "instanceId": "one", "id": kept.work_item.id, "attempt": 1});
    project.insist("work.complete", body).await?;
    let item = project.work(kept.work_item.id).await?;
    assert_eq!((item.status, item.attempts), (WorkStatus::Completed, 0));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_left_before_a_start_has_its_items_taken_back_at_once() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let item = at_work(&project, guid).await?;
    let bucket = project.agents_bucket().await?;
    fleet.crash().await?;
    bucket.delete(guid.to_string()).await?;
    fleet.start_again().await?;
    project
        .eventually("it is pending", async || {
            let item = project.work(item.work_item.id).await.ok()?;
            (item.status == WorkStatus::Pending).then_some(())
        })
        .await
}
