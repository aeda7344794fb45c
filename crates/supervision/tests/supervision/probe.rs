//! An actor that counts, and fails as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom_supervision::{
    ActorHandle, ChildSpec, Jitter, RestartPolicy, Root, RootHandle, TreeSpec, TreeState,
};
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

/// Longer than anything here takes; on the paused clock it costs nothing.
pub const LONG: Duration = Duration::from_hours(1);

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Well,
    Fails,
    Panics,
    Hangs,
    /// Fails for as long as [`Probe::dependency`] says so.
    NeedsDependency,
}

pub enum Msg {
    /// Answers the number of the incarnation and how often it was asked.
    Count(RpcReplyPort<(usize, usize)>),
    Panic,
    Fail,
    Stop,
    /// The first incarnation panics, any later one answers.
    DieOnce(RpcReplyPort<usize>),
    /// The first incarnation fails, and the port outlives it; any later one answers.
    FailHoldingOnce(RpcReplyPort<usize>),
    /// Never answers.
    Ignore(RpcReplyPort<()>),
    Drain(RpcReplyPort<()>),
}

/// What a test knows of one probe, over all of its incarnations.
#[derive(Clone)]
pub struct Probe {
    pub name: &'static str,
    pub handle: ActorHandle<Msg>,
    pub starts: Arc<AtomicUsize>,
    pub alive: Arc<AtomicUsize>,
    /// How the n-th start goes; the last one stands for all further ones.
    pub plan: Arc<Mutex<Vec<Start>>>,
    pub dependency: watch::Sender<bool>,
    pub drains: bool,
    log: Log,
}

/// What happened to all probes of a test, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, probe: &str, what: &str) {
        self.0.lock().push(format!("{probe} {what}"));
    }

    /// What happened since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Probe {
    pub fn new(name: &'static str, log: &Log) -> Self {
        Self {
            name,
            handle: ActorHandle::new(name),
            starts: Arc::default(),
            alive: Arc::default(),
            plan: Arc::new(Mutex::new(vec![Start::Well])),
            dependency: watch::Sender::new(true),
            drains: true,
            log: log.clone(),
        }
    }

    pub fn child(&self, policy: RestartPolicy) -> ChildSpec {
        let probe = self.clone();
        let make = move || (ProbeActor, probe.clone());
        ChildSpec::actor(self.name, self.handle.clone(), policy, make).drain_with(Msg::Drain)
    }

    /// Sets how the starts after those that have been go.
    pub fn next_starts(&self, starts: &[Start]) {
        let mut plan = vec![Start::Well; self.starts()];
        plan.extend(starts);
        *self.plan.lock() = plan;
    }

    fn start(&self, incarnation: usize) -> Start {
        let plan = self.plan.lock();
        *plan.get(incarnation - 1).or(plan.last()).unwrap()
    }

    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    /// The number of the incarnation, and how often it was asked.
    pub async fn count(&self) -> (usize, usize) {
        self.handle.call(LONG, Msg::Count).await.unwrap()
    }
}

struct ProbeActor;

pub struct State {
    probe: Probe,
    incarnation: usize,
    count: usize,
}

impl Drop for State {
    fn drop(&mut self) {
        self.probe.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Actor for ProbeActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Probe;

    async fn pre_start(
        &self,
        _myself: ActorRef<Msg>,
        probe: Probe,
    ) -> Result<State, ActorProcessingErr> {
        let incarnation = probe.starts.fetch_add(1, Ordering::SeqCst) + 1;
        let start = probe.start(incarnation);
        match start {
            Start::Fails => return Err("told to fail".into()),
            Start::Panics => panic!("told to panic"),
            Start::Hangs => std::future::pending().await,
            Start::NeedsDependency if !*probe.dependency.borrow() => {
                return Err("the dependency is down".into());
            }
            Start::Well | Start::NeedsDependency => {}
        }
        probe.alive.fetch_add(1, Ordering::SeqCst);
        probe
            .log
            .note(probe.name, &format!("started {incarnation}"));
        Ok(State {
            probe,
            incarnation,
            count: 0,
        })
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.probe.log.note(state.probe.name, "stopped");
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Count(reply) => {
                state.count += 1;
                let _ = reply.send((state.incarnation, state.count));
            }
            Msg::Panic => panic!("told to panic"),
            Msg::Fail => return Err("told to fail".into()),
            Msg::Stop => myself.stop(None),
            Msg::DieOnce(reply) => {
                assert!(state.incarnation > 1, "told to die once");
                let _ = reply.send(state.incarnation);
            }
            Msg::FailHoldingOnce(reply) if state.incarnation == 1 => {
                hold(reply);
                return Err("told to fail".into());
            }
            Msg::FailHoldingOnce(reply) => {
                let _ = reply.send(state.incarnation);
            }
            Msg::Ignore(reply) => hold(reply),
            Msg::Drain(reply) if state.probe.drains => {
                state.probe.log.note(state.probe.name, "drained");
                let _ = reply.send(());
            }
            Msg::Drain(_) => std::future::pending().await,
        }
        Ok(())
    }
}

/// Neither answers nor drops it.
fn hold<T: Send + 'static>(reply: RpcReplyPort<T>) {
    tokio::spawn(async move {
        let _held = reply;
        std::future::pending::<()>().await;
    });
}

/// A policy with two restarts, then an exhaustion.
pub fn two_restarts() -> RestartPolicy {
    RestartPolicy {
        max_restarts: 2,
        within: LONG,
        start_timeout: Duration::from_secs(30),
        ..RestartPolicy::default()
    }
}

/// Three probes `a`, `b`, `c` in a tree `p`, and a root.
pub struct Fixture {
    pub root: RootHandle,
    pub log: Log,
    pub a: Probe,
    pub b: Probe,
    pub c: Probe,
    pub policy: RestartPolicy,
}

impl Fixture {
    pub async fn new() -> Self {
        let log = Log::default();
        Self {
            root: Root::start_with("test", Jitter::fixed(1.0)).await.unwrap(),
            a: Probe::new("a", &log),
            b: Probe::new("b", &log),
            c: Probe::new("c", &log),
            log,
            policy: two_restarts(),
        }
    }

    pub async fn started() -> Self {
        let fixture = Self::new().await;
        fixture.root.start_tree(fixture.spec()).await.unwrap();
        fixture
    }

    /// The tree: one restart of the whole, then it is parked, for 5 s at first.
    pub fn spec(&self) -> TreeSpec {
        let policy = RestartPolicy {
            max_restarts: 1,
            ..two_restarts()
        };
        TreeSpec::new("p", policy)
            .child(self.a.child(self.policy.clone()))
            .child(self.b.child(self.policy.clone()))
            .child(self.c.child(self.policy.clone()))
    }

    pub async fn wait_for(&self, state: TreeState) {
        let reached = self
            .root
            .wait_until(LONG, |trees| trees.iter().any(|t| t.state == state))
            .await;
        reached.unwrap_or_else(|trees| panic!("waited for {state:?}, it is {trees:?}"));
    }

    /// Waits until the tree is parked, and says why.
    pub async fn wait_until_parked(&self) -> String {
        let parked = self.root.wait_until(LONG, |trees| {
            matches!(trees[0].state, TreeState::Parked { .. })
        });
        let trees = parked
            .await
            .unwrap_or_else(|trees| panic!("waited for a parked tree, it is {trees:?}"));
        match &trees[0].state {
            TreeState::Parked { reason, .. } => reason.to_string(),
            state => unreachable!("{state:?}"),
        }
    }
}
