//! Runs the actors of one project: starts them in order, restarts those that crash, ends when that does not help.
//!
//! States, messages and failure cases: see the module above.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::control::{KillOnDrop, Spawned, end_of, why_not_started};
use super::drain;
use super::jitter::Jitter;
use super::policy::{RestartHistory, RestartVerdict};
use super::root::RootMsg;
use super::spec::TreeSpec;

/// What a tree is made of.
pub(super) struct TreeArgs {
    pub(super) spec: Arc<TreeSpec>,
    /// Of the tree's incarnations, so that the root can ignore late reports of a former one.
    pub(super) generation: u64,
    pub(super) jitter: Jitter,
    pub(super) root: ActorRef<RootMsg>,
}

/// What a tree is told. `attempt` is the number of the pause or start that an outcome belongs to.
pub(super) enum TreeMsg {
    /// A pause is over. `former_ended`: no earlier incarnation is left.
    StartDue {
        child: usize,
        attempt: u64,
        former_ended: bool,
    },
    /// `pre_start` has ended, or took too long and was killed.
    StartEnded {
        child: usize,
        attempt: u64,
        outcome: Result<(), String>,
    },
    /// An actor that loads after its start has loaded.
    Loaded { id: ActorId },
    /// It could not load, and tries again.
    NotLoaded { id: ActorId, why: Arc<str> },
    /// By request of the root: drain, stop, end.
    Drain { deadline: Instant },
    /// All actors have ended after [`TreeMsg::Drain`].
    Drained { unfinished: Vec<Arc<str>> },
    /// All actors have ended after an exhaustion.
    GaveUp { reason: Arc<str> },
}

pub(super) struct ProjectTree;

pub(super) struct State {
    args: TreeArgs,
    myself: ActorRef<TreeMsg>,
    children: Vec<Child>,
    last_attempt: u64,
    last_failure: Option<Arc<str>>,
    /// Set when the tree ends: from then on nothing is started, and the ends of actors are expected.
    ending: Option<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Child {
    phase: Phase,
    history: RestartHistory,
}

#[derive(Default)]
enum Phase {
    /// Waits until all before it are up.
    #[default]
    Idle,
    /// Backs off.
    Pausing {
        attempt: u64,
        _pause: AbortOnDropHandle<()>,
    },
    /// `pre_start` runs.
    Starting {
        attempt: u64,
        incarnation: KillOnDrop,
        _watch: AbortOnDropHandle<()>,
    },
    /// `pre_start` has ended; the actor loads, for as long as it takes.
    Loading {
        cell: ActorCell,
        why_not_yet: Option<Arc<str>>,
    },
    Up(ActorId),
}

impl Actor for ProjectTree {
    type Msg = TreeMsg;
    type State = State;
    type Arguments = TreeArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<TreeMsg>,
        args: TreeArgs,
    ) -> Result<State, ActorProcessingErr> {
        let children = args.spec.children.iter().map(|_| Child::default());
        Ok(State {
            children: children.collect(),
            args,
            myself,
            last_attempt: 0,
            last_failure: None,
            ending: None,
        })
    }

