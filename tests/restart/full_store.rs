//! The store of NATS is full, at a limit, or gone: that is said, and everything that was answered is there afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use loom_actors::nats::server::Profile;
use loom_protocol::readiness::{ProblemKind, Readiness};
use loom_protocol::work::WorkStatus;
use loom_protocol::{ProjectId, WorkId, names};
use loom_testkit::nats::TestNats;
use loom_testkit::process::LoomProcess;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{Hand, Rest, all_items, client, loom_up, submit, until};

const MB: u64 = 1_000_000;
const CREATED: u16 = 201;
const UNAVAILABLE: u16 = 503;
/// Longer than an ownership lasts that is not renewed.
const PAST_OWNERSHIP: Duration = Duration::from_secs(15);
/// What is promised, after space is free again.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A small disk of its own.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// None where this user may not mount, which is said.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]);
        let mounted = mount.arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        eprintln!("skipped: this user may not mount a disk of 64 MB (root may)");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves so many bytes free.
    fn leave(&self, bytes: u64) {
        let _ = std::fs::remove_file(self.filler());
        let disk = rustix::fs::statvfs(self.path()).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        let fill = usize::try_from(free.saturating_sub(bytes)).unwrap();
        // The server writes meanwhile, so there may be less than was asked for.
        let _ = std::fs::write(self.filler(), vec![b'x'; fill]);
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// What is said of a full store, wherever it is said.
#[track_caller]
fn says_full(text: &str) {
    assert!(text.contains("the store of nats-server is"), "{text}");
    assert!(text.contains("full: ") && text.contains(" free"), "{text}");
    is_no_consequence(text);
}

/// The cause is told, and not what follows from it.
#[track_caller]
fn is_no_consequence(text: &str) {
    for consequence in ["has taken over", "been stopped", "may own"] {
        assert!(!text.contains(consequence), "{text}");
    }
}

fn is_full(readiness: &Readiness) -> bool {
    readiness.kinds.contains(&ProblemKind::StoreFull)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_full_disk_is_told_and_what_was_answered_is_there_when_it_is_free_again() {
    let Some(disk) = Disk::mount() else {
        return;
    };
    let loom = loom_up().data_dir(disk.path()).start().await.unwrap();
    let rest = Rest::of(&loom);
    let sdk = client(loom.nats_url()).await;
    let agent = Hand::register(&sdk, 10).await;
    for number in 0..6 {
        submit(&sdk, &format!("item {number}")).await;
    }
    let held = agent.claim(4, Duration::ZERO).await;
    assert_eq!(held.len(), 4);

    // Short: no new work, but ends.
    disk.leave(4 * MB);
    until("it is short", || rest.readiness(), is_full).await;
    let (status, refusal) = rest.submit_text(WorkId::generate(), "more").await.unwrap();
    assert_eq!(
        (status, refusal["code"].as_str()),
        (UNAVAILABLE, Some("unavailable"))
    );
    assert!(refusal["retryAfterMs"].as_u64() >= Some(1_000), "{refusal}");
    says_full(refusal["message"].as_str().unwrap());
    agent
        .complete(&held[0], "while it was short")
        .await
        .unwrap();
    let published = publish(loom.nats_url()).await;

    // Full: writes go on until the first is refused, for longer than the ownership lasts.
    disk.leave(0);
    let mut answered = vec![held[0].work_item.id];
    // Several: what is left of the last block of the disk is written first.
    let long = "x".repeat(60_000);
    let completing = held[1..].iter().map(async |item| {
        let done = agent.complete(item, &long);
        let done = tokio::time::timeout(Duration::from_secs(8), done).await;
        matches!(done, Ok(Ok(_))).then_some(item.work_item.id)
    });
    let ends = futures_util::future::join_all(completing).await;
    answered.extend(ends.into_iter().flatten());
    let began = Instant::now();
    while began.elapsed() < PAST_OWNERSHIP {
        let readiness = rest.readiness().await;
        assert!(!readiness.ready && is_full(&readiness), "{readiness:?}");
        says_full(&readiness.problems.join("; "));
        let (status, refusal) = rest.submit_text(WorkId::generate(), "more").await.unwrap();
        assert_eq!(status, UNAVAILABLE, "{refusal}");
        says_full(refusal["message"].as_str().unwrap());
        // deliberate sleep: between two looks, before the deadline
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let said = command_line(loom.api_url());
    says_full(&said);
    let told: Value = nats_request(loom.nats_url(), "work.submit").await;
    assert_eq!(told["code"], "unavailable", "{told}");
    says_full(told["message"].as_str().unwrap());

    disk.free();
    let freed = Instant::now();
    until("it serves again", || rest.readiness(), |now| now.ready).await;
    assert!(freed.elapsed() < READY_WITHIN, "{:?}", freed.elapsed());
    let completed = all_items(&sdk, Some(WorkStatus::Completed)).await;
    for id in answered {
        assert!(
            completed.iter().any(|item| item.id == id),
            "{id} was answered"
        );
    }
    for item in &held {
        // Whoever got no answer says it again.
        agent.complete(item, "again").await.unwrap();
    }
    let of_published = || async { sdk.get(published).await.ok() };
    until(
        "what was published is taken in",
        of_published,
        Option::is_some,
    )
    .await;
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), CREATED);
    assert_eq!(
        all_items(&sdk, None).await.len(),
        8,
        "nothing is lost, nothing is double"
    );
}

/// A coordinator on a server whose JetStream holds 8 MiB.
async fn limited() -> (TestNats, LoomProcess) {
    const LIMIT: u64 = 8 * 1024 * 1024;
    let nats = TestNats::start_limited(Profile::Fast, Some(LIMIT))
        .await
        .unwrap();
    let loom = loom_up().on_nats(nats.url()).start().await.unwrap();
    (nats, loom)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn at_a_limit_of_jetstream_ready_is_red_from_the_first_refusal() {
    let (nats, loom) = limited().await;
    let rest = Rest::of(&loom);
    let sdk = client(loom.nats_url()).await;
    let agent = Hand::register(&sdk, 2).await;
    let id = submit(&sdk, "before").await;
    let held = agent.claim_one().await;

    let others = jetstream::new(nats.connect().await.unwrap());
    let filler = fill(&others).await;
    let (status, refusal) = rest.submit_text(WorkId::generate(), "more").await.unwrap();
    assert_eq!(status, UNAVAILABLE, "{refusal}");
    let readiness = rest.readiness().await;
    assert!(!readiness.ready && is_full(&readiness), "{readiness:?}");
    let holds =
        |readiness: &Readiness| readiness.problems.join("").contains(" MB for this account");
    let readiness = until("the numbers are told", || rest.readiness(), holds).await;
    let said = readiness.problems.join("; ");
    assert!(said.contains("insufficient resources"), "{said}");
    is_no_consequence(&said);

    // Past the ownership too it is the store that is at fault.
    until("it owns no more", || rest.readiness(), |now| !now.owner).await;
    let readiness = rest.readiness().await;
    assert!(is_full(&readiness), "{readiness:?}");
    let (_, refusal) = rest.submit_text(WorkId::generate(), "more").await.unwrap();
    is_no_consequence(&refusal.to_string());

    filler.purge().await.unwrap();
    until("it serves again", || rest.readiness(), |now| now.ready).await;
    agent.complete(&held, "afterwards").await.unwrap();
    assert_eq!(sdk.get(id).await.unwrap().status, WorkStatus::Completed);
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), CREATED);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_that_is_not_there_yet_is_refused_for_the_full_store_and_leaves_nothing_red() {
    let (nats, loom) = limited().await;
    let rest = Rest::of(&loom);
    let others = jetstream::new(nats.connect().await.unwrap());
    let filler = fill(&others).await;
    for _ in 0..2 {
        let (status, refusal) = rest.submit_text(WorkId::generate(), "first").await.unwrap();
        assert_eq!(status, UNAVAILABLE, "{refusal}");
        let said = refusal["message"].as_str().unwrap();
        assert!(said.contains("insufficient resources"), "{said}");
        is_no_consequence(said);
    }
    let readiness = rest.readiness().await;
    assert!(!readiness.ready && is_full(&readiness), "{readiness:?}");

    filler.purge().await.unwrap();
    let now = until("it serves again", || rest.readiness(), |now| now.ready).await;
    assert_eq!(now.problems, Vec::<String>::new());
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), CREATED);
    let sdk = client(loom.nats_url()).await;
    assert_eq!(
        all_items(&sdk, None).await.len(),
        1,
        "what was refused is not there"
    );
}

