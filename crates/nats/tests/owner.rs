//! The owner lease on a real server: who gets it, how long it lasts, who takes over when.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream;
use loom_nats::owner::{
    Holder, Identity, LeaseTimes, LossReason, OwnerError, OwnerLease, OwnerOptions,
};
use loom_nats::server::{NatsServer, Profile, ServerOptions, find_server};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    server: NatsServer,
    dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            profile: Profile::Fast,
            ..ServerOptions::new(find_server(None).unwrap(), dir.path().join("nats"))
        };
        let server = NatsServer::start(options).await.unwrap();
        Self { server, dir }
    }

    /// A connection of its own, as another process would have.
    async fn jetstream(&self) -> jetstream::Context {
        let url = self.server.client_url();
        jetstream::new(async_nats::connect(url).await.unwrap())
    }

    fn identity(&self, name: &str) -> Identity {
        identity(&self.dir.path().join(name))
    }

    async fn acquire(&self, name: &str, wait: bool) -> Result<OwnerLease, OwnerError> {
        self.acquire_with(name, wait, short()).await
    }

    async fn acquire_with(
        &self,
        name: &str,
        wait: bool,
        options: OwnerOptions,
    ) -> Result<OwnerLease, OwnerError> {
        let (jetstream, identity) = (self.jetstream().await, self.identity(name));
        OwnerLease::acquire_with(&jetstream, identity, wait, options).await
    }

    async fn entry(&self) -> (u64, Holder) {
        let stream = self.jetstream().await;
        let stream = stream.get_stream_no_info("KV_LOOM_OWNERS").await.unwrap();
        let message = stream.get_last_raw_message_by_subject("$KV.LOOM_OWNERS.coordinator");
        let message = message.await.unwrap();
        let holder = serde_json::from_slice(&message.payload).unwrap();
        (message.sequence, holder)
    }

    /// Waits until the entry has been renewed after `sequence`.
    async fn renewed_after(&self, sequence: u64) -> (u64, Holder) {
        let renewed = async {
            loop {
                let entry = self.entry().await;
                if entry.0 > sequence {
                    return entry;
                }
            }
        };
        timeout(PATIENCE, renewed).await.unwrap()
    }
}

fn identity(directory: &Path) -> Identity {
    Identity::of_data_directory(directory).unwrap()
}

