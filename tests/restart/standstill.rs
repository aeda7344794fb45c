//! The coordinator or nats-server stands still between a claim and its answer.

use std::time::Duration;

use async_nats::Client as Nats;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use loom_protocol::agent::{HeartbeatAnswer, RegisterAnswer};
use loom_protocol::work::{ClaimAnswer, WorkItem};
use loom_protocol::{AgentGuid, ProjectId, names};
use loom_testkit::nats::until_subscribed;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::{PATIENCE, World, soon};

const AGENTS: usize = 40;
/// Longer than what a heartbeat may leave unnamed.
const STANDSTILL: Duration = Duration::from_secs(7);

/// Asks without repeating: what is sent while nobody hears must wait, not be sent again.
async fn ask<T: DeserializeOwned>(nats: &Nats, action: &str, request: &Value) -> T {
    let project = ProjectId::new("standstill").unwrap();
    let payload = request.to_string().into();
    let request = async_nats::Request::new()
        .payload(payload)
        .timeout(Some(PATIENCE));
    let answer = nats.send_request(names::request(&project, action), request);
    let answer = answer.await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap_or_else(|error| {
        let text = String::from_utf8_lossy(&answer.payload);
        panic!("{action} was answered with {text}: {error}")
    })
}

/// Every agent has a claim open and heartbeats under way that do not name what it is given.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn heartbeats_that_waited_with_the_answer_to_a_claim_take_no_lease() {
    let world = World::new().await;
    let nats = async_nats::connect(world.loom.nats_url()).await.unwrap();
    let agents = join_all((0..AGENTS).map(async |number| {
        let agent = json!({
            "handle": format!("a{number}"), "agentType": "t", "capabilities": ["rust"],
            "heartbeatIntervalMs": 30_000,
        });
        ask::<RegisterAnswer>(&nats, "agents.register", &agent)
            .await
            .agent
            .guid
    }))
    .await;
    let mut assigned = nats
        .subscribe("loom.standstill.events.work.assigned")
        .await
        .unwrap();
    until_subscribed(&nats).await.unwrap();
    let claims = join_all(agents.iter().map(async |guid: &AgentGuid| {
        let claim = json!({ "guid": guid, "waitMs": 30_000, "start": true });
        ask::<ClaimAnswer>(&nats, "work.claim", &claim).await.items
    }));
    let stalled = async {
        let item = json!({ "description": "d", "capability": "rust" });
        let items = json!({ "items": vec![item; AGENTS] });
        let submit = ask::<Value>(&nats, "work.submit", &items);
        let stop = async {
            soon("a claim is filled", assigned.next()).await.unwrap();
            world.loom.pause();
            let beats = join_all(agents.iter().map(async |guid| {
                let beat = json!({ "guid": guid, "holding": [] });
                ask::<HeartbeatAnswer>(&nats, "agents.heartbeat", &beat).await
            }));
            let go_on = async {
                // deliberate sleep: so long nobody hears
                tokio::time::sleep(STANDSTILL).await;
                world.loom.resume();
            };
            tokio::join!(beats, go_on);
        };
        tokio::join!(submit, stop);
    };
    let (claims, ()) = tokio::join!(claims, stalled);
    for (guid, items) in agents.iter().zip(claims) {
        assert_eq!(items.len(), 1);
        let id = json!({ "id": items[0].work_item.id });
        let item = ask::<WorkItem>(&nats, "work.get", &id).await;
        assert_eq!(
            (item.assigned_to, item.attempt),
            (Some(*guid), 1),
            "{item:?}"
        );
        assert_eq!(item.pending_reason, None);
    }
}