    async fn post_start(
        &self,
        _myself: ActorRef<TreeMsg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.advance();
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<TreeMsg>,
        message: TreeMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TreeMsg::StartDue {
                child,
                attempt,
                former_ended,
            } => state.pause_over(child, attempt, former_ended),
            TreeMsg::StartEnded {
                child,
                attempt,
                outcome,
            } => state.start_ended(child, attempt, outcome),
            TreeMsg::Loaded { id } => state.loaded(id),
            TreeMsg::NotLoaded { id, why } => state.not_loaded(id, why),
            TreeMsg::Drain { deadline } => state.drain(deadline),
            TreeMsg::Drained { unfinished } => state.report_drained(unfinished),
            TreeMsg::GaveUp { reason } => return Err(reason.to_string().into()),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<TreeMsg>,
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
    /// Idle → Pausing (without a pause): the first that is not up, when it waits for nothing else.
    fn advance(&mut self) {
        let waiting = self
            .children
            .iter()
            .position(|child| !matches!(child.phase, Phase::Up(_)));
        if let Some(index) = waiting
            && matches!(self.children[index].phase, Phase::Idle)
        {
            self.pause(index, Duration::ZERO);
        }
        self.report();
    }

    /// Any → Pausing: first the backoff passes, then the former incarnation must be gone.
    fn pause(&mut self, index: usize, backoff: Duration) {
        let spec = &self.args.spec.children[index];
        let (former, limit) = (spec.control.last(), spec.policy.start_timeout);
        let attempt = self.next_attempt();
        let tree = self.myself.clone();
        let pause = tokio::spawn(async move {
            tokio::time::sleep(backoff).await;
            let former_ended = match former {
                Some(cell) => drain::ended(&cell, limit).await,
                None => true,
            };
            let _ = tree.cast(TreeMsg::StartDue {
                child: index,
                attempt,
                former_ended,
            });
        });
        self.children[index].phase = Phase::Pausing {
            attempt,
            _pause: AbortOnDropHandle::new(pause),
        };
    }

    /// Pausing → Starting, or a crash when the former incarnation does not end.
    fn pause_over(&mut self, index: usize, attempt: u64, former_ended: bool) {
        let due =
            matches!(self.children[index].phase, Phase::Pausing { attempt: a, .. } if a == attempt);
        if !due {
            return;
        }
        if former_ended {
            self.start(index);
        } else {
            self.crash(
                index,
                "its former incarnation blocks a thread and does not end",
            );
        }
    }

    /// Pausing → Starting: a new incarnation.
    fn start(&mut self, index: usize) {
        let spec = &self.args.spec.children[index];
        let limit = spec.policy.start_timeout;
        let Spawned { cell, started } = match spec.control.spawn(self.myself.get_cell()) {
            Ok(spawned) => spawned,
            Err(error) => return self.crash(index, &why_not_started(&error)),
        };
        let attempt = self.next_attempt();
        let (tree, starting) = (self.myself.clone(), cell.clone());
        let watch = tokio::spawn(async move {
            let outcome = match timeout(limit, started).await {
                Ok(Ok(Ok(_running))) => Ok(()),
                Ok(Ok(Err(error))) => Err(why_not_started(&error)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_elapsed) => {
                    starting.kill();
                    Err(format!("it did not start within {limit:?}"))
                }
            };
            let _ = tree.cast(TreeMsg::StartEnded {
                child: index,
                attempt,
                outcome,
            });
        });
        self.children[index].phase = Phase::Starting {
            attempt,
            incarnation: KillOnDrop::new(cell),
            _watch: AbortOnDropHandle::new(watch),
        };
    }

    /// Starting → Up or Loading, or a crash.
    fn start_ended(&mut self, index: usize, attempt: u64, outcome: Result<(), String>) {
        let Phase::Starting {
            attempt: current,
            incarnation,
            ..
        } = &mut self.children[index].phase
        else {
            return;
        };
        if *current != attempt {
            return;
        }
        if let Err(reason) = outcome {
            return self.crash(index, &reason);
        }
        let Some(cell) = incarnation.release() else {
            return;
        };
        if self.args.spec.children[index].loads {
            self.children[index].phase = Phase::Loading {
                cell,
                why_not_yet: None,
            };
            return;
        }
        self.up(index, cell);
    }

    /// Starting or Loading → Up.
    fn up(&mut self, index: usize, cell: ActorCell) {
        self.children[index].phase = Phase::Up(cell.get_id());
        let spec = &self.args.spec.children[index];
        spec.control.presentation().up(cell);
        self.advance();
    }

    /// Loading → Up. It may be told before the end of `pre_start` is.
    fn loaded(&mut self, id: ActorId) {
        let loaded = self
            .children
            .iter_mut()
            .zip(0..)
            .find_map(|(child, index)| {
                let cell = match &mut child.phase {
                    Phase::Loading { cell, .. } if cell.get_id() == id => Some(cell.clone()),
                    Phase::Starting { incarnation, .. } if incarnation.id == id => {
                        incarnation.release()
                    }
                    _ => None,
                };
                Some((index, cell?))
            });
        if let Some((index, cell)) = loaded {
            self.up(index, cell);
        }
    }

    /// A try to load has failed: said once for each reason.
    fn not_loaded(&mut self, id: ActorId, why: Arc<str>) {
        let children = self.args.spec.children.iter().zip(&mut self.children);
        for (spec, child) in children {
            if let Phase::Loading { cell, why_not_yet } = &mut child.phase
                && cell.get_id() == id
                && why_not_yet.as_ref() != Some(&why)
            {
                tracing::warn!(tree = %self.args.spec.name, actor = %spec.name, %why, "cannot load yet and goes on trying");
                spec.control.presentation().loading(Arc::clone(&why));
                self.last_failure = Some(format!("{} cannot load yet: {why}", spec.name).into());
                *why_not_yet = Some(why);
                return self.report();
            }
        }
    }

    /// An actor has ended. One that is not up, loading or starting was expected to end, or is long forgotten.
    fn ended(&mut self, id: ActorId, reason: &str) {
        let ended = self.children.iter().position(|child| match &child.phase {
            Phase::Up(up) => *up == id,
            Phase::Loading { cell, .. } => cell.get_id() == id,
            Phase::Starting { incarnation, .. } => incarnation.id == id,
            Phase::Idle | Phase::Pausing { .. } => false,
        });
        if let Some(index) = ended {
            self.crash(index, reason);
        }
    }

    /// Any → Pausing, or the end of the tree.
    fn crash(&mut self, index: usize, reason: &str) {
        let tree = Arc::clone(&self.args.spec);
        let spec = &tree.children[index];
        tracing::warn!(tree = %tree.name, actor = %spec.name, reason, "crashed");
        spec.control.presentation().down();
        let reason: Arc<str> = format!("{}: {reason}", spec.name).into();
        self.last_failure = Some(Arc::clone(&reason));
        let jitter = self.args.jitter.next();
        let child = &mut self.children[index];
        match child
            .history
            .record_crash(&spec.policy, Instant::now(), jitter)
        {
            RestartVerdict::RestartAfter(backoff) => {
                self.pause(index, backoff);
                self.report();
            }
            RestartVerdict::Exhausted => self.give_up(reason),
        }
    }

    /// The actors stop in reverse order, then the tree ends with `reason`.
    fn give_up(&mut self, reason: Arc<str>) {
        tracing::error!(tree = %self.args.spec.name, %reason, "an actor crashed too often: the tree ends");
        self.forget_starts();
        for child in &self.args.spec.children {
            child.control.presentation().down();
        }
        let (spec, tree) = (Arc::clone(&self.args.spec), self.myself.clone());
        let stop = tokio::spawn(async move {
            drain::stop_in_reverse(&spec).await;
            let _ = tree.cast(TreeMsg::GaveUp { reason });
        });
        self.ending = Some(AbortOnDropHandle::new(stop));
        self.report();
    }

    /// The actors drain and stop in order, then the tree stops.
    fn drain(&mut self, deadline: Instant) {
        self.forget_starts();
        let (spec, tree) = (Arc::clone(&self.args.spec), self.myself.clone());
        let draining = tokio::spawn(async move {
            let unfinished = drain::drain_in_order(&spec, deadline).await;
            let _ = tree.cast(TreeMsg::Drained { unfinished });
        });
        self.ending = Some(AbortOnDropHandle::new(draining));
    }

    /// Any → Idle, for all: starts and pauses end here, and the ends of actors are no crashes any more.
    fn forget_starts(&mut self) {
        for child in &mut self.children {
            child.phase = Phase::Idle;
        }
    }

    fn next_attempt(&mut self) -> u64 {
        self.last_attempt += 1;
        self.last_attempt
    }

    fn report(&mut self) {
        let up = |child: &Child| matches!(child.phase, Phase::Up(_));
        let running = self.ending.is_none() && self.children.iter().all(up);
        if running {
            self.last_failure = None;
        }
        let _ = self.args.root.cast(RootMsg::TreeChanged {
            name: self.args.spec.name.as_str().into(),
            generation: self.args.generation,
            running,
            last_failure: self.last_failure.clone(),
        });
    }

    /// The root stops the tree then; ended by itself, its end would overtake this message.
    fn report_drained(&self, unfinished: Vec<Arc<str>>) {
        let _ = self.args.root.cast(RootMsg::TreeDrained {
            name: self.args.spec.name.as_str().into(),
            generation: self.args.generation,
            unfinished,
        });
    }
}
