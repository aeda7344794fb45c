use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::nats::server::{NatsServer, Profile, ServerOptions, find_server};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn what_wakes_a_project_names_it() {
    let of = |subject| project_of(subject).map(|id| id.to_string());
    assert_eq!(of("loom.a-b.work.queue.rust").as_deref(), Some("a-b"));
    assert_eq!(of("loom.a.agent.heartbeat.x").as_deref(), Some("a"));
    assert_eq!(of("$KV.loom-agents-a-b.key").as_deref(), Some("a-b"));
    assert_eq!(of("$KV.loom-work-a-b.key"), None);
    assert_eq!(of("$KV.other.key"), None);
    assert_eq!(of("loom"), None);
}

/// Publishes as fast as is written, for as long as it is polled.
async fn flood(client: &Client, subject: &'static str) {
    loop {
        client.publish(subject, "".into()).await.unwrap();
        client.flush().await.unwrap();
    }
}

async fn until(subscriptions: &WakeSubscriptions, is_it: impl Fn(&Hearing) -> bool) {
    while !is_it(&*subscriptions.0.hearing.lock().await) {
        // deliberate sleep: nothing tells of the change
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn they_are_heard_together_again_when_little_comes_for_nobody_however_much_else_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = ServerOptions {
        profile: Profile::Fast,
        ..ServerOptions::new(find_server(None).unwrap(), dir.path().to_owned())
    };
    let server = NatsServer::start(server).await.unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let subscriptions = WakeSubscriptions::paced(
        &client,
        Pace {
            busy: 5,
            counted_for: Duration::from_millis(250),
            lingers: Duration::from_millis(10),
            sampled_every: Duration::from_millis(50),
        },
    );
    let (wake, mut woken) = tokio::sync::mpsc::channel(1);
    subscriptions.wake_by(move |id| wake.try_send(id.clone()).unwrap());
    let id = ProjectId::new("asleep").unwrap();
    let asleep = subscriptions.listen(&id).await.unwrap();
    let change = async {
        tokio::select! {
            () = flood(&client, "$KV.somebody.key") => {}
            () = until(&subscriptions, |hearing| matches!(hearing, Hearing::Alone { .. })) => {}
        }
        tokio::select! {
            () = flood(&client, "elsewhere") => {}
            () = until(&subscriptions, |hearing| matches!(hearing, Hearing::Together(_))) => {}
        }
    };
    timeout(PATIENCE, change).await.unwrap();
    assert!(!asleep.has_heard());
    client
        .publish("loom.asleep.work.queue.rust", "".into())
        .await
        .unwrap();
    assert_eq!(timeout(PATIENCE, woken.recv()).await.unwrap(), Some(id));
    assert!(asleep.has_heard());
    server.stop().await;
}
