//! Messages that come while nobody takes them over, and are given back unread.

use loom_actors::settings::WorkSettings;
use loom_protocol::{AgentGuid, ProjectId, WorkId, names};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{House, PATIENCE, eventually, open};

/// How often a message is tried that nothing can be made of.
const TRIES: u64 = 5;

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

    let before = delivered(&house, &project).await;
    house.project = Box::pin(open(&house.terms, &house.root)).await;
    let given_up = async {
        let mut stream = jetstream
            .get_stream(names::work_stream(&project))
            .await
            .unwrap();
        while stream.info().await.unwrap().state.messages > 0 {
            // deliberate sleep: nothing tells that a stream is empty
            sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, given_up).await.unwrap();
    let tried = delivered(&house, &project).await - before;
    assert!(tried >= TRIES, "given up after {tried} deliveries");
}
