//! The list of all streams: what it tells of those that are followed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream;
use loom_nats::connection::{Nats, NatsOptions};
use loom_nats::ledger_store::LedgerStore;
use loom_nats::listing::{FollowedStream, Sight, StreamChange, list};
use loom_nats::positions::{all_positions, positions_of};
use loom_nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_nats::store_guard::{Guarded, StoreGuard};
use loom_nats::terms;
use loom_nats::verdicts::stream_terms::StreamTerms;
use loom_protocol::{ProjectId, names};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

async fn server(dir: &Path) -> (NatsServer, Nats) {
    let options = ServerOptions {
        profile: Profile::Fast,
        ..ServerOptions::new(find_server(None).unwrap(), dir.to_owned())
    };
    let server = NatsServer::start(options).await.unwrap();
    let options = NatsOptions {
        url: server.client_url(),
        ..NatsOptions::default()
    };
    let nats = Nats::connect(&options).await.unwrap();
    (server, nats)
}

fn bucket(name: &str) -> stream::Config {
    stream::Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        allow_direct: true,
        allow_message_ttl: true,
        ..stream::Config::default()
    }
}

async fn make(nats: &Nats, name: &str) -> stream::Config {
    let config = bucket(name);
    nats.jetstream.create_stream(&config).await.unwrap();
    config
}

/// Asks for a stream by its name, and notes what it is.
async fn note(nats: &Nats, name: &str, followed: &FollowedStream) {
    let (terms, guard) = (StreamTerms::of_bucket(1), StoreGuard::unwatched());
    let stream = format!("KV_{name}");
    let looked = terms::keep(&nats.jetstream, &stream, &terms, &guard).await;
    followed.note(looked.unwrap().map(|looked| looked.identity));
}

type Told = mpsc::UnboundedReceiver<StreamChange>;

fn follow(nats: &Nats, name: &str) -> (FollowedStream, Told) {
    let (tell, told) = mpsc::unbounded_channel();
    let followed = nats.listing.follow(&format!("KV_{name}"), move |change| {
        let _ = tell.send(change);
    });
    (followed, told)
}

async fn next(told: &mut Told) -> StreamChange {
    timeout(PATIENCE, told.recv()).await.unwrap().unwrap()
}

/// Waits until a list has begun and ended.
async fn until_listed(nats: &Nats) {
    let before = nats.listing.lists();
    let twice = async {
        while nats.listing.lists() < before + 2 {
            nats.listing.hasten();
            // deliberate sleep: between two looks, before the deadline
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, twice).await.expect("a list");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stream_is_in_the_list_what_it_was_by_its_name_until_somebody_changes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let config = make(&nats, "kept").await;
    let (kept, mut told) = follow(&nats, "kept");
    assert_eq!(kept.sight(), Sight::Unknown);
    note(&nats, "kept", &kept).await;
    until_listed(&nats).await;
    assert!(kept.is_as_noted(), "{:?}", kept.sight());
    assert!(told.try_recv().is_err(), "nothing was told of it");

    let changed = stream::Config {
        max_age: Duration::from_hours(1),
        ..config
    };
    nats.jetstream.update_stream(&changed).await.unwrap();
    assert_eq!(next(&mut told).await, StreamChange::Other);
    // The list is older than what the server has told.
    assert!(!kept.is_as_noted(), "{:?}", kept.sight());
    until_listed(&nats).await;
    assert!(!kept.is_as_noted());
    note(&nats, "kept", &kept).await;
    until_listed(&nats).await;
    assert!(kept.is_as_noted());
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_is_removed_made_or_purged_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    make(&nats, "one").await;
    let published = nats.jetstream.publish("$KV.one.a", "a".into()).await;
    published.unwrap().await.unwrap();
    let (one, mut of_one) = follow(&nats, "one");
    let (none, mut of_none) = follow(&nats, "none");
    note(&nats, "one", &one).await;
    note(&nats, "none", &none).await;
    until_listed(&nats).await;
    assert!(one.is_as_noted() && none.is_as_noted());
    assert_eq!(none.sight(), Sight::Absent);

    let stream = nats.jetstream.get_stream("KV_one").await.unwrap();
    stream.purge().await.unwrap();
    nats.listing.hasten();
    assert_eq!(next(&mut of_one).await, StreamChange::Fewer);

    make(&nats, "none").await;
    assert_eq!(next(&mut of_none).await, StreamChange::Other);
    nats.jetstream.delete_stream("KV_one").await.unwrap();
    assert_eq!(next(&mut of_one).await, StreamChange::Other);
    // Made again, it is another one though it is configured as it was.
    make(&nats, "one").await;
    until_listed(&nats).await;
    assert!(!one.is_as_noted());
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn several_pages_are_one_list_and_say_where_streams_stand() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let none = list(&nats.jetstream, 0, |name, _| panic!("{name}")).await;
    assert_eq!(none.unwrap(), Some(Vec::new()));
    let names: BTreeSet<String> = (0..600).map(|n| format!("p{n:03}")).collect();
    for name in &names {
        make(&nats, name).await;
    }
    let published = nats.jetstream.publish("$KV.p042.a", "a".into()).await;
    published.unwrap().await.unwrap();
    let mut found = Vec::new();
    let unknown = list(&nats.jetstream, 600, |name, _| found.push(name.to_owned())).await;
    assert_eq!(unknown.unwrap(), Some(Vec::new()));
    found.sort();
    let all: Vec<String> = names.iter().map(|name| format!("KV_{name}")).collect();
    assert_eq!(found, all);
    let too_many = list(&nats.jetstream, 599, |name, _| panic!("{name}")).await;
    assert_eq!(too_many.unwrap(), None);
    let some = vec!["KV_p042".to_owned(), "KV_p599".to_owned()];
    let by_name = positions_of(&nats.jetstream, &some).await.unwrap();
    let mut listed = all_positions(&nats.jetstream).await.unwrap();
    listed.retain(|name, _| some.contains(name));
    assert_eq!(listed, by_name);
    assert_eq!(listed["KV_p042"].messages, 1);
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn after_a_reconnect_nothing_counts_until_all_is_listed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    make(&nats, "kept").await;
    let (kept, _told) = follow(&nats, "kept");
    note(&nats, "kept", &kept).await;
    until_listed(&nats).await;
    assert!(kept.is_as_noted());
    server.stop().await;
    let (again, mut told) = follow(&nats, "kept");
    server.restart().await.unwrap();
    until_listed(&nats).await;
    assert!(kept.is_as_noted(), "{:?}", kept.sight());
    assert!(matches!(again.sight(), Sight::There(_)));
    // What was never asked for by name is told nothing of.
    assert!(told.try_recv().is_err());
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ledger_that_is_deleted_before_it_was_ever_looked_at_is_in_doubt_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (server, nats) = server(dir.path()).await;
    let project = ProjectId::new("fresh").unwrap();
    let stream = format!("KV_{}", names::work_bucket(&project));
    let guarded = Guarded {
        project: Some(project.clone()),
        remedy: |_| "put it back".into(),
    };
    let guard = StoreGuard::of(guarded, &nats.listing, Arc::default());
    let _ledger = LedgerStore::open(&nats.jetstream, &project, 1, &guard)
        .await
        .unwrap();
    guard.follow();
    until_listed(&nats).await;
    assert!(!guard.is_in_doubt());
    nats.jetstream.delete_stream(&stream).await.unwrap();
    let doubted = async {
        while !guard.is_in_doubt() {
            // deliberate sleep: between two looks, before the deadline
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, doubted).await.expect("a doubt");
    server.stop().await;
}
