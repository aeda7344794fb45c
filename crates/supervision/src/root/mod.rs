//! Supervises the trees: starts, restarts, parks and stops them. Its own end is the end of the process.
//!
//! What follows from what is decided by [`Child`]; messages and failure cases: see the module above.

mod handle;
mod steps;
mod stopping;
mod timers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent};
use tokio_util::task::AbortOnDropHandle;

pub use self::handle::{RootHandle, StartError, StopError};
use super::child::{Child, Event, Exhaustion, Phase};
use super::control::end_of;
use super::jitter::Jitter;
use super::messages::{RootMsg, StartAnswer, TreeMsg, Unfinished};
use super::spec::TreeSpec;
use super::status::{StatusBoard, TreeState};

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
    last_attempt: u64,
    shutdown: Option<Shutdown>,
}

struct Tree {
    spec: Arc<TreeSpec>,
    child: Child,
    /// The last incarnation, dead or alive.
    actor: Option<ActorRef<TreeMsg>>,
    /// A pause, or the deadline of a stop. Ends with what follows it.
    timer: Option<AbortOnDropHandle<()>>,
    /// Who waits for its stop.
    waiting: Vec<RpcReplyPort<Unfinished>>,
    /// How long that may take.
    drain_within: Duration,
    unfinished: Unfinished,
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
            last_attempt: 0,
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
            } => state.stop(&name, deadline, Some(reply)).await,
            RootMsg::Shutdown { deadline, reply } => state.shut_down(deadline, reply).await,
            RootMsg::Kill { name, reply } => {
                let _ = reply.send(state.kill(&name));
            }
            RootMsg::TreeChanged {
                name,
                generation,
                running,
                last_failure,
            } => {
                state
                    .tree_changed(&name, generation, running, last_failure)
                    .await;
            }
            RootMsg::TreeDrained {
                name,
                generation,
                unfinished,
            } => state.tree_drained(&name, generation, &unfinished),
            RootMsg::RestartDue { name, attempt } => {
                let due = Event::PauseOver {
                    attempt,
                    // It has been told to have ended, or was not made.
                    former_ended: true,
                };
                state.tell(&name, due).await;
            }
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
            state.ended(id, &reason).await;
        }
        Ok(())
    }
}

impl State {
    /// Begins a tree that is not there, and anew one that is parked. Any other tree that is there stays as it is.
    async fn start(&mut self, spec: Arc<TreeSpec>) -> StartAnswer {
        if self.shutdown.is_some() {
            return StartAnswer::ShuttingDown;
        }
        if let Some(problem) = spec.problem() {
            return StartAnswer::Invalid(problem);
        }
        let name: Arc<str> = spec.name.as_str().into();
        if let Some(tree) = self.trees.get(&name) {
            match tree.child.phase() {
                Phase::Stopping => return StartAnswer::Stopping,
                Phase::Pausing if tree.child.parked().is_some() => {}
                _ => return StartAnswer::Accepted,
            }
        }
        for child in &spec.children {
            child.control.presentation().expected();
        }
        self.args.board.put(Arc::clone(&name), Arc::clone(&spec));
        let tree = Tree {
            spec,
            child: Child::new(Exhaustion::Parks),
            actor: None,
            timer: None,
            waiting: Vec::new(),
            drain_within: Duration::ZERO,
            unfinished: Vec::new(),
        };
        self.trees.insert(Arc::clone(&name), tree);
        // Each of its actors waits for its own former incarnation.
        let former_ended = true;
        self.tell(&name, Event::Begin { former_ended }).await;
        StartAnswer::Accepted
    }

    async fn tree_changed(
        &mut self,
        name: &Arc<str>,
        generation: u64,
        running: bool,
        last_failure: Option<Arc<str>>,
    ) {
        let attempt = generation;
        let event = if running {
            Event::Up { attempt }
        } else {
            Event::Down { attempt }
        };
        self.tell(name, event).await;
        if let Some(tree) = self.trees.get(name)
            && tree.is_alive(generation)
        {
            self.args.board.set(name, tree.state(), last_failure);
        }
    }

    fn kill(&self, name: &str) -> bool {
        let tree = self.trees.get(name);
        match tree.filter(|tree| tree.is_alive(tree.child.attempt())) {
            Some(Tree {
                actor: Some(actor), ..
            }) => {
                actor.kill();
                true
            }
            _ => false,
        }
    }
}

impl Tree {
    /// Whether this incarnation runs, and nobody has asked it to stop.
    fn is_alive(&self, generation: u64) -> bool {
        let alive = matches!(self.child.phase(), Phase::Loading | Phase::Up);
        alive && self.child.attempt() == generation
    }

    /// This incarnation, when it was asked to stop.
    fn stopping(&self, generation: u64) -> Option<&ActorRef<TreeMsg>> {
        let it_is = self.child.phase() == Phase::Stopping && self.child.attempt() == generation;
        self.actor.as_ref().filter(|_| it_is)
    }

    fn state(&self) -> TreeState {
        match (self.child.phase(), self.child.parked()) {
            (Phase::Stopping | Phase::Gone, _) => TreeState::Stopping,
            (Phase::Up, _) => TreeState::Running,
            (_, Some(parked)) => TreeState::Parked {
                reason: Arc::clone(&parked.reason),
                next_try: parked.next_try,
            },
            (_, None) if self.child.was_up() => TreeState::Restarting,
            (_, None) => TreeState::Starting,
        }
    }
}