/// Removes a folder in which a server that runs may write meanwhile.
fn remove(folder: &std::path::Path) {
    let tries = (0..1_000).map(|_| std::fs::remove_dir_all(folder));
    let not_empty = |e: &std::io::Error| e.kind() == std::io::ErrorKind::DirectoryNotEmpty;
    let mut ended = tries.skip_while(|tried| tried.as_ref().is_err_and(not_empty));
    ended.next().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_data_directory_that_is_removed_under_us_is_told_within_10_s() {
    let loom = loom_up().start().await.unwrap();
    let rest = Rest::of(&loom);
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), CREATED);
    let began = Instant::now();
    remove(&loom.data_dir().join("nats").join("store"));
    let is_missing = |readiness: &Readiness| readiness.kinds.contains(&ProblemKind::StoreMissing);
    let readiness = until("it is noticed", || rest.readiness(), is_missing).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let said = readiness.problems.join("; ");
    assert!(
        said.contains("was removed") && said.contains("store"),
        "{said}"
    );
    assert_eq!(rest.submit(WorkId::generate()).await.unwrap(), UNAVAILABLE);
}

/// Writes into a stream of somebody else's until the server takes no more.
async fn fill(jetstream: &jetstream::Context) -> stream::Stream {
    let config = stream::Config {
        name: "FILLER".into(),
        subjects: vec!["filler".into()],
        ..Default::default()
    };
    let filler = jetstream.create_stream(config).await.unwrap();
    for size in [100_000, 1_000, 1] {
        loop {
            let sent = jetstream.publish("filler", vec![b'x'; size].into()).await;
            if let Err(refusal) = sent.unwrap().await {
                let refusal = refusal.to_string();
                assert!(refusal.contains("insufficient resources"), "{refusal}");
                break;
            }
        }
    }
    filler
}

/// Submits by publishing; acknowledged by the stream.
async fn publish(nats_url: &str) -> WorkId {
    let nats = jetstream::new(async_nats::connect(nats_url).await.unwrap());
    let project = ProjectId::new("restart").unwrap();
    let id = WorkId::generate();
    let item = json!({"id": id, "capability": "rust", "description": "published"});
    let subject = names::work_queue(&project, "rust");
    let sent = nats.publish(subject, item.to_string().into()).await;
    sent.unwrap().await.unwrap();
    id
}

/// What `loom submit` says.
fn command_line(api_url: &str) -> String {
    let mut submit = Command::new(env!("CARGO_BIN_EXE_loom"));
    submit.args(["--url", api_url, "submit", "more", "--capability", "rust"]);
    let output = submit.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).replace('\n', " ")
}

async fn nats_request(nats_url: &str, verb: &str) -> Value {
    let nats = async_nats::connect(nats_url).await.unwrap();
    let body = json!({"capability": "rust", "description": "more"});
    let subject = format!("coord.restart.{verb}");
    let answer = nats.request(subject, body.to_string().into()).await;
    serde_json::from_slice(&answer.unwrap().payload).unwrap()
}
