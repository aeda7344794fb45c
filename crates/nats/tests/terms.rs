//! Keeping a stream as it must be, where the server does not let it be changed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use loom_nats::connection::round_trip;
use loom_nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_nats::store_guard::StoreGuard;
use loom_nats::terms;
use loom_nats::verdicts::stream_terms::StreamTerms;
use loom_protocol::WireError;

/// The API as it is for a user who may look at streams and change none: nobody answers that.
async fn without_updates(client: &async_nats::Client) -> jetstream::Context {
    let mut looks = client.subscribe("ELSEWHERE.STREAM.INFO.>").await.unwrap();
    let updates = client.subscribe("ELSEWHERE.STREAM.UPDATE.>").await.unwrap();
    round_trip(client).await.unwrap();
    let server = client.clone();
    tokio::spawn(async move {
        let _unanswered = updates;
        while let Some(look) = looks.next().await {
            let subject = look.subject.replace("ELSEWHERE", "$JS.API");
            let answer = server.request(subject, look.payload).await.unwrap();
            let reply = look.reply.unwrap();
            server.publish(reply, answer.payload).await.unwrap();
        }
    });
    let mut jetstream = jetstream::with_prefix(client.clone(), "ELSEWHERE");
    jetstream.set_timeout(Duration::from_millis(500));
    jetstream
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_bucket_whose_keys_cannot_be_let_expire_says_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let server = NatsServer::start(ServerOptions {
        profile: Profile::Fast,
        ..ServerOptions::new(find_server(None).unwrap(), folder.path().join("nats"))
    })
    .await
    .unwrap();
    let client = async_nats::connect(server.client_url()).await.unwrap();
    let ours = StreamTerms::of_bucket(1);
    // In the second one other things are not as they must be either.
    for (name, max_age) in [("KV_one", 0), ("KV_two", 3_600)] {
        let allowed = jetstream::new(client.clone());
        let made = allowed.create_stream(stream::Config {
            name: name.into(),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            allow_direct: true,
            allow_rollup: true,
            max_age: Duration::from_secs(max_age),
            ..stream::Config::default()
        });
        made.await.unwrap();
        let denied = without_updates(&client).await;
        let kept = terms::keep(&denied, name, &ours, &StoreGuard::unwatched()).await;
        let said = WireError::from(kept.unwrap_err()).to_string();
        assert!(said.contains("timed out"), "{said}");
        assert!(
            said.contains(name) && said.contains("let Loom change"),
            "{said}"
        );
        assert!(said.contains("allow_msg_ttl false to true"), "{said}");
    }
    server.stop().await;
}
