//! What is read out of streams through the one inbox of a process: nothing is lost, whatever is taken away below it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{self, RetentionPolicy};
use futures_util::{StreamExt as _, TryStreamExt as _};
use loom_nats::connection::{Nats, NatsOptions, round_trip};
use loom_nats::kv::{Bucket, Record, Watch, WatchEvent};
use loom_nats::pull::{Interruption, Pull, PullTerms};
use loom_nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_nats::store_guard::{Guarded, StoreGuard};
use serde_json::json;
use tokio::time::{Instant, timeout};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
const NAME: &str = "read";
const STREAM: &str = "KV_read";

const TERMS: PullTerms = PullTerms {
    batch: 4,
    expires: Duration::from_secs(30),
    heartbeat: Duration::from_secs(5),
};

async fn start(dir: &Path, port: u16) -> NatsServer {
    let options = ServerOptions {
        profile: Profile::Fast,
        listen: ([127, 0, 0, 1], port).into(),
        ..ServerOptions::new(find_server(None).unwrap(), dir.to_owned())
    };
    NatsServer::start(options).await.unwrap()
}

async fn server(dir: &Path) -> (NatsServer, Nats) {
    let server = start(dir, 0).await;
    let nats = connect(&server).await;
    (server, nats)
}

async fn connect(server: &NatsServer) -> Nats {
    let options = NatsOptions {
        url: server.client_url(),
        ..NatsOptions::default()
    };
    Nats::connect(&options).await.unwrap()
}

/// With a guard, as in a coordinator: so that the watch comes through the inbox of the process.
fn bucket(nats: &Nats) -> Bucket {
    let guarded = Guarded {
        project: None,
        remedy: |_| "none".into(),
    };
    let guard = StoreGuard::of(guarded, &nats.listing, Arc::default());
    Bucket::new(&nats.jetstream, NAME, 1, &guard)
}

async fn put(bucket: &Bucket, keys: std::ops::Range<u32>) {
    for number in keys {
        let (key, ttl) = (format!("key-{number}"), Duration::from_hours(1));
        let stored = bucket.put(&key, "value".into(), ttl, "1/test");
        stored.await.unwrap();
    }
}

fn keys(range: std::ops::Range<u32>) -> BTreeSet<String> {
    range.map(|number| format!("key-{number}")).collect()
}

/// Reads on until all of these were told; gives how often everything was told anew meanwhile.
async fn told(watch: &mut Watch, mut wanted: BTreeSet<String>) -> usize {
    let mut opened = 0;
    let reading = async {
        while !wanted.is_empty() {
            match watch.next().await {
                WatchEvent::Opened { .. } => opened += 1,
                WatchEvent::Records(records) => {
                    for Record { key, .. } in records {
                        wanted.remove(&key);
                    }
                }
                WatchEvent::Missing | WatchEvent::Current { .. } => {}
            }
        }
    };
    let read = timeout(PATIENCE, reading).await;
    read.unwrap_or_else(|_| panic!("{wanted:?} were not told"));
    opened
}

async fn current(watch: &mut Watch) {
    let reading = async { while !matches!(watch.next().await, WatchEvent::Current { .. }) {} };
    timeout(PATIENCE, reading).await.unwrap();
}

async fn consumers(nats: &Nats) -> Vec<String> {
    let stream = nats.jetstream.get_stream_no_info(STREAM).await.unwrap();
    let names = timeout(PATIENCE, stream.consumer_names().try_collect()).await;
    names.unwrap().unwrap()
}

