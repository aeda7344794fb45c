//! Runs the actors of one project: starts them in order, restarts those that crash, ends when that does not help.
//!
//! What follows from what is decided by [`Child`]; messages and failure cases: see the module above.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::child::{Child, Circumstances, Effect, Event, Exhaustion, Phase};
use super::control::{KillOnDrop, Spawned, end_of, why_not_started};
use super::drain;
use super::jitter::Jitter;
use super::messages::{RootMsg, TreeMsg};
use super::spec::TreeSpec;

/// What a tree is made of.
pub(super) struct TreeArgs {
    pub(super) spec: Arc<TreeSpec>,
    /// Of the tree's incarnations, so that the root can ignore late reports of a former one.
    pub(super) generation: u64,
    pub(super) jitter: Jitter,
    pub(super) root: ActorRef<RootMsg>,
}

pub(super) struct ProjectTree;

pub(super) struct State {
    args: TreeArgs,
    myself: ActorRef<TreeMsg>,
    actors: Vec<Supervised>,
    last_attempt: u64,
    last_failure: Option<Arc<str>>,
    /// Set when the tree ends: from then on nothing is started, and the ends of actors are expected.
    ending: Option<AbortOnDropHandle<()>>,
}

/// An actor of the tree: what is decided about it, and what is under way for it.
struct Supervised {
    child: Child,
    incarnation: Option<KillOnDrop>,
    /// A pause, or the watching of a start. Ends with what follows it.
    task: Option<AbortOnDropHandle<()>>,
    why_not_loaded: Option<Arc<str>>,
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
        let actors = args.spec.children.iter().map(|_| Supervised {
            child: Child::new(Exhaustion::Escalates),
            incarnation: None,
            task: None,
            why_not_loaded: None,
        });
        Ok(State {
            actors: actors.collect(),
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
            } => state.tell(
                child,
                Event::PauseOver {
                    attempt,
                    former_ended,
                },
            ),
            TreeMsg::StartEnded {
                child,
                attempt,
                outcome,
            } => state.start_ended(child, attempt, outcome),
            TreeMsg::Loaded { id } => {
                state.tell_whose(id, |attempt| Event::Up { attempt });
            }
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
            let reason = reason.into();
            state.tell_whose(id, |attempt| Event::Ended { attempt, reason });
        }
        Ok(())
    }
}

impl State {
    /// Begins with the first that is not up, when it waits for nothing else.
    fn advance(&mut self) {
        let is_up = |actor: &Supervised| actor.child.phase() == Phase::Up;
        let waiting = self.actors.iter().position(|actor| !is_up(actor));
        if let Some(index) = waiting {
            // An actor outlives its tree where it blocks its thread.
            let former_ended = false;
            self.tell(index, Event::Begin { former_ended });
        }
        self.report();
    }

    /// Has decided what follows from an event, and does it.
    fn tell(&mut self, index: usize, event: Event) {
        let actor = &mut self.actors[index];
        let effect = actor.child.on(
            event,
            &mut Circumstances {
                policy: &self.args.spec.children[index].policy,
                now: Instant::now(),
                jitter: self.args.jitter.next(),
                last_attempt: &mut self.last_attempt,
            },
        );
        match effect {
            // Those that run are ended together: in the drain order, or the last started first.
            Effect::None | Effect::Drain => {}
            Effect::Start { attempt } => self.start(index, attempt),
            Effect::Load => actor.runs(),
            Effect::Announce => self.up(index),
            Effect::Pause {
                attempt,
                after,
                crash,
            } => self.pause(index, attempt, after, crash),
            Effect::Park {
                attempt,
                after,
                crash,
            } => self.pause(index, attempt, after, Some(crash)),
            Effect::Escalate { crash } => {
                actor.forget();
                let reason = self.crashed(index, &crash);
                self.give_up(reason);
            }
            Effect::Forget => actor.forget(),
        }
    }

    /// Of an incarnation that is not there any more the end was expected, or is long forgotten.
    fn tell_whose(&mut self, id: ActorId, event: impl FnOnce(u64) -> Event) {
        let whose = self.actors.iter().position(|actor| actor.is(id));
        if let Some(index) = whose {
            let attempt = self.actors[index].child.attempt();
            self.tell(index, event(attempt));
        }
    }

