//! Supervises the trees: starts, restarts, parks and stops them. Its own end is the end of the process.
//!
//! States, messages and failure cases: see the module above.

mod handle;
mod stopping;
mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{
    Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

pub use self::handle::{RootHandle, StartError, StopError};
use self::timers::{parked_pause, send_after, send_later};
use super::control::end_of;
use super::jitter::Jitter;
use super::policy::{RestartHistory, RestartVerdict};
use super::spec::TreeSpec;
use super::status::{StatusBoard, TreeState};
use super::tree::{ProjectTree, TreeArgs, TreeMsg};

/// What the root is told.
pub(crate) enum RootMsg {
    /// Start a tree, or try a parked one at once. Answered at once; whether it comes up shows on the board.
    Start {
        spec: Arc<TreeSpec>,
        reply: RpcReplyPort<StartAnswer>,
    },
    /// Drain a tree and forget it. Answered with the actors that did not finish, when it is gone.
    Stop {
        name: Arc<str>,
        deadline: Duration,
        reply: RpcReplyPort<Unfinished>,
    },
    /// Drain all trees, then stop. Answered like `Stop`.
    Shutdown {
        deadline: Duration,
        reply: RpcReplyPort<Unfinished>,
    },
    /// Fault injection: kill the actor of a tree.
    Kill {
        name: Arc<str>,
        reply: RpcReplyPort<bool>,
    },
    /// From a tree: an actor of it went up or down.
    TreeChanged {
        name: Arc<str>,
        generation: u64,
        running: bool,
        last_failure: Option<Arc<str>>,
    },
    /// From a tree: all below it has ended; it waits to be stopped.
    TreeDrained {
        name: Arc<str>,
        generation: u64,
        unfinished: Vec<Arc<str>>,
    },
    /// Timer: the pause of a tree is over.
    RestartDue { name: Arc<str>, generation: u64 },
    /// Timer: a tree that was to stop has not.
    StopOverdue { name: Arc<str>, generation: u64 },
}

/// Names of actors, as `tree/actor`.
pub(super) type Unfinished = Vec<String>;

/// What the root says to a request to start.
#[derive(Debug)]
pub(super) enum StartAnswer {
    /// It starts, or has started before.
    Accepted,
    /// A tree of that name is being stopped: ask again when it is gone.
    Stopping,
    /// The specification contradicts itself.
    Invalid(String),
    /// The root is being shut down.
    ShuttingDown,
}

/// The top of the supervision: see [`Root::start`].
pub struct Root;

impl Root {
    /// Starts a root, called `name` in logs, that spreads its restarts at random.
    pub async fn start(name: impl Into<Arc<str>>) -> Result<RootHandle, SpawnErr> {
        Self::start_with(name, Jitter::random()).await
    }

    /// Starts a root with this jitter.
    pub async fn start_with(
        name: impl Into<Arc<str>>,
        jitter: Jitter,
    ) -> Result<RootHandle, SpawnErr> {
        let board = Arc::new(StatusBoard::default());
        let args = RootArgs {
            name: name.into(),
            board: Arc::clone(&board),
            jitter,
        };
        let (root, _) = Actor::spawn(None, RootActor, args).await?;
        Ok(RootHandle::new(root, board))
    }
}

struct RootActor;

struct RootArgs {
    name: Arc<str>,
    board: Arc<StatusBoard>,
    jitter: Jitter,
}

struct State {
    args: RootArgs,
    myself: ActorRef<RootMsg>,
    trees: BTreeMap<Arc<str>, Tree>,
    last_generation: u64,
    shutdown: Option<Shutdown>,
}

struct Tree {
    spec: Arc<TreeSpec>,
    generation: u64,
    phase: Phase,
    history: RestartHistory,
    /// All of its actors have been up at the same time.
    was_running: bool,
    /// It was given up and has not been up since.
    parked: Option<Parked>,
    /// Who waits for its stop.
    waiting: Vec<RpcReplyPort<Unfinished>>,
    unfinished: Unfinished,
}

struct Parked {
    reason: Arc<str>,
    next_try: Option<Instant>,
}

enum Phase {
    /// Is about to be spawned for the first time.
    Idle,
    Alive(ActorRef<TreeMsg>),
    Pausing(#[allow(dead_code, reason = "aborts the pause when dropped")] AbortOnDropHandle<()>),
    Stopping {
        actor: ActorRef<TreeMsg>,
        _overdue: AbortOnDropHandle<()>,
    },
}

struct Shutdown {
    waiting: Vec<RpcReplyPort<Unfinished>>,
    unfinished: Unfinished,
}

impl Actor for RootActor {
    type Msg = RootMsg;
    type State = State;
    type Arguments = RootArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        args: RootArgs,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State {
            args,
            myself,
            trees: BTreeMap::new(),
            last_generation: 0,
            shutdown: None,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Start { spec, reply } => {
                let _ = reply.send(state.start(spec).await);
            }
            RootMsg::Stop {
                name,
                deadline,
                reply,
            } => state.stop(&name, deadline, Some(reply)),
            RootMsg::Shutdown { deadline, reply } => state.shut_down(deadline, reply),
            RootMsg::Kill { name, reply } => {
                let _ = reply.send(state.kill(&name));
            }
            RootMsg::TreeChanged {
                name,
                generation,
                running,
                last_failure,
            } => state.tree_changed(&name, generation, running, last_failure),
            RootMsg::TreeDrained {
                name,
                generation,
                unfinished,
            } => state.tree_drained(&name, generation, &unfinished),
            RootMsg::RestartDue { name, generation } => state.restart(&name, generation).await,
            RootMsg::StopOverdue { name, generation } => state.stop_overdue(&name, generation),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((id, reason)) = end_of(event) {
            state.ended(id, &reason);
        }
        Ok(())
    }
}

impl State {
    /// (none), or Pausing of a parked one → Alive. Any other tree that is there already stays as it is.
    async fn start(&mut self, spec: Arc<TreeSpec>) -> StartAnswer {
        if self.shutdown.is_some() {
            return StartAnswer::ShuttingDown;
        }
        if let Some(problem) = spec.problem() {
            return StartAnswer::Invalid(problem);
        }
        let name: Arc<str> = spec.name.as_str().into();
        if let Some(tree) = self.trees.get(&name) {
            match tree.phase {
                Phase::Stopping { .. } => return StartAnswer::Stopping,
                Phase::Pausing(_) if tree.parked.is_some() => {}
                Phase::Idle | Phase::Alive(_) | Phase::Pausing(_) => return StartAnswer::Accepted,
            }
        }
        for child in &spec.children {
            child.control.presentation().expected();
        }
        self.args.board.put(Arc::clone(&name), Arc::clone(&spec));
        let tree = Tree {
            spec,
            generation: 0,
            phase: Phase::Idle,
            history: RestartHistory::default(),
            was_running: false,
            parked: None,
            waiting: Vec::new(),
            unfinished: Vec::new(),
        };
        self.trees.insert(Arc::clone(&name), tree);
        self.spawn(&name).await;
        StartAnswer::Accepted
    }

    /// Pausing → Alive.
    async fn restart(&mut self, name: &Arc<str>, generation: u64) {
        let Some(tree) = self.trees.get_mut(name) else {
            return;
        };
        if tree.generation != generation || !matches!(tree.phase, Phase::Pausing(_)) {
            return;
        }
        if let Some(parked) = &mut tree.parked {
            tracing::info!(root = %self.args.name, tree = %name, "the parked tree is tried again");
            parked.next_try = None;
            for child in &tree.spec.children {
                child.control.presentation().down();
            }
            let reason = Arc::clone(&parked.reason);
            self.args.board.set(name, tree.state(false), Some(reason));
        }
        self.spawn(name).await;
    }

    /// Any → Alive, with a new incarnation of the tree. Its `pre_start` neither waits nor fails.
    async fn spawn(&mut self, name: &Arc<str>) {
        let Some(tree) = self.trees.get_mut(name) else {
            return;
        };
        self.last_generation += 1;
        tree.generation = self.last_generation;
        let args = TreeArgs {
            spec: Arc::clone(&tree.spec),
            generation: tree.generation,
            jitter: self.args.jitter.clone(),
            root: self.myself.clone(),
        };
        let supervisor = self.myself.get_cell();
        match ProjectTree::spawn_linked(None, ProjectTree, args, supervisor).await {
            Ok((actor, _)) => tree.phase = Phase::Alive(actor),
            Err(error) => self.crash(name, &error.to_string()),
        }
    }

    /// A tree has ended: by request, or it crashed.
    fn ended(&mut self, id: ActorId, reason: &str) {
        let ended = self.trees.iter().find(|(_, tree)| match &tree.phase {
            Phase::Alive(actor) | Phase::Stopping { actor, .. } => actor.get_id() == id,
            Phase::Idle | Phase::Pausing(_) => false,
        });
        let Some((name, tree)) = ended else { return };
        let (name, by_request) = (
            Arc::clone(name),
            matches!(tree.phase, Phase::Stopping { .. }),
        );
        if by_request {
            self.forget(&name);
        } else {
            self.crash(&name, reason);
        }
    }

    /// Alive → Pausing, for the backoff or as a parked one.
    fn crash(&mut self, name: &Arc<str>, reason: &str) {
        let jitter = self.args.jitter.next();
        let Some(tree) = self.trees.get_mut(name) else {
            return;
        };
        let reason: Arc<str> = reason.into();
        let (policy, now) = (&tree.spec.policy, Instant::now());
        let due = RootMsg::RestartDue {
            name: Arc::clone(name),
            generation: tree.generation,
        };
        match tree.history.record_crash(policy, now, jitter) {
            RestartVerdict::RestartAfter(backoff) => {
                tracing::warn!(root = %self.args.name, tree = %name, %reason, ?backoff, "the tree restarts");
                for child in &tree.spec.children {
                    child.control.presentation().down();
                }
                tree.phase = Phase::Pausing(send_later(&self.myself, backoff, due));
            }
            RestartVerdict::Exhausted => {
                let pause = tree.history.give_up(policy, jitter);
                tracing::error!(root = %self.args.name, tree = %name, %reason, next_try = ?pause, "the tree crashed too often and is parked");
                let wanted = Arc::new(Notify::new());
                for child in &tree.spec.children {
                    child.control.presentation().parked(&reason, &wanted);
                }
                tree.parked = Some(Parked {
                    reason: Arc::clone(&reason),
                    next_try: Some(now + pause),
                });
                let pause = parked_pause(pause, wanted);
                tree.phase = Phase::Pausing(send_after(&self.myself, pause, due));
            }
        }
        self.args.board.set(name, tree.state(false), Some(reason));
    }

    fn tree_changed(
        &mut self,
        name: &str,
        generation: u64,
        running: bool,
        last_failure: Option<Arc<str>>,
    ) {
        if let Some(tree) = self.trees.get_mut(name)
            && tree.generation == generation
            && matches!(tree.phase, Phase::Alive(_))
        {
            let (policy, now) = (&tree.spec.policy, Instant::now());
            tree.history.note_up(policy, now, running);
            tree.was_running |= running;
            if running && tree.parked.take().is_some() {
                tracing::info!(root = %self.args.name, tree = name, "the tree is up again");
            }
            let state = tree.state(running);
            self.args.board.set(name, state, last_failure);
        }
    }

    fn kill(&self, name: &str) -> bool {
        match self.trees.get(name).map(|tree| &tree.phase) {
            Some(Phase::Alive(actor)) => {
                actor.kill();
                true
            }
            _ => false,
        }
    }
}

impl Tree {
    fn state(&self, running: bool) -> TreeState {
        match (running, &self.parked) {
            (true, _) => TreeState::Running,
            (false, Some(parked)) => TreeState::Parked {
                reason: Arc::clone(&parked.reason),
                next_try: parked.next_try,
            },
            (false, None) if self.was_running => TreeState::Restarting,
            (false, None) => TreeState::Starting,
        }
    }
}
