//! Trees that were given up: tried again by themselves, by a call, by a start; seen as parked until they are up.

use std::time::Duration;

use loom_supervision::{CallError, StartError, TreeSpec, TreeState};
use tokio::time::Instant;

use crate::probe::{Fixture, LONG, Log, Msg, Probe, Start, two_restarts};

/// Starts until `b` has exhausted a tree that never was up: a first start and two restarts.
const STARTS_OF_A_TRY: usize = 3;

impl Fixture {
    /// Its tree is parked, because `b` fails as long as its dependency is down.
    async fn parked() -> Self {
        let fixture = Self::new().await;
        fixture.b.next_starts(&[Start::NeedsDependency]);
        fixture.b.dependency.send_replace(false);
        let error = fixture.root.start_tree(fixture.spec()).await.unwrap_err();
        assert!(matches!(error, StartError::Parked { .. }), "{error:?}");
        assert_eq!(fixture.b.starts(), 2 * STARTS_OF_A_TRY, "one restart");
        fixture
    }

    fn state(&self) -> TreeState {
        self.root.tree("p").unwrap().state
    }

    /// Waits until a try begins (`true`) or has failed.
    async fn wait_for_try(&self, begins: bool) {
        let is_so = |state: &TreeState| match state {
            TreeState::Parked { next_try, .. } => next_try.is_none() == begins,
            _ => false,
        };
        let seen = self.root.wait_until(LONG, |trees| is_so(&trees[0].state));
        seen.await.unwrap();
    }

    /// The pause until the next try, and the time it took to begin.
    async fn pause(&self) -> (Duration, Duration) {
        let TreeState::Parked {
            next_try: Some(next_try),
            reason,
        } = self.state()
        else {
            panic!("it does not wait: {:?}", self.state());
        };
        assert!(reason.contains("the dependency is down"), "{reason}");
        let now = Instant::now();
        self.wait_for_try(true).await;
        (next_try - now, now.elapsed())
    }
}

