//! Former owners: what they have in memory is not written any more.

use std::time::Duration;

use bytes::Bytes;
use loom_actors::nats::dead_letters::{LetterStore, NewLetter};
use loom_actors::nats::error::{Cause, StoreError, StoreErrorKind};
use loom_actors::nats::kv::Bucket;
use loom_actors::nats::ledger_store::LedgerStore;
use loom_actors::nats::owner::{Identity, LeaseTimes, OwnerLease, OwnerOptions};
use loom_protocol::agent::{AgentStatus, HeartbeatRequest, RegisterRequest};
use loom_protocol::{AgentGuid, ErrorCode, WorkId, names};

use crate::fixture::{Fixture, eventually, request};

const STALE: Duration = Duration::from_secs(30);

/// An ownership that nobody renews.
async fn short_lease(fixture: &Fixture, dir: &std::path::Path) -> OwnerLease {
    let options = OwnerOptions {
        times: LeaseTimes {
            ttl: Duration::from_mins(1),
            renew_every: Duration::from_secs(50),
            keep_for: Duration::from_secs(4),
        },
        ..OwnerOptions::default()
    };
    let identity = Identity::of_data_directory(dir).unwrap();
    OwnerLease::acquire_with(&fixture.args.jetstream, identity, false, options)
        .await
        .unwrap()
}

fn named(guid: AgentGuid, handle: &str) -> RegisterRequest {
    RegisterRequest {
        guid: Some(guid),
        ..request(handle)
    }
}

fn busy(guid: AgentGuid, count: u32) -> HeartbeatRequest {
    HeartbeatRequest {
        status_reason: None,
        guid,
        instance_id: None,
        status: Some(AgentStatus::Busy),
        current_task_count: Some(count),
        holding: None,
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_former_owner_that_wakes_writes_no_entry_no_grave_and_no_letter() {
    let mut fixture = Fixture::without_registry(STALE).await;
    let dir = tempfile::tempdir().unwrap();
    let lease = short_lease(&fixture, dir.path()).await;
    fixture.args.ownership = lease.ownership();
    fixture.registry = loom_actors::agent_registry::AgentRegistryHandle::new(&fixture.args);
    fixture.start_registry().await;
    let guid = fixture.registered("ada").await.guid;
    lease.lost().await;

    // Another one owns, and the agent is another one than the former owner has in mind.
    let next = fixture.start_another(fixture.args.epoch + 1).await;
    next.register(named(guid, "bob")).await.unwrap();
    let bucket = fixture.bucket().await;
    let written = bucket
        .entry(guid.to_string())
        .await
        .unwrap()
        .unwrap()
        .revision;

    fixture.registry.heartbeat(busy(guid, 4)).await.unwrap();
    let refused = fixture.registry.deregister(guid).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
    let refused = fixture
        .registry
        .register(named(guid, "ada"))
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
    // Draining writes what is in memory only.
    fixture.stop_registry().await;
    let entry = bucket.entry(guid.to_string()).await.unwrap().unwrap();
    assert_eq!(entry.revision, written);
    assert_eq!(fixture.entry(guid).await["handle"], "bob");

    let args = &fixture.args;
    let graves = names::graveyard_bucket(&args.project);
    let graves = Bucket::new(&args.jetstream, &graves, 1, &args.guard).owned_by(&args.ownership);
    let laid = graves.put("a", Bytes::new(), STALE, "7").await;
    assert!(is_not_owner(&laid), "{laid:?}");
    let purged = graves.purge("a", "7").await;
    assert!(is_not_owner(&purged), "{purged:?}");
    let letters = LetterStore::new(&args.jetstream, &args.project, 1, STALE, &args.guard)
        .owned_by(&args.ownership);
    let letter = NewLetter {
        id: WorkId::generate(),
        message_id: "m".into(),
        head: "{}".into(),
        bytes: Bytes::new(),
    };
    assert!(letters.publish(&letter, 0).await.is_err());
    assert!(letters.delete(1).await.is_err());
    assert!(
        letters.open().await.unwrap().is_none(),
        "it has made no stream either"
    );
    let ledger = LedgerStore::open(&args.jetstream, &args.project, 1, &args.guard).await;
    let ledger = ledger.unwrap().owned_by(&args.ownership);
    let written = ledger.put(WorkId::generate(), 0, Bytes::new(), None).await;
    assert!(is_not_owner(&written), "{written:?}");
    assert!(ledger.remove(1).await.is_err());
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_sees_the_write_of_a_later_owner_writes_no_more() {
    let fixture = Fixture::start(STALE).await;
    let guid = fixture.registered("ada").await.guid;
    let other = fixture.registered("eve").await.guid;
    let next = fixture.start_another(fixture.args.epoch + 1).await;
    next.register(named(guid, "bob")).await.unwrap();
    eventually("it writes no more", async || {
        let refused = fixture.registry.register(named(other, "eve")).await;
        refused
            .is_err_and(|error| error.code == ErrorCode::Unavailable)
            .then_some(())
    })
    .await;
    fixture.registry.heartbeat(busy(guid, 4)).await.unwrap();
    fixture.stop_registry().await;
    assert_eq!(fixture.entry(guid).await["handle"], "bob");
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_a_former_owner_buries_late_is_written_again() {
    let fixture = Fixture::start(STALE).await;
    let guid = fixture.registered("ada").await.guid;
    let args = &fixture.args;
    let name = names::agents_bucket(&args.project);
    let former = Bucket::new(&args.jetstream, &name, 1, &args.guard);
    let key = guid.to_string();
    let revision = former.last(&key).await.unwrap().unwrap().revision;
    former.remove(&key, revision, "6").await.unwrap();
    eventually("the entry is there again", async || {
        (fixture.entry(guid).await["handle"] == "ada").then_some(())
    })
    .await;
    assert_eq!(
        args.directory.snapshot(guid).unwrap().status,
        AgentStatus::Online
    );
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_died_is_shown_with_the_leases_that_it_has_and_no_more() {
    let fixture = Fixture::start(Duration::from_secs(2)).await;
    let directory = &fixture.args.directory;
    let now = || fixture.args.clock.now();
    let guid = fixture.registered("ada").await.guid;
    directory.set_lease_count(guid, 4, now());
    fixture.registry.heartbeat(busy(guid, 5)).await.unwrap();
    assert_eq!(directory.snapshot(guid).unwrap().current_task_count, 5);
    assert!(fixture.registry.mark_offline(guid, now()).await.unwrap());
    assert_eq!(directory.snapshot(guid).unwrap().current_task_count, 4);
    eventually("its status is written", async || {
        (fixture.entry(guid).await["status"] == "offline").then_some(())
    })
    .await;
    directory.set_lease_count(guid, 0, now());
    assert_eq!(directory.snapshot(guid).unwrap().current_task_count, 0);
    eventually("its count is written", async || {
        (fixture.entry(guid).await["currentTaskCount"] == 0).then_some(())
    })
    .await;
    fixture.end().await;
}

fn is_not_owner(written: &Result<u64, StoreError>) -> bool {
    let refused = StoreErrorKind::Refused(Cause::NotOwner);
    written.as_ref().is_err_and(|error| error.kind() == refused)
}
