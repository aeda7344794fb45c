//! Anything in any order: in the end memory and bucket agree.

use std::time::Duration;

use loom_protocol::AgentGuid;
use loom_protocol::agent::{AgentStatus, HeartbeatRequest, RegisterRequest};
use serde_json::{Value, json};

use crate::fixture::{Fixture, eventually, request};

const STEPS: usize = 200;
const GARBAGE: &str = "garbage";

/// What everybody can see of an agent, without times.
fn shown(mut entry: Value) -> Value {
    if let Some(fields) = entry.as_object_mut() {
        for time in ["lastHeartbeat", "lastActivity", "currentTaskCount"] {
            fields.remove(time);
        }
    }
    entry
}

/// An entry of ours says all of an agent; one that a client keeps says what the client wrote, and
/// that the agent is offline where it is.
fn agree(known: &Value, entry: &Value) -> bool {
    if !entry["registeredAt"].is_null() {
        return known == entry;
    }
    let is_offline = known["status"] == "offline";
    known["handle"] == entry["handle"]
        && known["capabilities"] == entry["capabilities"]
        && (!is_offline || entry["status"] == "offline")
}

/// One step of somebody: an agent by request, an agent by its entry, an operator, a crash.
async fn step(fixture: &Fixture, random: &mut fastrand::Rng, guid: AgentGuid, n: usize) {
    let registry = &fixture.registry;
    let heartbeat = |status| HeartbeatRequest {
        status_reason: None,
        instance_id: None,
        guid,
        status: Some(status),
        current_task_count: None,
        holding: None,
    };
    let key = guid.to_string();
    match random.u8(0..100) {
        0..20 => {
            let request = RegisterRequest {
                guid: Some(guid),
                ..request(&format!("r{n}"))
            };
            registry.register(request).await.ok();
        }
        20..40 => {
            let status = if random.bool() {
                AgentStatus::Busy
            } else {
                AgentStatus::Online
            };
            registry.heartbeat(heartbeat(status)).await.ok();
        }
        40..65 => {
            let status = ["online", "busy", "offline"][random.usize(0..3)];
            let entry = json!({"handle": format!("p{n}"), "status": status});
            fixture.put(guid, entry).await;
        }
        65..70 => drop(fixture.bucket().await.put(key, GARBAGE.into()).await),
        70..80 => drop(fixture.bucket().await.delete(key).await),
        80..88 => drop(registry.deregister(guid).await),
        88..94 => drop(registry.mark_offline(guid, fixture.args.clock.now()).await),
        94..98 => drop(registry.kill()),
        // deliberate sleep: chaos includes doing nothing
        98 => tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await,
        _ => {
            fixture.server.pause().unwrap();
            registry
                .register(RegisterRequest {
                    guid: Some(guid),
                    ..request("late")
                })
                .await
                .ok();
            fixture.server.resume().unwrap();
        }
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn whatever_happens_memory_and_bucket_agree_in_the_end() {
    let seed = std::env::var("LOOM_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let fixture = Fixture::start(Duration::from_secs(2)).await;
    let guids: Vec<AgentGuid> = (0..6).map(|_| AgentGuid::generate()).collect();
    for n in 0..STEPS {
        let guid = guids[random.usize(0..guids.len())];
        step(&fixture, &mut random, guid, n).await;
    }
    for guid in guids {
        eventually("memory and bucket agree", async || {
            let bucket = fixture.bucket().await;
            let value = bucket.get(guid.to_string()).await.ok()?;
            let agent = fixture.args.directory.snapshot(guid);
            match (value, agent) {
                (None, None) => Some(()),
                (Some(value), _) if *value == *GARBAGE.as_bytes() => Some(()),
                (Some(value), Some(agent)) => {
                    let entry = shown(serde_json::from_slice(&value).ok()?);
                    let known = shown(serde_json::to_value(agent).unwrap());
                    agree(&known, &entry).then_some(())
                }
                _ => None,
            }
        })
        .await;
        // Garbage hides nothing that a readable put does not bring back.
        fixture
            .put(guid, json!({"handle": "mended", "status": "busy"}))
            .await;
        fixture.sees(guid, AgentStatus::Busy).await;
        eventually("the put is merged", async || {
            let known = fixture.args.directory.snapshot(guid)?.handle == "mended";
            let written = fixture.entry(guid).await["handle"] == "mended";
            (known && written).then_some(())
        })
        .await;
    }
    fixture.end().await;
}
