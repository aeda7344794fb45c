//! An actor that loads after its start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use loom_supervision::{
    ActorHandle, CallError, ChildSpec, Defect, Jitter, Loading, Root, RootHandle, StartError,
    TreeSpec, TreeState,
};
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::probe::{LONG, two_restarts};

/// How a try to load goes; the last one stands for all further ones.
#[derive(Clone, Copy)]
enum Try {
    Takes(Duration),
    Fails,
    Panics,
}

enum Msg {
    Loaded(Result<usize, Defect>),
    /// Answers with which try it has loaded.
    Note(usize, RpcReplyPort<usize>),
    Drain(RpcReplyPort<()>),
}

/// What a test knows of it, over all of its incarnations.
#[derive(Clone, Default)]
struct World {
    plan: Arc<Mutex<VecDeque<Try>>>,
    tries: Arc<Mutex<Vec<Instant>>>,
    /// How many loads are under way.
    loading: watch::Sender<usize>,
    noted: Arc<Mutex<Vec<usize>>>,
}

impl World {
    fn next(&self) -> Option<Try> {
        let mut plan = self.plan.lock();
        if plan.len() > 1 {
            plan.pop_front()
        } else {
            plan.front().copied()
        }
    }

    async fn load(self) -> Result<usize, &'static str> {
        let number = {
            let mut tries = self.tries.lock();
            tries.push(Instant::now());
            tries.len()
        };
        match self.next() {
            Some(Try::Takes(time)) => {
                let _under_way = UnderWay::of(&self.loading);
                // deliberate sleep: the load that takes long, on paused time
                tokio::time::sleep(time).await;
                Ok(number)
            }
            Some(Try::Fails) => Err("the bucket does not answer"),
            Some(Try::Panics) => panic!("told to panic"),
            None => Ok(number),
        }
    }
}

struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn of(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct Loader;

struct State {
    world: World,
    loading: Option<Loading>,
    loaded: usize,
}

impl Actor for Loader {
    type Msg = Msg;
    type State = State;
    type Arguments = World;

    async fn pre_start(
        &self,
        me: ActorRef<Msg>,
        world: World,
    ) -> Result<State, ActorProcessingErr> {
        let source = world.clone();
        Ok(State {
            loading: Some(Loading::begin(
                &me,
                move || source.clone().load(),
                Msg::Loaded,
            )),
            world,
            loaded: 0,
        })
    }

    async fn handle(
        &self,
        _me: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Loaded(outcome) => {
                state.loaded = outcome?;
                if let Some(loading) = state.loading.take() {
                    loading.finish();
                }
            }
            Msg::Note(number, reply) => {
                assert!(state.loading.is_none(), "asked while it loads");
                state.world.noted.lock().push(number);
                let _ = reply.send(state.loaded);
            }
            Msg::Drain(reply) => {
                let _ = reply.send(());
            }
        }
        Ok(())
    }
}

struct House {
    root: RootHandle,
    world: World,
    loader: ActorHandle<Msg>,
    /// Starts after it.
    next: crate::probe::Probe,
}

impl House {
    async fn new(plan: impl IntoIterator<Item = Try>) -> Self {
        let world = World::default();
        world.plan.lock().extend(plan);
        Self {
            root: Root::start_with("test", Jitter::fixed(1.0)).await.unwrap(),
            world,
            loader: ActorHandle::new("loader"),
            next: crate::probe::Probe::new("next", &crate::probe::Log::default()),
        }
    }

    async fn start(&self) -> Result<(), StartError> {
        let world = self.world.clone();
        let make = move || (Loader, world.clone());
        let child = ChildSpec::actor("loader", self.loader.clone(), two_restarts(), make)
            .loads_after_start()
            .drain_with(Msg::Drain);
        let tree = TreeSpec::new("p", two_restarts())
            .child(child)
            .child(self.next.child(two_restarts()));
        self.root.start_tree(tree).await
    }

    fn note(&self, number: usize, within: Duration) -> Noting {
        let loader = self.loader.clone();
        tokio::spawn(async move { loader.call(within, |reply| Msg::Note(number, reply)).await })
    }

    async fn wait_until_loading(&self) {
        let mut loading = self.world.loading.subscribe();
        loading.wait_for(|count| *count > 0).await.unwrap();
    }

