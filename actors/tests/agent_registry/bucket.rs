//! Agents that know nothing but their entry in the bucket.

use std::time::Duration;

use futures_util::future::join_all;
use loom_actors::agent_registry::{AgentChange, AgentFilter};
use loom_actors::nats::kv::{Bucket, WatchEvent};
use loom_protocol::agent::{AgentStatus, HeartbeatRequest};
use loom_protocol::{AgentGuid, Timestamp, names};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::{Fixture, eventually, request};

const STALE: Duration = Duration::from_secs(30);

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_bare_put_is_a_registration_and_is_left_as_it_was_written() {
    let mut fixture = Fixture::start(STALE).await;
    let guid = AgentGuid::generate();
    fixture
        .put(guid, json!({"metadata": {"agentType": "codex"}}))
        .await;
    let agent = fixture.sees(guid, AgentStatus::Online).await;
    assert_eq!(agent.agent_type, "codex");
    assert_eq!(agent.boundaries, ["default"]);
    fixture.changed(guid, AgentChange::Registered).await;
    assert_eq!(fixture.told(), ["agent:registered"]);
    // Beating by itself it goes on with the revision that it wrote last.
    let bucket = fixture.bucket().await;
    let key = guid.to_string();
    let mut revision = bucket.entry(&key).await.unwrap().unwrap().revision;
    for n in 0..20 {
        let value = json!({"capabilities": ["rust"], "beat": n}).to_string();
        revision = bucket.update(&key, value.into(), revision).await.unwrap();
    }
    fixture
        .registry
        .ready(crate::fixture::PATIENCE)
        .await
        .unwrap();
    fixture.stop_registry().await;
    let entry = bucket.entry(&key).await.unwrap().unwrap();
    assert_eq!(entry.revision, revision);
    assert_eq!(
        entry.value,
        json!({"beat": 19, "capabilities": ["rust"]}).to_string()
    );
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn puts_tell_the_status_until_the_goodbye() {
    let mut fixture = Fixture::start(STALE).await;
    let guid = AgentGuid::generate();
    for (said, status) in [
        ("online", AgentStatus::Online),
        ("busy", AgentStatus::Busy),
        ("offline", AgentStatus::Offline),
        ("busy", AgentStatus::Busy),
        ("offline", AgentStatus::Offline),
    ] {
        fixture
            .put(
                guid,
                json!({"status": said, "registeredAt": "2001-01-01T00:00:00Z"}),
            )
            .await;
        let agent = fixture.sees(guid, status).await;
        assert!(agent.registered_at > Timestamp::from_millis(1_700_000_000_000));
    }
    fixture.changed(guid, AgentChange::Offline).await;
    let heartbeat = HeartbeatRequest {
        status_reason: None,
        instance_id: None,
        guid,
        status: None,
        current_task_count: None,
        holding: None,
    };
    fixture.registry.heartbeat(heartbeat).await.unwrap();
    fixture.sees(guid, AgentStatus::Online).await;
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_deletes_its_entry_has_deregistered() {
    let mut fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    let bucket = fixture.bucket().await;
    bucket.delete(agent.guid.to_string()).await.unwrap();
    fixture.changed(agent.guid, AgentChange::Gone).await;
    assert!(fixture.args.directory.get(agent.guid).is_none());
    // It finds its own mark, and may go on from there.
    fixture.registered("another").await;
    let mark = bucket.entry(agent.guid.to_string()).await.unwrap().unwrap();
    assert_eq!(mark.operation, async_nats::jetstream::kv::Operation::Delete);
    let subject = format!(
        "$KV.{}.{}",
        names::agents_bucket(&fixture.args.project),
        agent.guid
    );
    let mark = bucket
        .stream
        .get_last_raw_message_by_subject(&subject)
        .await
        .unwrap();
    assert!(mark.headers.get(names::WRITER_HEADER).is_none(), "{mark:?}");
    fixture.put(agent.guid, json!({"handle": "back"})).await;
    assert_eq!(
        fixture.sees(agent.guid, AgentStatus::Online).await.handle,
        "back"
    );
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_cannot_be_read_is_left_as_it_is_and_counted() {
    let mut fixture = Fixture::without_registry(STALE).await;
    loom_actors::agent_registry::ensure_bucket(&fixture.args)
        .await
        .unwrap();
    let bucket = fixture.bucket().await;
    let broken = AgentGuid::generate();
    bucket.put("not-a-guid", "x".into()).await.unwrap();
    bucket.put(broken.to_string(), "{".into()).await.unwrap();
    fixture.start_registry().await;
    let good = fixture.registered("ada").await;
    let quarantined = async |n| {
        let is = async || (fixture.args.directory.quarantined() == n).then_some(());
        eventually(&format!("{n} are in quarantine"), is).await;
    };
    quarantined(2).await;
    let odd = json!({"guid": broken, "capabilities": ["a\tb"]}).to_string();
    bucket
        .put(broken.to_string(), odd.clone().into())
        .await
        .unwrap();
    let another = AgentGuid::generate();
    bucket
        .put(
            another.to_string(),
            json!({"guid": good.guid, "capabilities": ["x"]})
                .to_string()
                .into(),
        )
        .await
        .unwrap();
    quarantined(3).await;
    assert_eq!(
        bucket.get(broken.to_string()).await.unwrap().unwrap(),
        odd.as_bytes()
    );
    assert_eq!(fixture.args.directory.len(), 1);

    fixture.put(broken, json!({})).await;
    fixture.sees(broken, AgentStatus::Online).await;
    bucket.purge("not-a-guid").await.unwrap();
    let mended = loom_protocol::agent::RegisterRequest {
        guid: Some(another),
        ..request("mended")
    };
    fixture.registry.register(mended).await.unwrap();
    quarantined(0).await;
    assert_eq!(fixture.entry(another).await["handle"], "mended");
    fixture.changed(broken, AgentChange::Registered).await;
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn puts_that_race_our_writes_lose_nothing() {
    let fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    let guid = agent.guid;
    let flips = async {
        for n in 0..200 {
            let status = if n % 2 == 0 {
                AgentStatus::Busy
            } else {
                AgentStatus::Online
            };
            let heartbeat = HeartbeatRequest {
                status_reason: None,
                instance_id: None,
                guid,
                status: Some(status),
                current_task_count: Some(n),
                holding: None,
            };
            fixture.registry.heartbeat(heartbeat).await.unwrap();
        }
    };
    let puts = async {
        for n in 0..100 {
            fixture
                .put(
                    guid,
                    json!({"hostname": format!("h{n}"), "targetId": "mine"}),
                )
                .await;
        }
    };
    let registrations = async {
        for _ in 0..20 {
            let again = loom_protocol::agent::RegisterRequest {
                guid: Some(guid),
                ..request("ada")
            };
            fixture.registry.register(again).await.unwrap();
        }
    };
    tokio::join!(flips, puts, registrations);
    fixture
        .put(guid, json!({"hostname": "last", "status": "busy"}))
        .await;
    let entry = eventually("the last put is merged and written", async || {
        let entry = fixture.entry(guid).await;
        (entry["hostname"] == "last" && entry["projectId"] == "p").then_some(entry)
    })
    .await;
    assert_eq!(entry["status"], "busy");
    assert_eq!(entry["handle"], "ada");
    assert_eq!(entry["registeredAt"], agent.registered_at.to_string());
    assert!(entry["targetId"].is_null(), "not the agent's to write");
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_bucket_is_never_far_behind_the_living() {
    let stale = Duration::from_secs(3);
    let fixture = Fixture::start(stale).await;
    let mut guids = Vec::new();
    for n in 0..50 {
        guids.push(fixture.registered(&format!("a{n}")).await.guid);
    }
    let silent = fixture.registered("silent").await;
    let first = fixture
        .bucket()
        .await
        .entry(silent.guid.to_string())
        .await
        .unwrap()
        .unwrap()
        .revision;
    let end = Instant::now() + 2 * stale;
    let mut writes = 0;
    while Instant::now() < end {
        for guid in &guids {
            let heartbeat = HeartbeatRequest {
                status_reason: None,
                instance_id: None,
                guid: *guid,
                status: None,
                current_task_count: None,
                holding: None,
            };
            fixture.registry.heartbeat(heartbeat).await.unwrap();
        }
        let entry = fixture.entry(guids[writes % guids.len()]).await;
        writes += 1;
        let written: Timestamp = entry["lastHeartbeat"].as_str().unwrap().parse().unwrap();
        let age = fixture.args.clock.now().since(written);
        assert!(age < stale / 2, "lastHeartbeat is {age:?} old");
        // deliberate sleep: the entry is looked at over a stretch of time
        sleep(Duration::from_millis(50)).await;
    }
    let entry = fixture
        .bucket()
        .await
        .entry(silent.guid.to_string())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(entry.revision, first, "who is silent is not written");
    let info = fixture.bucket().await.status().await.unwrap().info;
    let sweeps = 2 * 8 + 2;
    assert!(
        info.state.last_sequence < 60 + 50 * sweeps,
        "heartbeats are written together"
    );
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn ten_thousand_agents_cost_a_page_what_ten_cost() {
    let fixture = Fixture::without_registry(STALE).await;
    loom_actors::agent_registry::ensure_bucket(&fixture.args)
        .await
        .unwrap();
    let bucket = fixture.bucket().await;
    for _ in 0..20 {
        let puts = (0..500).map(|n| {
            let guid = AgentGuid::generate();
            let capability = format!("c{}", n % 5);
            let entry = json!({"guid": guid, "capabilities": [capability, "common"]}).to_string();
            bucket.put(guid.to_string(), entry.into())
        });
        assert!(join_all(puts).await.iter().all(Result::is_ok));
    }
    fixture.start_registry().await;
    fixture
        .registry
        .ready(crate::fixture::PATIENCE)
        .await
        .unwrap();
    let directory = &fixture.args.directory;
    assert_eq!(directory.totals().total, 10_000);
    let filter = AgentFilter {
        capability: Some("common".into()),
        boundary: Some("default".into()),
        status: Some(AgentStatus::Online),
        ..AgentFilter::default()
    };
    let page = directory.find(&filter, None, 10).unwrap();
    assert_eq!((page.agents.len(), page.info.total), (10, 10_000));
    assert!(page.examined <= 60, "looked at {}", page.examined);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_put_of_a_replaced_run_is_no_sign_of_life_and_is_written_over() {
    let mut fixture = Fixture::start(STALE).await;
    let guid = AgentGuid::generate();
    for (run, handle) in [("first", "ada"), ("second", "bob")] {
        fixture
            .put(guid, json!({"instanceId": run, "handle": handle}))
            .await;
        eventually("the put is applied", async || {
            let agent = fixture.args.directory.snapshot(guid)?;
            (agent.handle == handle).then_some(())
        })
        .await;
    }
    let seen = fixture
        .args
        .directory
        .snapshot(guid)
        .unwrap()
        .last_heartbeat;
    fixture
        .put(
            guid,
            json!({"instanceId": "first", "handle": "ada", "capabilities": ["go"]}),
        )
        .await;
    let entry = eventually("the entry says again who is registered", async || {
        let entry = fixture.entry(guid).await;
        (entry["instanceId"] == "second").then_some(entry)
    })
    .await;
    assert_eq!(entry["replacedRuns"][0]["instanceId"], "first");
    let agent = fixture.args.directory.snapshot(guid).unwrap();
    assert_eq!((agent.handle.as_str(), agent.last_heartbeat), ("bob", seen));
    assert_eq!(agent.capabilities, ["rust"]);

    // The next process knows it too.
    fixture.replace_registry().await;
    let refused = fixture
        .registry
        .admit(guid, Some("first"))
        .await
        .unwrap_err();
    assert_eq!(refused.details.unwrap()["replaced"], true);
    fixture.registry.admit(guid, Some("second")).await.unwrap();
    fixture.end().await;
}

/// Whoever asks for the next event may give up at any moment, as one does who waits for several things: the bucket that the
/// server has told of is opened all the same.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_watch_that_is_given_up_again_and_again_opens_the_bucket_that_was_made() {
    let fixture = Fixture::without_registry(STALE).await;
    let args = &fixture.args;
    for n in 0..20 {
        let name = format!("made-later-{n}");
        let bucket = Bucket::new(&args.jetstream, &name, 1, &args.guard);
        let mut watch = bucket.watch_foreign();
        assert!(matches!(watch.next().await, WatchEvent::Missing));
        bucket.ensure().await.unwrap();
        let began = Instant::now();
        // A little longer each time: each await of the opening is where it is given up once.
        let mut patience = Duration::ZERO;
        let opened = loop {
            patience += Duration::from_micros(50);
            match timeout(patience, watch.next()).await {
                Ok(event) => break event,
                Err(_given_up) => assert!(began.elapsed() < Duration::from_secs(5), "never opened"),
            }
        };
        assert!(matches!(opened, WatchEvent::Opened { .. }), "{opened:?}");
    }
}