fn assert_about(measured: Duration, expected: Duration) {
    let slack = Duration::from_millis(10);
    assert!(
        measured <= expected + slack && measured + slack >= expected,
        "{measured:?} is not about {expected:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_again_after_pauses_that_double_and_comes_back_by_itself() {
    let fixture = Fixture::parked().await;
    for (n, secs) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
        let (said, waited) = fixture.pause().await;
        assert_about(said, Duration::from_secs(secs));
        assert_about(waited, Duration::from_secs(secs));
        fixture.wait_for_try(false).await;
        assert_eq!(fixture.b.starts(), (3 + n) * STARTS_OF_A_TRY);
    }
    fixture.b.dependency.send_replace(true);
    fixture.wait_for(TreeState::Running).await;
    assert_eq!(fixture.root.tree("p").unwrap().last_failure, None);
    // The same handles, and all restarts: one crash is no exhaustion.
    assert_eq!(fixture.c.count().await, (1, 1));
    assert!(fixture.b.handle.kill());
    fixture.wait_for(TreeState::Restarting).await;
    fixture.wait_for(TreeState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_window_of_being_up_begins_the_pauses_anew() {
    for (up_for, secs) in [(LONG / 2, 20), (LONG, 5)] {
        let fixture = Fixture::parked().await;
        for begins in [true, false, true] {
            fixture.wait_for_try(begins).await;
        }
        fixture.b.dependency.send_replace(true);
        fixture.wait_for(TreeState::Running).await;
        // deliberate sleep: how long it is up, on paused time
        tokio::time::sleep(up_for).await;
        fixture.b.dependency.send_replace(false);
        fixture.b.handle.kill();
        fixture.wait_until_parked().await;
        assert_about(fixture.pause().await.0, Duration::from_secs(secs));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_has_it_tried_and_calls_in_crowds_no_more_often_than_once_a_second() {
    let fixture = Fixture::parked().await;
    let refused = fixture.a.handle.call(LONG, Msg::Count).await;
    assert!(
        matches!(refused, Err(CallError::Parked { .. })),
        "{refused:?}"
    );
    let (_, waited) = fixture.pause().await;
    assert_about(waited, Duration::from_secs(1));

    // During the try a caller waits no longer than it wants to.
    let begun = Instant::now();
    let within = Duration::from_millis(10);
    let down = fixture.c.handle.call(within, Msg::Count).await;
    assert_eq!(
        down,
        Err(CallError::Down {
            actor: "c".into(),
            why: None
        })
    );
    assert_eq!(begun.elapsed(), within);
    fixture.wait_for_try(false).await;

    let (begun, before) = (Instant::now(), fixture.b.starts());
    while begun.elapsed() < Duration::from_secs(30) {
        let calls = (0..100).map(|_| fixture.c.handle.call(within, Msg::Count));
        for call in calls {
            call.await.unwrap_err();
        }
        // deliberate sleep: the pause between two bursts, on paused time
        tokio::time::sleep(within).await;
    }
    let tries = (fixture.b.starts() - before) / STARTS_OF_A_TRY;
    assert!((20..=30).contains(&tries), "{tries}");

    fixture.wait_for_try(false).await;
    fixture.wait_for_try(true).await;
    fixture.b.dependency.send_replace(true);
    assert_eq!(
        fixture.c.count().await,
        (1, 1),
        "a caller during a try waits"
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_tries_it_at_once() {
    let fixture = Fixture::parked().await;
    fixture.b.dependency.send_replace(true);
    let begun = Instant::now();
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(fixture.b.count().await.1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_during_a_try_waits_for_it() {
    let fixture = Fixture::parked().await;
    fixture.wait_for_try(true).await;
    let error = fixture.root.start_tree(fixture.spec()).await.unwrap_err();
    assert!(matches!(error, StartError::Parked { .. }), "{error:?}");
    fixture.wait_for_try(true).await;
    fixture.b.dependency.send_replace(true);
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    assert_eq!(fixture.b.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_it_waits_or_is_tried_is_the_end() {
    for during_a_try in [false, true] {
        let fixture = Fixture::parked().await;
        if during_a_try {
            fixture.wait_for_try(true).await;
        }
        let _ = fixture.root.stop_tree("p", Duration::from_secs(1)).await;
        assert_eq!(fixture.root.tree("p"), None);
        let starts = fixture.b.starts();
        let stopped = fixture.a.handle.call(LONG, Msg::Count).await;
        assert_eq!(stopped, Err(CallError::Stopped { actor: "a".into() }));
        // deliberate sleep: that nothing is tried any more shows after long, on paused time
        tokio::time::sleep(LONG).await;
        assert_eq!(fixture.b.starts(), starts);
        assert_eq!(fixture.a.alive(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_root_shuts_down_while_trees_wait() {
    let fixture = Fixture::parked().await;
    assert_eq!(fixture.root.shutdown(LONG).await, Ok(()));
    fixture.root.ended().await;
}

#[tokio::test(start_paused = true)]
async fn the_other_trees_never_notice() {
    let fixture = Fixture::parked().await;
    let other = Probe::new("other", &Log::default());
    let spec = TreeSpec::new("q", two_restarts()).child(other.child(two_restarts()));
    fixture.root.start_tree(spec).await.unwrap();
    for n in 1..100 {
        // deliberate sleep: over many tries of the other tree, on paused time
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(other.count().await, (1, n));
        assert_eq!(fixture.root.tree("q").unwrap().state, TreeState::Running);
        let parked = matches!(fixture.state(), TreeState::Parked { .. });
        assert!(parked, "seen as such all the time: {:?}", fixture.state());
    }
    fixture.b.dependency.send_replace(true);
    fixture.wait_for(TreeState::Running).await;
    assert_eq!(other.count().await, (1, 100));
}

#[tokio::test(start_paused = true)]
async fn a_killed_tree_is_tried_again_too() {
    let fixture = Fixture::started().await;
    for _ in 0..2 {
        fixture.wait_for(TreeState::Running).await;
        assert!(fixture.root.kill_tree("p").await);
        fixture
            .root
            .wait_until(LONG, |trees| trees[0].state != TreeState::Running)
            .await
            .unwrap();
    }
    fixture.wait_until_parked().await;
    fixture.wait_for(TreeState::Running).await;
    assert_eq!(fixture.a.handle.restarts(), 2);
}