    async fn wait_until_running(&self) {
        let running = self
            .root
            .wait_until(LONG, |trees| trees[0].state == TreeState::Running);
        running.await.unwrap();
    }
}

type Noting = tokio::task::JoinHandle<Result<usize, CallError>>;

#[tokio::test(start_paused = true)]
async fn a_load_of_any_length_is_no_crash_and_requests_wait_for_it_in_order() {
    let takes = two_restarts().start_timeout * 20;
    let house = House::new([Try::Takes(takes)]).await;
    let began = Instant::now();
    let not_yet = house.start().await.unwrap_err();
    assert!(
        matches!(
            not_yet,
            StartError::NotUpYet {
                last_failure: None,
                ..
            }
        ),
        "{not_yet}"
    );
    let mut noting = Vec::new();
    for number in 0..100 {
        noting.push(house.note(number, LONG));
        tokio::task::yield_now().await;
    }
    noting.remove(7).abort();
    assert!(!house.loader.is_up());
    assert_eq!(house.next.starts(), 0, "it waits for what is before it");
    for noted in noting {
        assert_eq!(noted.await.unwrap(), Ok(1));
    }
    assert_eq!(began.elapsed(), takes);
    let in_order: Vec<_> = (0..100).filter(|number| *number != 7).collect();
    assert_eq!(*house.world.noted.lock(), in_order);
    house.wait_until_running().await;
    assert_eq!((house.loader.restarts(), house.next.starts()), (0, 1));
    assert_eq!(house.root.tree("p").unwrap().last_failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_is_tried_again_later_and_later_and_says_why() {
    let house = House::new([Try::Fails]).await;
    let not_yet = house.start().await.unwrap_err();
    assert!(
        not_yet
            .to_string()
            .contains("(the last failure: loader cannot load yet: the bucket does not answer)"),
        "{not_yet}"
    );
    let refused = house.note(1, Duration::from_secs(3)).await.unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "loader is being started (the bucket does not answer); try again in a moment"
    );
    house
        .world
        .plan
        .lock()
        .push_back(Try::Takes(Duration::ZERO));
    house.note(2, LONG).await.unwrap().unwrap();
    assert_eq!(
        *house.world.noted.lock(),
        [2],
        "nobody waits for 1 any more"
    );
    assert_eq!(house.loader.restarts(), 0);
    let tries = house.world.tries.lock();
    let pauses = tries.windows(2).map(|two| two[1] - two[0]);
    let pauses: Vec<_> = pauses.map(|pause| pause.as_millis()).take(8).collect();
    let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000];
    assert_eq!(pauses, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_loaded_by_an_actor_that_is_killed_ends_with_it() {
    let house = House::new([
        Try::Takes(Duration::ZERO),
        Try::Takes(LONG),
        Try::Takes(Duration::ZERO),
    ])
    .await;
    house.start().await.unwrap();
    assert!(house.loader.kill());
    house.wait_until_loading().await;
    assert_eq!(house.root.tree("p").unwrap().state, TreeState::Restarting);
    assert!(house.root.kill_tree("p").await);
    assert_eq!(house.note(1, LONG).await.unwrap(), Ok(3));
    assert_eq!(*house.world.loading.borrow(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_stopped_does_not_wait_for_a_load() {
    let house = House::new([Try::Takes(Duration::ZERO), Try::Takes(LONG)]).await;
    house.start().await.unwrap();
    assert!(house.loader.kill());
    house.wait_until_loading().await;
    let waiting = house.note(1, LONG);
    tokio::task::yield_now().await;
    let began = Instant::now();
    house.root.stop_tree("p", LONG).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(*house.world.loading.borrow(), 0);
    let actor = "loader".into();
    assert_eq!(waiting.await.unwrap(), Err(CallError::Stopped { actor }));
}

#[tokio::test(start_paused = true)]
async fn a_defect_met_while_loading_is_a_crash() {
    let house = House::new([Try::Panics]).await;
    let error = house.start().await.unwrap_err();
    let StartError::Parked { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        reason.starts_with("loader: ") && reason.contains("told to panic"),
        "{reason}"
    );
    let actor = "loader".into();
    let parked = house.note(1, LONG).await.unwrap();
    let reason = reason.clone();
    assert_eq!(parked, Err(CallError::Parked { actor, reason }));
}
