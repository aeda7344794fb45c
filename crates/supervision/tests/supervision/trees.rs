//! Whole trees: killed, started twice, stopped while they start, side by side.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use loom_supervision::{
    ActorHandle, ChildSpec, RestartPolicy, Root, StartError, TreeSpec, TreeState,
};
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::probe::{Fixture, LONG, Log, Msg, Probe, two_restarts};

#[tokio::test(start_paused = true)]
async fn a_killed_tree_comes_back_whole_and_leaves_nothing_behind() {
    let fixture = Fixture::started().await;
    assert!(fixture.root.kill_tree("p").await);
    fixture.wait_for(TreeState::Restarting).await;
    for probe in [&fixture.a, &fixture.b, &fixture.c] {
        assert_eq!(probe.count().await, (2, 1), "{}", probe.name);
        assert_eq!(probe.alive(), 1, "{}", probe.name);
    }
    fixture.wait_for(TreeState::Running).await;
    assert!(fixture.root.kill_tree("p").await);
    assert_eq!(fixture.wait_until_parked().await, "it was killed");
}

#[tokio::test(start_paused = true)]
async fn one_tree_parks_and_the_other_goes_on() {
    let fixture = Fixture::started().await;
    let other = Probe::new("other", &Log::default());
    let spec = TreeSpec::new("q", two_restarts()).child(other.child(two_restarts()));
    fixture.root.start_tree(spec).await.unwrap();
    while fixture.b.handle.wait_until_up(LONG).await.is_ok() {
        fixture.b.handle.kill();
        tokio::task::yield_now().await;
    }
    fixture.wait_until_parked().await;
    assert_eq!(other.count().await, (1, 1));
    assert_eq!(fixture.root.tree("q").unwrap().state, TreeState::Running);
    assert_eq!(fixture.root.status().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn starting_twice_starts_once() {
    let fixture = Fixture::new().await;
    let (first, second) = tokio::join!(
        fixture.root.start_tree(fixture.spec()),
        fixture.root.start_tree(fixture.spec())
    );
    assert_eq!((first, second), (Ok(()), Ok(())));
    fixture.root.start_tree(fixture.spec()).await.unwrap();
    assert_eq!(fixture.a.starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_during_a_stop_waits_for_its_end() {
    let fixture = Fixture::started().await;
    let (stopped, started) = tokio::join!(
        fixture.root.stop_tree("p", LONG),
        fixture.root.start_tree(fixture.spec())
    );
    assert_eq!((stopped, started), (Ok(()), Ok(())));
    assert_eq!(fixture.a.count().await, (2, 1));
    assert_eq!(fixture.a.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_root_ends_with_its_shutdown_and_starts_nothing_more() {
    let fixture = Fixture::started().await;
    fixture.root.shutdown(LONG).await.unwrap();
    fixture.root.ended().await;
    assert_eq!(
        fixture.root.start_tree(fixture.spec()).await,
        Err(StartError::ShuttingDown)
    );
    assert_eq!(fixture.a.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_what_is_not_there_is_done_already() {
    let root = Root::start("test").await.unwrap();
    assert_eq!(root.stop_tree("nobody", LONG).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_crashes_spread_over_time_exhaust_nothing() {
    let fixture = Fixture::started().await;
    for _ in 0..1000 {
        fixture.b.handle.wait_until_up(LONG).await.unwrap();
        assert!(fixture.b.handle.kill());
        fixture.wait_for(TreeState::Restarting).await;
        tokio::time::advance(two_restarts().within).await;
    }
    assert_eq!(fixture.b.count().await, (1001, 1));
    assert_eq!(fixture.b.alive(), 1);
    assert_eq!(fixture.a.count().await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn contradictory_trees_are_refused() {
    let fixture = Fixture::new().await;
    let (a, policy) = (&fixture.a, two_restarts());
    let twice = TreeSpec::new("p", policy.clone())
        .child(a.child(policy.clone()))
        .child(a.child(policy.clone()));
    let unknown = fixture.spec().drain_order(["nobody"]);
    let foreign = TreeSpec::new("p", policy.clone())
        .child(a.child(policy).drain_with(|_reply| "not a Msg".to_owned()));
    for (spec, sentence) in [
        (
            twice,
            "p can't be started: two of its actors are called \"a\"",
        ),
        (
            unknown,
            "p can't be started: its drain order names \"nobody\", which it does not have",
        ),
        (
            foreign,
            "p can't be started: the drain message of \"a\" is not of that actor's message type",
        ),
    ] {
        let error = fixture.root.start_tree(spec).await.unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
    assert_eq!(fixture.root.status(), []);
}

/// Blocks the thread in its first start until it is told to go on: no timeout can cancel that.
struct Blocker;

struct BlockerState(Arc<AtomicUsize>);

impl Drop for BlockerState {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type BlockerArgs = (Arc<Mutex<Option<mpsc::Receiver<()>>>>, Arc<AtomicUsize>);

impl Actor for Blocker {
    type Msg = Msg;
    type State = BlockerState;
    type Arguments = BlockerArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<Msg>,
        (gate, alive): BlockerArgs,
    ) -> Result<BlockerState, ActorProcessingErr> {
        let gate = gate.lock().take();
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        alive.fetch_add(1, Ordering::SeqCst);
        Ok(BlockerState(alive))
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut BlockerState,
    ) -> Result<(), ActorProcessingErr> {
        if let Msg::Count(reply) = message {
            let _ = reply.send((0, state.0.load(Ordering::SeqCst)));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_start_that_blocks_its_thread_never_lives_beside_its_successor() {
    let (open, gate) = mpsc::channel();
    let args: BlockerArgs = (Arc::new(Mutex::new(Some(gate))), Arc::default());
    let policy = RestartPolicy {
        start_timeout: Duration::from_millis(50),
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        max_restarts: 10_000,
        ..RestartPolicy::default()
    };
    let handle = ActorHandle::new("blocker");
    let alive = Arc::clone(&args.1);
    let child = ChildSpec::actor("blocker", handle.clone(), policy.clone(), move || {
        (Blocker, args.clone())
    });
    let root = Root::start("test").await.unwrap();
    let error = root
        .start_tree(TreeSpec::new("p", policy).child(child))
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::NotUpYet { .. }), "{error}");

    let blocked = root.wait_until(LONG, |trees| {
        let failure = trees[0].last_failure.as_deref();
        failure.is_some_and(|f| f.contains("blocks a thread"))
    });
    blocked.await.unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    open.send(()).unwrap();
    assert_eq!(handle.call(LONG, Msg::Count).await, Ok((0, 1)));
}
