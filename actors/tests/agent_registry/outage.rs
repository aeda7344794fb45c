//! Crashes of the actor, of the process and of NATS.

use std::time::Duration;

use async_nats::jetstream::stream;
use loom_actors::agent_registry::AgentChange;
use loom_protocol::agent::{AgentStatus, HeartbeatRequest, RegisterRequest};
use loom_protocol::{AgentGuid, ErrorCode, names};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::fixture::{Fixture, PATIENCE, eventually, request};

const STALE: Duration = Duration::from_secs(2);

fn beat(guid: AgentGuid, status: AgentStatus) -> HeartbeatRequest {
    HeartbeatRequest {
        status_reason: None,
        instance_id: None,
        guid,
        status: Some(status),
        current_task_count: None,
        holding: None,
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_server_without_room_is_unavailable() {
    let fixture = Fixture::start(STALE).await;
    fixture.registered("first").await;
    let name = fixture.bucket().await.stream_name;
    let set_room = async |messages| {
        let stream = fixture.args.jetstream.get_stream(&name).await.unwrap();
        let mut config = stream.cached_info().config.clone();
        config.max_messages = messages;
        fixture.args.jetstream.update_stream(config).await.unwrap();
    };
    set_room(1).await;
    let refused = fixture.registry.register(request("second")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
    assert!(refused.message.contains("maximum messages"), "{refused}");
    assert!(refused.message.contains("room"), "{refused}");
    set_room(-1).await;
    fixture.registered("second").await;
    fixture.end().await;
}

/// Nobody waits for it, so nobody asks again: the registry has to.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_change_that_was_refused_for_want_of_room_is_written_when_there_is_some() {
    let fixture = Fixture::start(STALE).await;
    let ada = fixture.registered("ada").await.guid;
    let name = fixture.bucket().await.stream_name;
    let set_room = async |more: Option<u64>| {
        let mut stream = fixture.args.jetstream.get_stream(&name).await.unwrap();
        let info = stream.info().await.unwrap();
        let mut config = info.config.clone();
        config.max_bytes = more.map_or(-1, |more| i64::try_from(info.state.bytes + more).unwrap());
        fixture.args.jetstream.update_stream(config).await.unwrap();
    };
    set_room(Some(1)).await;
    let until = fixture.args.clock.now().after(Duration::from_mins(10));
    let paused = fixture.registry.pause(ada, until, "a usage limit");
    paused.await.unwrap();
    eventually("the store has refused it", async || {
        (fixture.args.health.refusals() > 0).then_some(())
    })
    .await;
    assert!(fixture.entry(ada).await["pausedUntil"].is_null());
    set_room(None).await;
    eventually("the pause is written", async || {
        (!fixture.entry(ada).await["pausedUntil"].is_null()).then_some(())
    })
    .await;
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_empty_bucket_keeps_nobody_waiting() {
    let fixture = Fixture::without_registry(STALE).await;
    fixture.start_registry().await;
    let ready = fixture.registry.ready(PATIENCE);
    timeout(Duration::from_secs(2), ready)
        .await
        .unwrap()
        .unwrap();
    let unknown = fixture.registry.sign_of_life(AgentGuid::generate()).await;
    assert_eq!(unknown.unwrap_err().code, ErrorCode::NotRegistered);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_of_the_actor_is_not_noticed() {
    let mut fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    for n in 0..5 {
        assert!(fixture.registry.kill());
        assert_eq!(fixture.args.directory.len(), 1 + n);
        // A caller during the restart waits; a put during it is found.
        let guid = AgentGuid::generate();
        fixture.put(guid, json!({})).await;
        let again = RegisterRequest {
            guid: Some(agent.guid),
            ..request(&format!("ada{n}"))
        };
        let again = fixture.registry.register(again).await.unwrap();
        assert_eq!(again.registered_at, agent.registered_at);
        fixture.sees(guid, AgentStatus::Online).await;
    }
    assert_eq!(fixture.registry.restarts(), 5);
    let gone = fixture.registered("gone").await.guid;
    fixture.changed(gone, AgentChange::Registered).await;
    assert!(fixture.registry.kill());
    fixture
        .bucket()
        .await
        .delete(gone.to_string())
        .await
        .unwrap();
    fixture.changed(gone, AgentChange::Gone).await;
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_next_process_knows_what_the_bucket_says() {
    let mut fixture = Fixture::start(STALE).await;
    let ada = fixture.registered("ada").await;
    let bob = fixture.registered("bob").await;
    let eve = fixture.registered("eve").await;
    fixture
        .registry
        .heartbeat(beat(ada.guid, AgentStatus::Busy))
        .await
        .unwrap();
    fixture
        .registry
        .mark_offline(bob.guid, fixture.args.clock.now())
        .await
        .unwrap();
    fixture.registry.deregister(eve.guid).await.unwrap();
    // Draining writes what is not written yet.
    fixture.replace_registry().await;
    let directory = &fixture.args.directory;
    assert_eq!(directory.len(), 2);
    let known = directory.snapshot(ada.guid).unwrap();
    assert_eq!(
        (known.status, known.registered_at),
        (AgentStatus::Busy, ada.registered_at)
    );
    assert_eq!(
        directory.snapshot(bob.guid).unwrap().status,
        AgentStatus::Offline
    );
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_entry_that_vanished_without_a_mark_is_no_goodbye() {
    let mut fixture = Fixture::start(STALE).await;
    let (ada, bob) = (
        fixture.registered("ada").await.guid,
        fixture.registered("bob").await.guid,
    );
    let now = fixture.args.clock.now();
    fixture.registry.mark_offline(bob, now).await.unwrap();
    let bucket = fixture.bucket().await;
    fixture.stop_registry().await;
    bucket.stream.purge().await.unwrap();
    fixture.start_registry().await;
    // Who was taken for dead and has nothing to lose goes with its entry.
    fixture.changed(bob, AgentChange::Gone).await;
    eventually("the living is written again", async || {
        (fixture.entry(ada).await["handle"] == "ada").then_some(())
    })
    .await;
    assert!(fixture.args.directory.get(ada).is_some());
    fixture.end().await;
}

/// As somebody else's client makes it: entries go by their age, with or without a mark that tells.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_age_limit_of_somebody_elses_is_taken_out_of_the_bucket() {
    for markers in [None, Some(Duration::from_secs(5))] {
        let fixture = Fixture::without_registry(STALE).await;
        let name = names::agents_bucket(&fixture.args.project);
        let config = stream::Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            deny_delete: true,
            max_age: Duration::from_secs(2),
            duplicate_window: Duration::from_secs(2),
            allow_message_ttl: markers.is_some(),
            subject_delete_marker_ttl: markers,
            ..Default::default()
        };
        let jetstream = &fixture.args.jetstream;
        jetstream.create_stream(config).await.unwrap();
        fixture.start_registry().await;
        fixture.registered("ada").await;
        let mut found = jetstream.get_stream(format!("KV_{name}")).await.unwrap();
        let config = &found.info().await.unwrap().config;
        assert_eq!(config.max_age, Duration::ZERO);
        assert!(config.allow_message_ttl);
        fixture.end().await;
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_entry_that_goes_by_its_age_is_no_goodbye_and_is_written_again() {
    let mut fixture = Fixture::start(STALE).await;
    let ada = fixture.registered("ada").await.guid;
    let name = names::agents_bucket(&fixture.args.project);
    let jetstream = &fixture.args.jetstream;
    let mut found = jetstream.get_stream(format!("KV_{name}")).await.unwrap();
    // Somebody sets it behind our back.
    let config = stream::Config {
        max_age: Duration::from_secs(1),
        duplicate_window: Duration::from_secs(1),
        subject_delete_marker_ttl: Some(Duration::from_secs(5)),
        ..found.info().await.unwrap().config.clone()
    };
    jetstream.update_stream(config).await.unwrap();
    let mut revision = 0;
    for _ in 0..3 {
        revision = eventually("it is written again", async || {
            let entry = fixture.bucket().await.entry(ada.to_string()).await.ok()??;
            let is_value = entry.operation == async_nats::jetstream::kv::Operation::Put;
            (is_value && entry.revision > revision).then_some(entry.revision)
        })
        .await;
    }
    assert!(fixture.args.directory.get(ada).is_some());
    while let Ok((guid, change)) = fixture.changes.try_recv() {
        assert!((guid, change) != (ada, AgentChange::Gone));
    }
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_destroyed_bucket_stays_destroyed_until_the_next_registration_by_request() {
    let fixture = Fixture::start(STALE).await;
    let (ada, bob) = (
        fixture.registered("ada").await.guid,
        fixture.registered("bob").await.guid,
    );
    let own = AgentGuid::generate();
    fixture.put(own, json!({})).await;
    fixture.sees(own, AgentStatus::Online).await;
    let name = names::agents_bucket(&fixture.args.project);
    let jetstream = &fixture.args.jetstream;
    jetstream.delete_key_value(&name).await.unwrap();
    // Changes of every kind make no bucket, and lose nobody.
    for status in [AgentStatus::Busy, AgentStatus::Online].repeat(10) {
        for guid in [ada, bob] {
            fixture
                .registry
                .heartbeat(beat(guid, status))
                .await
                .unwrap();
        }
        // deliberate sleep: the registry has time to do what it must not
        tokio::time::sleep(STALE / 10).await;
    }
    assert!(jetstream.get_key_value(&name).await.is_err());
    assert_eq!(fixture.args.directory.len(), 3);
    eventually("bob deregisters from nowhere", async || {
        fixture.registry.deregister(bob).await.ok()
    })
    .await;
    eventually("eve registers", async || {
        let eve = RegisterRequest {
            guid: Some(bob),
            ..request("eve")
        };
        fixture.registry.register(eve).await.ok()
    })
    .await;
    for guid in [ada, bob] {
        eventually("what is ours is written again from memory", async || {
            let bucket = jetstream.get_key_value(&name).await.ok()?;
            bucket.get(guid.to_string()).await.ok()?
        })
        .await;
    }
    let bucket = fixture.bucket().await;
    assert_eq!(bucket.get(own.to_string()).await.unwrap(), None);
    assert!(fixture.args.directory.get(own).is_some());
    fixture.put(own, json!({"handle": "back"})).await;
    eventually("the client's own entry counts again", async || {
        let agent = fixture.args.directory.snapshot(own)?;
        (agent.handle == "back").then_some(())
    })
    .await;
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn without_nats_heartbeats_go_on_and_registrations_are_refused_in_time() {
    let fixture = Fixture::start(STALE).await;
    let ada = fixture.registered("ada").await.guid;
    fixture.server.kill().await;

    let asked = Instant::now();
    let guid = AgentGuid::generate();
    let register = || RegisterRequest {
        guid: Some(guid),
        ..request("bob")
    };
    let error = fixture.registry.register(register()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    assert!(error.retry_after_ms.is_some());
    fixture
        .registry
        .heartbeat(beat(ada, AgentStatus::Busy))
        .await
        .unwrap();
    fixture.sees(ada, AgentStatus::Busy).await;

    fixture.server.restart().await.unwrap();
    let bob = eventually("bob is registered", async || {
        fixture.registry.register(register()).await.ok()
    })
    .await;
    assert_eq!(bob.guid, guid);
    eventually("the bucket says busy", async || {
        (fixture.entry(ada).await["status"] == "busy").then_some(())
    })
    .await;
    let late = AgentGuid::generate();
    fixture.put(late, json!({})).await;
    fixture.sees(late, AgentStatus::Online).await;
    assert_eq!(fixture.args.directory.len(), 3);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_paused_server_leaves_no_write_unaccounted_for() {
    let fixture = Fixture::start(STALE).await;
    let ada = fixture.registered("ada").await.guid;
    fixture.server.pause().unwrap();
    let guid = AgentGuid::generate();
    let late = RegisterRequest {
        guid: Some(guid),
        ..request("late")
    };
    let error = fixture.registry.register(late).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    let gone = fixture.registry.deregister(ada).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::Unavailable, "{gone}");
    fixture.server.resume().unwrap();
    // Nobody asks again: whatever the server stored is what the directory says.
    eventually("memory and bucket agree", async || {
        let stored = (fixture.entry(guid).await, fixture.entry(ada).await);
        let known = [guid, ada].map(|guid| fixture.args.directory.get(guid).is_some());
        (known == [!stored.0.is_null(), !stored.1.is_null()]).then_some(())
    })
    .await;
    fixture.end().await;
}