async fn watched(nats: &Nats, bucket: &Bucket) -> Watch {
    bucket.ensure().await.unwrap();
    put(bucket, 0..3).await;
    let mut watch = bucket.watch();
    told(&mut watch, keys(0..3)).await;
    current(&mut watch).await;
    assert_eq!(consumers(nats).await.len(), 1);
    watch
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_watch_goes_on_where_its_consumer_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let bucket = bucket(&nats);
    let mut watch = watched(&nats, &bucket).await;
    for round in 1..4 {
        let stream = nats.jetstream.get_stream_no_info(STREAM).await.unwrap();
        for name in consumers(&nats).await {
            stream.delete_consumer(&name).await.unwrap();
        }
        let range = round * 10..round * 10 + 3;
        put(&bucket, range.clone()).await;
        let opened = told(&mut watch, keys(range)).await;
        assert_eq!(opened, 0, "what was told is not told again");
        assert_eq!(consumers(&nats).await.len(), 1);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_watch_finds_what_was_sent_to_somebody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let bucket = bucket(&nats);
    let mut watch = watched(&nats, &bucket).await;
    let consumer = consumers(&nats).await.remove(0);
    // A thief asks the same consumer, which serves its requests in turn: it has sent what nobody here hears of.
    let thief = connect(&server).await;
    let inbox = thief.client.new_inbox();
    let mut stolen = thief.client.subscribe(inbox.clone()).await.unwrap();
    let asked = json!({"batch": 100, "expires": 60_000_000_000_u64}).to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}");
    let sent = thief
        .client
        .publish_with_reply(subject, inbox, asked.into());
    sent.await.unwrap();
    round_trip(&thief.client).await.unwrap();
    let reading = tokio::spawn(async move {
        told(&mut watch, keys(10..30)).await;
        watch
    });
    put(&bucket, 10..30).await;
    let theft = timeout(PATIENCE, stolen.next()).await.unwrap().unwrap();
    assert!(theft.subject.starts_with("$KV."), "{theft:?}");
    reading.await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_watch_goes_on_over_a_restart_of_the_server_and_what_was_put_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let bucket = bucket(&nats);
    let mut watch = watched(&nats, &bucket).await;
    let port = server.client_url().rsplit(':').next().unwrap().parse();
    let reconnects = *nats.reconnects.borrow();
    server.stop().await;
    let server = start(dir.path(), port.unwrap()).await;
    // By another connection, before or while the first one comes back.
    let other = connect(&server).await;
    put(&self::bucket(&other), 10..13).await;
    let mut again = nats.reconnects.clone();
    let back = again.wait_for(|count| *count > reconnects);
    timeout(PATIENCE, back).await.unwrap().unwrap();
    put(&bucket, 20..23).await;
    let wanted = &keys(10..13) | &keys(20..23);
    assert_eq!(told(&mut watch, wanted).await, 0, "it is the same bucket");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_watch_survives_a_purge_and_finds_the_bucket_that_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let bucket = bucket(&nats);
    let mut watch = watched(&nats, &bucket).await;
    let stream = nats.jetstream.get_stream(STREAM).await.unwrap();
    stream.purge().await.unwrap();
    put(&bucket, 10..13).await;
    assert_eq!(told(&mut watch, keys(10..13)).await, 0);
    nats.jetstream.delete_stream(STREAM).await.unwrap();
    bucket.ensure().await.unwrap();
    put(&bucket, 20..21).await;
    assert_eq!(told(&mut watch, keys(20..21)).await, 1, "another one");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_long_history_is_told_once_in_its_order() {
    const ENTRIES: u32 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let bucket = bucket(&nats);
    bucket.ensure().await.unwrap();
    let writes = futures_util::stream::iter(0..ENTRIES).map(|number| {
        let bucket = &bucket;
        async move { put(bucket, number..number + 1).await }
    });
    writes.buffer_unordered(64).collect::<Vec<()>>().await;
    let mut watch = bucket.watch();
    let (mut seen, mut last) = (BTreeSet::new(), 0);
    let reading = async {
        loop {
            match watch.next().await {
                WatchEvent::Records(records) => {
                    for record in records {
                        assert!(record.revision > last, "in their order");
                        last = record.revision;
                        assert!(seen.insert(record.key), "once");
                    }
                }
                WatchEvent::Current { .. } => return,
                WatchEvent::Opened { .. } | WatchEvent::Missing => {}
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap();
    assert_eq!(seen, keys(0..ENTRIES));
    drop(watch);
    let gone = async { while !consumers(&nats).await.is_empty() {} };
    timeout(PATIENCE, gone)
        .await
        .expect("its consumer goes with it");
    server.stop().await;
}

const QUEUE: &str = "QUEUE";

async fn queue(nats: &Nats, ack_wait: Duration) -> &'static str {
    let config = stream::Config {
        name: QUEUE.into(),
        subjects: vec!["queue.*".into()],
        retention: RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    let stream = nats.jetstream.create_stream(config).await.unwrap();
    let config = pull::Config {
        durable_name: Some("worker".into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.unwrap();
    "worker"
}

async fn publish(nats: &Nats, number: u32) {
    let stored = nats.jetstream.publish(format!("queue.{number}"), "".into());
    stored.await.unwrap().await.unwrap();
}

async fn open(nats: &Nats, worker: &str) -> Pull {
    let name = (QUEUE, worker);
    let opened = Pull::open(nats.listing.inbox(), &nats.jetstream, name, TERMS);
    opened.await.unwrap()
}

/// Takes messages until all of these came, and acknowledges them.
async fn taken(pull: &mut Pull, numbers: std::ops::Range<u32>) -> Vec<Interruption> {
    let mut wanted: BTreeSet<String> = numbers.map(|number| format!("queue.{number}")).collect();
    let mut interruptions = Vec::new();
    let taking = async {
        while !wanted.is_empty() {
            match pull.next(2).await {
                Ok(messages) => {
                    assert!(!messages.is_empty() && messages.len() <= 2);
                    for message in messages {
                        wanted.remove(message.subject.as_str());
                        message.ack().await.unwrap();
                    }
                }
                Err(why) => interruptions.push(why),
            }
        }
    };
    let taken = timeout(PATIENCE, taking).await;
    taken.unwrap_or_else(|_| panic!("{wanted:?} did not come"));
    interruptions
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_came_for_a_reader_that_has_ended_comes_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    // Nothing comes again by itself in this test.
    let worker = queue(&nats, Duration::from_hours(1)).await;
    let mut former = open(&nats, worker).await;
    publish(&nats, 0).await;
    taken(&mut former, 0..1).await;
    // Its request waits at the server for half a minute: what is published now is sent there.
    drop(former);
    let began = Instant::now();
    publish(&nats, 1).await;
    publish(&nats, 2).await;
    let mut next = open(&nats, worker).await;
    taken(&mut next, 1..3).await;
    assert!(began.elapsed() < PATIENCE);
    // The same where what has come lies there untaken.
    for number in 3..6 {
        publish(&nats, number).await;
    }
    let has_come = timeout(PATIENCE, next.next(1)).await.unwrap().unwrap();
    has_come[0].ack().await.unwrap();
    drop(next);
    let mut last = open(&nats, worker).await;
    taken(&mut last, 4..6).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_lies_with_a_reader_that_was_replaced_comes_again_when_that_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    // Nothing comes again by itself in this test.
    let worker = queue(&nats, Duration::from_hours(1)).await;
    for number in 0..3 {
        publish(&nats, number).await;
    }
    let mut former = open(&nats, worker).await;
    let has_come = timeout(PATIENCE, former.next(1)).await.unwrap().unwrap();
    has_come[0].ack().await.unwrap();
    let stream = nats.jetstream.get_stream_no_info(QUEUE).await.unwrap();
    let both_are_sent =
        async { while stream.consumer_info(worker).await.unwrap().num_ack_pending < 2 {} };
    timeout(PATIENCE, both_are_sent).await.unwrap();
    // They have arrived by then.
    round_trip(&nats.client).await.unwrap();
    let mut next = open(&nats, worker).await;
    drop(former);
    taken(&mut next, 1..3).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn two_readers_of_a_consumer_number_their_requests_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let worker = queue(&nats, Duration::from_hours(1)).await;
    let asked = format!("$JS.API.CONSUMER.MSG.NEXT.{QUEUE}.{worker}");
    let mut asked = nats.client.subscribe(asked).await.unwrap();
    round_trip(&nats.client).await.unwrap();
    let mut answered_at = BTreeSet::new();
    for _ in 0..2 {
        let mut reader = open(&nats, worker).await;
        tokio::select! {
            came = reader.next(1) => panic!("nothing was published: {came:?}"),
            request = timeout(PATIENCE, asked.next()) => {
                answered_at.insert(request.unwrap().unwrap().reply.unwrap().to_string());
            }
        }
    }
    assert_eq!(answered_at.len(), 2, "{answered_at:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_reader_goes_on_over_a_restart_and_says_where_its_consumer_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let worker = queue(&nats, Duration::from_secs(2)).await;
    let mut pull = open(&nats, worker).await;
    publish(&nats, 0).await;
    assert_eq!(taken(&mut pull, 0..1).await, []);
    let port = server.client_url().rsplit(':').next().unwrap().parse();
    server.stop().await;
    let server = start(dir.path(), port.unwrap()).await;
    let other = connect(&server).await;
    publish(&other, 1).await;
    let interruptions = taken(&mut pull, 1..2).await;
    assert!(!interruptions.is_empty(), "it was interrupted, and said so");
    let stream = other.jetstream.get_stream_no_info(QUEUE).await.unwrap();
    stream.delete_consumer(worker).await.unwrap();
    let gone = async {
        loop {
            if pull.next(1).await.err() == Some(Interruption::Gone) {
                return;
            }
        }
    };
    timeout(PATIENCE, gone).await.expect("it says so");
    server.stop().await;
}