/// The clocks at about a fifth of their length.
fn short() -> OwnerOptions {
    OwnerOptions {
        times: LeaseTimes {
            ttl: Duration::from_secs(3),
            renew_every: Duration::from_millis(500),
            keep_for: Duration::from_secs(2),
        },
        ..OwnerOptions::default()
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_second_coordinator_is_told_who_owns_and_what_to_do() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    assert!(owner.is_held());

    let error = fixture.acquire("two", false).await.unwrap_err();
    let OwnerError::HeldBy { holder, .. } = &error else {
        panic!("expected to be told who owns: {error}");
    };
    assert_eq!(**holder, *owner.holder());
    assert_eq!(holder.pid, std::process::id());
    let sentence = error.to_string();
    for part in ["--standby", "stop that one", "/one", &holder.host] {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_epoch_stays_over_renewals_and_grows_with_each_ownership() {
    let fixture = Fixture::new().await;
    let first = fixture.acquire("one", false).await.unwrap();
    let epoch = first.epoch();
    let (sequence, holder) = fixture.renewed_after(epoch).await;
    fixture.renewed_after(sequence).await;
    assert_eq!(holder, *first.holder());
    assert_eq!(first.epoch(), epoch);
    assert!(first.is_held());

    first.release().await;
    let second = fixture.acquire("two", false).await.unwrap();
    assert!(second.epoch() > sequence);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_same_data_directory_retakes_its_own_at_once() {
    let fixture = Fixture::new().await;
    let died = fixture.acquire("one", false).await.unwrap();
    let (epoch, directory) = (died.epoch(), fixture.dir.path().join("one"));
    drop(died);
    let identity = timeout(PATIENCE, async {
        loop {
            match Identity::of_data_directory(&directory) {
                Ok(identity) => return identity,
                Err(_still_locked) => tokio::task::yield_now().await,
            }
        }
    });
    let identity = identity.await.unwrap();
    let jetstream = fixture.jetstream().await;
    let again = OwnerLease::acquire_with(&jetstream, identity, false, short()).await;
    assert!(again.unwrap().epoch() > epoch);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_standby_takes_over_when_the_owner_has_died() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    let (epoch, died) = (owner.epoch(), Instant::now());
    drop(owner);
    let standby = timeout(PATIENCE, fixture.acquire("two", true)).await;
    let standby = standby.unwrap().unwrap();
    assert!(standby.epoch() > epoch);
    let least = short().times.ttl.saturating_sub(short().times.renew_every);
    assert!(died.elapsed() > least, "the entry had to expire first");
}

/// With the clocks as they are in earnest, and an owner that dies right after a renewal.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_standby_takes_over_within_15_seconds_of_a_death() {
    let fixture = Fixture::new().await;
    let earnest = OwnerOptions::default;
    let owner = fixture.acquire_with("one", false, earnest()).await.unwrap();
    drop(owner);
    let died = Instant::now();
    let standby = fixture.acquire_with("two", true, earnest()).await.unwrap();
    assert!(standby.is_held());
    assert!(
        died.elapsed() < Duration::from_secs(15),
        "{:?}",
        died.elapsed()
    );
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_standby_takes_over_at_once_what_is_given_back() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    let lost = owner.lost();
    let (jetstream, identity) = (fixture.jetstream().await, fixture.identity("two"));
    let standby =
        tokio::spawn(
            async move { OwnerLease::acquire_with(&jetstream, identity, true, short()).await },
        );
    fixture.renewed_after(owner.epoch()).await;
    assert!(!standby.is_finished(), "the owner renews");
    owner.release().await;
    assert_eq!(lost.await, LossReason::Released);
    let released = Instant::now();
    timeout(PATIENCE, standby).await.unwrap().unwrap().unwrap();
    assert!(released.elapsed() < short().times.ttl);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn every_ownership_has_a_queue_group_of_its_own() {
    let fixture = Fixture::new().await;
    let mut groups = std::collections::HashSet::new();
    let mut check = |owner: &OwnerLease| {
        let group = owner.queue_group();
        assert_eq!(group, format!("loom-{}", owner.epoch()));
        assert!(groups.insert(group), "a group for the second time");
    };
    let owner = fixture.acquire("one", false).await.unwrap();
    check(&owner);
    drop(owner);
    let owner = fixture.acquire("one", false).await.unwrap();
    check(&owner);
    owner.release().await;
    let owner = fixture.acquire("two", false).await.unwrap();
    check(&owner);
    // It may be frozen, for all that anybody knows.
    drop(owner);
    let owner = fixture.acquire("one", true).await.unwrap();
    check(&owner);
}

/// What versions before wrote beside the lease says nothing any more, whatever it says.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_note_of_an_earlier_version_about_its_queue_group_is_let_alone() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    owner.release().await;
    let bucket = fixture.jetstream().await;
    let bucket = bucket.get_key_value("LOOM_OWNERS").await.unwrap();
    let former = br#"{"instanceId":"018f3b8e-0000-7000-8000-000000000001","queueGroup":"loom","since":1,"givenBack":false}"#;
    for note in [&former[..], b"neither this nor that"] {
        let revision = bucket.put("queue-group", note.into()).await.unwrap();
        let owner = fixture.acquire("two", false).await.unwrap();
        assert_eq!(owner.queue_group(), format!("loom-{}", owner.epoch()));
        assert!(owner.epoch() > revision);
        owner.release().await;
        let kept = bucket.entry("queue-group").await.unwrap().unwrap();
        assert_eq!((kept.revision, &kept.value[..]), (revision, note));
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_server_that_stands_still_ends_the_ownership_in_time() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    fixture.renewed_after(owner.epoch()).await;
    fixture.server.pause().unwrap();
    let paused = Instant::now();
    let loss = timeout(PATIENCE, owner.lost()).await.unwrap();
    assert_eq!(loss, LossReason::Unanswered(short().times.keep_for));
    assert!(!owner.is_held());
    assert!(
        paused.elapsed() < short().times.ttl,
        "before a standby may own"
    );

    fixture.server.resume().unwrap();
    drop(owner);
    let next = timeout(PATIENCE, fixture.acquire("two", true)).await;
    assert!(next.unwrap().unwrap().is_held());
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_outage_shorter_than_the_lease_costs_nothing() {
    let fixture = Fixture::new().await;
    let mut patient = short();
    patient.times.keep_for = PATIENCE;
    patient.times.ttl = PATIENCE * 2;
    let owner = fixture.acquire_with("one", false, patient).await.unwrap();
    let (sequence, _) = fixture.renewed_after(owner.epoch()).await;
    fixture.server.kill().await;
    fixture.server.restart().await.unwrap();
    let (_, holder) = fixture.renewed_after(sequence).await;
    assert_eq!(holder, *owner.holder());
    assert!(owner.is_held());
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_whose_entry_was_taken_or_removed_hears_of_it() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    let jetstream = fixture.jetstream().await;
    let stream = jetstream.get_stream("KV_LOOM_OWNERS").await.unwrap();
    stream.purge().await.unwrap();
    let loss = timeout(PATIENCE, owner.lost()).await.unwrap();
    assert_eq!(loss, LossReason::Gone);

    let owner = fixture.acquire("two", false).await.unwrap();
    let thief = Holder {
        session: uuid::Uuid::new_v4(),
        host: "elsewhere".to_owned(),
        ..owner.holder().clone()
    };
    let entry = serde_json::to_vec(&thief).unwrap();
    let stored = jetstream.publish("$KV.LOOM_OWNERS.coordinator", entry.into());
    stored.await.unwrap().await.unwrap();
    let loss = timeout(PATIENCE, owner.lost()).await.unwrap();
    assert_eq!(loss, LossReason::TakenBy(Box::new(thief.clone())));
    owner.release().await;
    assert_eq!(
        fixture.entry().await.1,
        thief,
        "nobody gives back what is not theirs"
    );
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_many_that_start_at_once_one_owns() {
    let fixture = Fixture::new().await;
    let mut starting = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let (jetstream, identity) = (fixture.jetstream().await, fixture.identity(name));
        starting.push(tokio::spawn(async move {
            OwnerLease::acquire_with(&jetstream, identity, false, short()).await
        }));
    }
    let mut owners = Vec::new();
    for started in starting {
        match started.await.unwrap() {
            Ok(owner) => owners.push(owner),
            Err(error) => assert!(matches!(error, OwnerError::HeldBy { .. }), "{error}"),
        }
    }
    assert_eq!(owners.len(), 1);
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_bucket_without_time_to_live_is_refused_with_the_remedy() {
    let fixture = Fixture::new().await;
    let config = jetstream::stream::Config {
        name: "KV_LOOM_OWNERS".to_owned(),
        subjects: vec!["$KV.LOOM_OWNERS.>".to_owned()],
        ..Default::default()
    };
    let jetstream = fixture.jetstream().await;
    jetstream.create_stream(config).await.unwrap();
    let error = fixture.acquire("one", true).await.unwrap_err();
    assert!(error.to_string().contains("remove it"), "{error}");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_unreadable_entry_is_replaced_when_it_has_not_changed_for_the_length_of_a_lease() {
    let fixture = Fixture::new().await;
    let owner = fixture.acquire("one", false).await.unwrap();
    let epoch = owner.epoch();
    let jetstream = fixture.jetstream().await;
    let garbage = async || {
        let stored = jetstream.publish("$KV.LOOM_OWNERS.coordinator", "garbage".into());
        let stored = stored.await.unwrap().await.unwrap();
        stored.sequence
    };
    let revision = garbage().await;
    let loss = timeout(PATIENCE, owner.lost()).await.unwrap();
    assert!(
        matches!(loss, LossReason::Overwritten(entry) if entry.revision == revision),
        "{loss}"
    );
    for part in ["coordinator", "LOOM_OWNERS", &revision.to_string()] {
        assert!(loss.to_string().contains(part), "{part:?} is not in {loss}");
    }
    drop(owner);

    let written = Instant::now();
    let owner = timeout(PATIENCE, fixture.acquire("two", true))
        .await
        .unwrap()
        .unwrap();
    assert!(
        written.elapsed() >= short().times.ttl,
        "somebody may hold it"
    );
    assert!(owner.epoch() > epoch && owner.others_owned());
    let (_, holder) = fixture.entry().await;
    assert_eq!(holder, *owner.holder());
    owner.release().await;

    garbage().await;
    let owner = timeout(PATIENCE, fixture.acquire("three", false))
        .await
        .unwrap();
    assert!(
        owner.unwrap().is_held(),
        "no standby, and all the same it need not be started again"
    );
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_unreadable_entry_that_somebody_renews_is_left_alone_with_the_key_and_the_remedy() {
    let fixture = Fixture::new().await;
    fixture.acquire("one", false).await.unwrap().release().await;
    let jetstream = fixture.jetstream().await;
    let renewing = tokio::spawn(async move {
        loop {
            let stored = jetstream.publish("$KV.LOOM_OWNERS.coordinator", "of another kind".into());
            stored.await.unwrap().await.unwrap();
            // deliberate sleep: the pace at which another one renews
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let error = timeout(PATIENCE, async {
        loop {
            match fixture.acquire("two", false).await {
                // The first renewal was not there yet.
                Ok(owner) => owner.release().await,
                Err(error) => return error,
            }
        }
    });
    let error = error.await.unwrap();
    renewing.abort();
    assert!(matches!(error, OwnerError::Unreadable { .. }), "{error}");
    let sentence = error.to_string();
    for part in ["coordinator", "LOOM_OWNERS", "nats kv del"] {
        assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
    }
}
