//! In which order actors start, restart, drain and stop.

use std::time::Duration;

use loom_supervision::{StartError, StopError, TreeState};
use tokio::time::Instant;

use crate::probe::{Fixture, LONG, Start};

#[tokio::test(start_paused = true)]
async fn draining_goes_from_the_last_started_to_the_first() {
    let fixture = Fixture::started().await;
    fixture.log.take();
    fixture.root.stop_tree("p", LONG).await.unwrap();
    assert_eq!(
        fixture.log.take(),
        [
            "c drained",
            "c stopped",
            "b drained",
            "b stopped",
            "a drained",
            "a stopped"
        ]
    );
    assert_eq!(fixture.root.tree("p"), None);
}

#[tokio::test(start_paused = true)]
async fn those_named_in_the_drain_order_go_first() {
    let fixture = Fixture::new().await;
    let spec = fixture.spec().drain_order(["b"]);
    fixture.root.start_tree(spec).await.unwrap();
    fixture.log.take();
    fixture.root.shutdown(LONG).await.unwrap();
    let log = fixture.log.take();
    let drained: Vec<_> = log.iter().filter(|l| l.ends_with("drained")).collect();
    assert_eq!(drained, ["b drained", "c drained", "a drained"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_finish_leaves_the_others_time() {
    let mut fixture = Fixture::new().await;
    fixture.b.drains = false;
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    fixture.log.take();
    let before = Instant::now();
    let deadline = Duration::from_secs(10);
    let stopped = fixture.root.stop_tree("p", deadline).await;
    assert_eq!(stopped, Err(StopError::Unfinished(vec!["p/b".into()])));
    assert!(before.elapsed() <= deadline, "{:?}", before.elapsed());
    assert_eq!(
        fixture.log.take(),
        ["c drained", "c stopped", "a drained", "a stopped"]
    );
    assert_eq!(fixture.b.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_backoff_is_the_end() {
    let mut fixture = Fixture::new().await;
    fixture.policy.backoff_first = Duration::from_mins(10);
    fixture.policy.backoff_max = Duration::from_mins(10);
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    fixture.b.handle.kill();
    fixture.wait_for(TreeState::Restarting).await;
    let stopped = fixture.root.stop_tree("p", Duration::from_secs(1)).await;
    assert_eq!(
        stopped,
        Err(StopError::Unfinished(vec!["p/b".into()])),
        "nobody could drain b"
    );
    tokio::time::advance(LONG).await;
    assert_eq!(fixture.b.starts(), 1, "it did not come back");

    fixture.root.start_tree(fixture.spec()).await.unwrap();
    assert_eq!(fixture.b.count().await, (2, 1));
    assert_eq!(fixture.b.handle.restarts(), 0, "that was no restart");
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_hanging_start_is_the_end() {
    let fixture = Fixture::new().await;
    fixture.b.next_starts(&[Start::Hangs]);
    let starting = tokio::spawn({
        let (root, spec) = (fixture.root.clone(), fixture.spec());
        async move { root.start_tree(spec).await }
    });
    fixture.a.handle.wait_until_up(LONG).await.unwrap();
    while fixture.b.starts() == 0 {
        tokio::task::yield_now().await;
    }
    let _ = fixture.root.stop_tree("p", Duration::from_secs(1)).await;
    assert_eq!(
        starting.await.unwrap(),
        Err(StartError::Stopped { tree: "p".into() })
    );
    tokio::time::advance(LONG).await;
    assert_eq!((fixture.b.starts(), fixture.c.starts()), (1, 0));
    assert_eq!(fixture.a.alive(), 0);
}