    /// First the backoff passes, then the former incarnation must be gone.
    fn pause(&mut self, index: usize, attempt: u64, backoff: Duration, crash: Option<Arc<str>>) {
        let spec = &self.args.spec.children[index];
        let (former, limit) = (spec.control.last(), spec.policy.start_timeout);
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
        let actor = &mut self.actors[index];
        actor.forget();
        actor.task = Some(AbortOnDropHandle::new(pause));
        if let Some(crash) = crash {
            self.crashed(index, &crash);
            self.report();
        }
    }

    /// A new incarnation.
    fn start(&mut self, index: usize, attempt: u64) {
        let spec = &self.args.spec.children[index];
        let limit = spec.policy.start_timeout;
        let Spawned { cell, started } = match spec.control.spawn(self.myself.get_cell()) {
            Ok(spawned) => spawned,
            Err(error) => return self.start_ended(index, attempt, Err(why_not_started(&error))),
        };
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
        self.actors[index].starts(cell, watch);
    }

    fn start_ended(&mut self, index: usize, attempt: u64, outcome: Result<(), String>) {
        let loads = self.args.spec.children[index].loads;
        let event = match outcome {
            Ok(()) => Event::Started { attempt, loads },
            Err(reason) => Event::StartFailed {
                attempt,
                reason: reason.into(),
            },
        };
        self.tell(index, event);
    }

    fn up(&mut self, index: usize) {
        let actor = &mut self.actors[index];
        actor.runs();
        if let Some(incarnation) = &actor.incarnation {
            let spec = &self.args.spec.children[index];
            spec.control.presentation().up(incarnation.cell().clone());
        }
        self.advance();
    }

    /// A try to load has failed: said once for each reason.
    fn not_loaded(&mut self, id: ActorId, why: Arc<str>) {
        let actors = self.args.spec.children.iter().zip(&mut self.actors);
        for (spec, actor) in actors {
            if actor.child.phase() == Phase::Loading
                && actor.is(id)
                && actor.why_not_loaded.as_ref() != Some(&why)
            {
                tracing::warn!(tree = %self.args.spec.name, actor = %spec.name, %why, "cannot load yet and goes on trying");
                spec.control.presentation().loading(Arc::clone(&why));
                self.last_failure = Some(format!("{} cannot load yet: {why}", spec.name).into());
                actor.why_not_loaded = Some(why);
                return self.report();
            }
        }
    }

    /// Says that an actor is down, and returns the reason with its name.
    fn crashed(&mut self, index: usize, reason: &str) -> Arc<str> {
        let spec = &self.args.spec.children[index];
        tracing::warn!(tree = %self.args.spec.name, actor = %spec.name, reason, "crashed");
        spec.control.presentation().down();
        let reason: Arc<str> = format!("{}: {reason}", spec.name).into();
        self.last_failure = Some(Arc::clone(&reason));
        reason
    }

    /// The actors stop in reverse order, then the tree ends with `reason`.
    fn give_up(&mut self, reason: Arc<str>) {
        tracing::error!(tree = %self.args.spec.name, %reason, "an actor crashed too often: the tree ends");
        self.stop_all();
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
        self.stop_all();
        let (spec, tree) = (Arc::clone(&self.args.spec), self.myself.clone());
        let draining = tokio::spawn(async move {
            let unfinished = drain::drain_in_order(&spec, deadline).await;
            let _ = tree.cast(TreeMsg::Drained { unfinished });
        });
        self.ending = Some(AbortOnDropHandle::new(draining));
    }

    /// Starts and pauses end here, and the ends of actors are no crashes any more.
    fn stop_all(&mut self) {
        for index in 0..self.actors.len() {
            self.tell(index, Event::Stop);
        }
    }

    fn report(&mut self) {
        let up = |actor: &Supervised| actor.child.phase() == Phase::Up;
        let running = self.ending.is_none() && self.actors.iter().all(up);
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

impl Supervised {
    fn is(&self, id: ActorId) -> bool {
        let incarnation = self.incarnation.as_ref();
        incarnation.is_some_and(|incarnation| incarnation.cell().get_id() == id)
    }

    fn starts(&mut self, cell: ActorCell, watch: JoinHandle<()>) {
        self.incarnation = Some(KillOnDrop::new(cell));
        self.task = Some(AbortOnDropHandle::new(watch));
        self.why_not_loaded = None;
    }

    /// From now on the incarnation lives for as long as it wants to.
    fn runs(&mut self) {
        self.task = None;
        if let Some(incarnation) = &mut self.incarnation {
            incarnation.release();
        }
    }

    /// A start that is under way ends here.
    fn forget(&mut self) {
        self.task = None;
        self.incarnation = None;
    }
}
