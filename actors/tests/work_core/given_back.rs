//! Messages that come while nobody takes them over, and are given back unread.

use futures_util::StreamExt as _;
use loom_actors::domain::work::Bodies;
use loom_actors::nats::connection::round_trip;
use loom_actors::settings::WorkSettings;
use loom_actors::work_ledger::Filter;
use loom_protocol::work::Reason;
use loom_protocol::{AgentGuid, ProjectId, WorkId, names};
use serde_json::json;
use tokio::time::timeout;

use crate::{House, PATIENCE, eventually, open};

/// How often a message is tried that nothing can be made of.
const TRIES: u64 = 5;
/// How a dispatcher gives back what it has tried. What comes for nobody is given back sooner.
const TRIED: &[u8] = br#"-NAK {"delay":1000000000}"#;

/// How often the reports of a project were delivered to the owner of epoch 7.
async fn delivered(house: &House, project: &ProjectId) -> u64 {
    let jetstream = &house.terms.nats.jetstream;
    let stream = jetstream.get_stream_no_info(names::work_stream(project));
    let info = stream.await.unwrap().consumer_info("loom-reports-7").await;
    info.unwrap().delivered.consumer_sequence
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_given_back_unread_is_tried_as_often_as_anything_else() {
    let mut house = Box::pin(House::build(WorkSettings::default())).await;
    let project = house.project.id.clone();
    let jetstream = house.terms.nats.jetstream.clone();
    eventually("reports are taken over", async || {
        let stream = jetstream.get_stream_no_info(names::work_stream(&project));
        let Ok(stream) = stream.await else {
            return false;
        };
        let info = stream.consumer_info("loom-reports-7").await;
        info.is_ok_and(|info| info.num_waiting > 0)
    })
    .await;
    house.root.stop_tree("p", PATIENCE).await.unwrap();

    let damaged = WorkId::generate();
    let key = format!("$KV.{}.{damaged}", names::work_bucket(&project));
    let report = json!({"workItemId": damaged, "agentGuid": AgentGuid::generate()});
    for (subject, body) in [
        (key, "garbage".to_owned()),
        (names::work_completed(&project), report.to_string()),
    ] {
        let stored = jetstream.publish(subject, body.into()).await.unwrap();
        stored.await.unwrap();
    }
    // The request of the one that has ended waits at the server still.
    eventually("it is given back again and again", async || {
        delivered(&house, &project).await > TRIES
    })
    .await;

    let stream = names::work_stream(&project);
    let client = &house.terms.nats.client;
    let answers = client.subscribe(format!("$JS.ACK.{stream}.loom-reports-7.>"));
    let mut answers = answers.await.unwrap();
    round_trip(client).await.unwrap();
    house.project = Box::pin(open(&house.terms, &house.root)).await;
    let given_up = async {
        let mut tried = 1;
        while let Some(answer) = answers.next().await {
            match &*answer.payload {
                b"+ACK" => return tried,
                TRIED => tried += 1,
                unread => assert!(unread.starts_with(b"-NAK"), "{answer:?}"),
            }
        }
        panic!("it is not answered any more");
    };
    assert_eq!(timeout(PATIENCE, given_up).await.unwrap(), TRIES);
    let kept = house.project.work.page(&Filter::default(), 0, 10).headers;
    assert_eq!(kept.len(), 1, "the message: {kept:?}");
    let kept = house.project.work.item(kept[0].id, Bodies::With).await;
    let kept = kept.unwrap();
    assert_eq!(kept.errors[0].reason, Reason::Poison);
    let bytes = String::from_utf8_lossy(kept.context_data.unwrap().as_bytes()).into_owned();
    assert!(bytes.contains(&damaged.to_string()), "{bytes}");
}
