//! Reads of which the question gets lost on its way: they are asked again before they are given up.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use async_nats::{Client, jetstream};
use futures_util::StreamExt as _;
use loom_nats::connection::{Nats, NatsOptions, WRITE_TIMEOUT};
use loom_nats::ledger_store::LedgerStore;
use loom_nats::server::{NatsServer, ServerOptions, find_server};
use loom_nats::store_guard::StoreGuard;
use loom_nats::stream::Stream;
use loom_protocol::{ProjectId, WorkId, names};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
/// Where JetStream is asked for here.
const PREFIX: &str = "ASKED";

/// Passes on what JetStream is asked, but for the first question of each name that comes through `swallow`.
struct Relay {
    swallow: mpsc::UnboundedSender<&'static str>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    async fn start(client: Client) -> Self {
        let mut asked = client.subscribe(format!("{PREFIX}.>")).await.unwrap();
        client.flush().await.unwrap();
        let (swallow, mut to_swallow) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut swallowed: Vec<&str> = Vec::new();
            while let Some(question) = asked.next().await {
                while let Ok(name) = to_swallow.try_recv() {
                    swallowed.push(name);
                }
                let name = question.subject.strip_prefix(PREFIX).unwrap();
                if let Some(at) = swallowed.iter().position(|it| name.starts_with(*it)) {
                    swallowed.swap_remove(at);
                    continue;
                }
                let (subject, reply) = (format!("$JS.API{name}"), question.reply.unwrap());
                let passed_on = client.publish_with_reply(subject, reply, question.payload);
                passed_on.await.unwrap();
            }
        });
        Self {
            swallow,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// What a read gives and that it took less than one that is given up.
async fn in_time<T>(read: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let read = timeout(PATIENCE, read).await.unwrap();
    assert!(begun.elapsed() < WRITE_TIMEOUT, "{:?}", begun.elapsed());
    read
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_read_whose_question_is_lost_is_answered_before_it_would_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions::new(find_server(None).unwrap(), dir.path().to_owned());
    let server = NatsServer::start(options).await.unwrap();
    let options = NatsOptions {
        url: server.client_url(),
        ..NatsOptions::default()
    };
    let nats = Nats::connect(&options).await.unwrap();
    let relay = Relay::start(nats.client.clone()).await;
    let jetstream = jetstream::with_prefix(nats.client.clone(), PREFIX);
    let (project, guard) = (ProjectId::new("p").unwrap(), StoreGuard::unwatched());
    let opened = Box::pin(LedgerStore::open(&jetstream, &project, 1, &guard));
    let ledger = opened.await.unwrap();
    let id = WorkId::generate();
    let stored = ledger.put(id, 0, "record".into(), None).await.unwrap();

    relay.swallow.send(".DIRECT.GET.").unwrap();
    let entry = in_time(ledger.get(id)).await.unwrap().unwrap();
    assert_eq!((entry.sequence, &entry.bytes[..]), (stored, &b"record"[..]));
    relay.swallow.send(".STREAM.MSG.GET.").unwrap();
    let entry = in_time(ledger.get_from_leader(id)).await.unwrap();
    assert_eq!(entry.unwrap().sequence, stored);
    relay.swallow.send(".STREAM.MSG.GET.").unwrap();
    let bucket = format!("KV_{}", names::work_bucket(&project));
    let stream = Stream::new(&jetstream, bucket, &guard);
    let message = in_time(stream.at(stored)).await.unwrap();
    assert_eq!(message.unwrap().sequence, stored);

    // One that is never answered ends as before.
    for _ in 0..16 {
        relay.swallow.send(".DIRECT.GET.").unwrap();
    }
    let begun = Instant::now();
    let given_up = timeout(PATIENCE, ledger.get(id)).await.unwrap();
    given_up.unwrap_err();
    assert!(begun.elapsed() >= WRITE_TIMEOUT, "{:?}", begun.elapsed());
}
