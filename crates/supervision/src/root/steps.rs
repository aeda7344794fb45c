//! What the root does about an event of a tree, as it was decided.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::child::{Circumstances, Effect, Event};
use super::super::messages::RootMsg;
use super::super::tree::{ProjectTree, TreeArgs};
use super::timers::{parked_pause, send_after, send_later};
use super::{State, Tree};

impl State {
    /// Has decided what follows from an event, and does it.
    pub(super) async fn tell(&mut self, name: &Arc<str>, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let Some(tree) = self.trees.get_mut(name) else {
                return;
            };
            let was_parked = tree.child.parked().is_some();
            let effect = tree.child.on(
                event,
                &mut Circumstances {
                    policy: &tree.spec.policy,
                    now: Instant::now(),
                    jitter: self.args.jitter.next(),
                    last_attempt: &mut self.last_attempt,
                },
            );
            match effect {
                Effect::None | Effect::Load => {}
                Effect::Drain => self.drain(name),
                Effect::Start { attempt } => next = Some(self.spawn(name, attempt).await),
                Effect::Announce => {
                    if was_parked {
                        tracing::info!(root = %self.args.name, tree = %name, "the tree is up again");
                    }
                }
                Effect::Pause {
                    attempt,
                    after,
                    crash,
                } => self.pause(name, attempt, after, crash),
                Effect::Park {
                    attempt,
                    after,
                    crash,
                } => self.park(name, attempt, after, &crash),
                Effect::Escalate { crash } => self.myself.stop(Some(crash.to_string())),
                Effect::Forget => self.forget(name),
            }
        }
    }

    /// A new incarnation of the tree. Its `pre_start` neither waits nor fails.
    async fn spawn(&mut self, name: &Arc<str>, attempt: u64) -> Event {
        let Some(tree) = self.trees.get_mut(name) else {
            return Event::Stop;
        };
        if let Some(parked) = tree.child.parked() {
            tracing::info!(root = %self.args.name, tree = %name, "the parked tree is tried again");
            for child in &tree.spec.children {
                child.control.presentation().down();
            }
            let reason = Arc::clone(&parked.reason);
            self.args.board.set(name, tree.state(), Some(reason));
        }
        tree.timer = None;
        let args = TreeArgs {
            spec: Arc::clone(&tree.spec),
            generation: attempt,
            jitter: self.args.jitter.clone(),
            root: self.myself.clone(),
        };
        let supervisor = self.myself.get_cell();
        match ProjectTree::spawn_linked(None, ProjectTree, args, supervisor).await {
            Ok((actor, _)) => {
                tree.actor = Some(actor);
                let loads = true;
                Event::Started { attempt, loads }
            }
            Err(error) => Event::StartFailed {
                attempt,
                reason: error.to_string().into(),
            },
        }
    }

    /// A tree has ended: by request, or it crashed.
    pub(super) async fn ended(&mut self, id: ActorId, reason: &str) {
        let is_it = |tree: &Tree| tree.actor.as_ref().is_some_and(|a| a.get_id() == id);
        let ended = self.trees.iter().find(|(_, tree)| is_it(tree));
        if let Some((name, tree)) = ended {
            let (name, attempt) = (Arc::clone(name), tree.child.attempt());
            let reason = reason.into();
            self.tell(&name, Event::Ended { attempt, reason }).await;
        }
    }

    /// It crashed, and is restarted.
    fn pause(&mut self, name: &Arc<str>, attempt: u64, after: Duration, crash: Option<Arc<str>>) {
        let Some(tree) = self.trees.get_mut(name) else {
            return;
        };
        tracing::warn!(root = %self.args.name, tree = %name, reason = crash.as_deref(), backoff = ?after, "the tree restarts");
        for child in &tree.spec.children {
            child.control.presentation().down();
        }
        let name = Arc::clone(name);
        self.args.board.set(&name, tree.state(), crash);
        let due = RootMsg::RestartDue { name, attempt };
        tree.actor = None;
        tree.timer = Some(send_later(&self.myself, after, due));
    }

    /// It crashed too often, and is tried again later, or sooner when somebody calls it.
    fn park(&mut self, name: &Arc<str>, attempt: u64, after: Duration, crash: &Arc<str>) {
        let Some(tree) = self.trees.get_mut(name) else {
            return;
        };
        tracing::error!(root = %self.args.name, tree = %name, reason = %crash, next_try = ?after, "the tree crashed too often and is parked");
        let wanted = Arc::new(Notify::new());
        for child in &tree.spec.children {
            child.control.presentation().parked(crash, &wanted);
        }
        let name = Arc::clone(name);
        let reason = Arc::clone(crash);
        self.args.board.set(&name, tree.state(), Some(reason));
        let due = RootMsg::RestartDue { name, attempt };
        tree.actor = None;
        tree.timer = Some(send_after(&self.myself, parked_pause(after, wanted), due));
    }
}
