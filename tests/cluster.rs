//! Three nats-servers with three copies of everything: one may die at any time, and without two nothing is written.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use loom_protocol::readiness::{ProblemKind, Readiness};
use loom_testkit::chaos::Chaos;
use loom_testkit::cluster::TestCluster;
use loom_testkit::process::{LoomProcess, LoomUp};

const PATIENCE: Duration = Duration::from_mins(1);
/// That there is no majority is told within 10 s; the rest is for a busy machine.
const RED_WITHIN: Duration = Duration::from_secs(13);

/// A short run; `cargo xtask chaos --cluster --minutes 4` makes a longer one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn nothing_is_lost_and_nothing_counts_twice_while_one_server_after_the_other_dies() {
    let run = Chaos::new(env!("CARGO_BIN_EXE_loom"), 1)
        .length(Duration::from_secs(27))
        .per_second(10)
        .cluster(Duration::from_secs(9));
    let report = Box::pin(run.run()).await.unwrap();
    eprintln!("{report}");
    assert!(report.is_sound(), "a promise was broken, see above");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn without_a_majority_ready_is_red_within_10_s_and_green_again_with_it() {
    let cluster = TestCluster::start().await.unwrap();
    let loom = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
        .on_nats(cluster.url())
        .set("nats.replicas", "3")
        .start()
        .await
        .unwrap();
    until(&loom, "it can serve", |readiness| readiness.ready).await;

    cluster.kill(0).await;
    until(&loom, "it goes on with two", |readiness| readiness.ready).await;
    cluster.kill(1).await;
    let began = Instant::now();
    until(&loom, "it is red", |readiness| !readiness.ready).await;
    assert!(began.elapsed() < RED_WITHIN, "after {:?}", began.elapsed());
    // The ownership may end a moment before the majority has been missing for longer than an election takes.
    let no_leader = |now: &Readiness| now.kinds.contains(&ProblemKind::NoLeader);
    until(&loom, "it says why", no_leader).await;

    cluster.restart(1).await.unwrap();
    until(&loom, "it can serve again", |readiness| readiness.ready).await;
    cluster.restart(0).await.unwrap();
}

/// Asks `/ready` until the answer is as it should be.
async fn until(loom: &LoomProcess, what: &str, accepts: impl Fn(&Readiness) -> bool) -> Readiness {
    // Only the first one of a process is taken; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{}/ready", loom.api_url());
    let began = Instant::now();
    loop {
        let answer = reqwest::get(&url).await.unwrap().json::<Readiness>().await;
        let readiness = answer.unwrap();
        if accepts(&readiness) {
            return readiness;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {readiness:?}");
        // deliberate sleep: between two looks, before the deadline
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
