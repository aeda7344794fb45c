//! How the root lets trees end: one of them, or all.

use std::sync::Arc;
use std::time::Duration;

use ractor::RpcReplyPort;

use super::super::child::Event;
use super::super::handle::deadline_after;
use super::super::messages::{RootMsg, TreeMsg, Unfinished};
use super::super::status::TreeState;
use super::timers::send_later;
use super::{Shutdown, State};

/// How much longer than its deadline a tree may take to stop before it is killed as a whole.
const STOP_SLACK: Duration = Duration::from_secs(5);

impl State {
    /// What runs drains; what does not is forgotten at once.
    pub(super) async fn stop(
        &mut self,
        name: &str,
        deadline: Duration,
        reply: Option<RpcReplyPort<Unfinished>>,
    ) {
        let Some((name, _)) = self.trees.get_key_value(name) else {
            if let Some(reply) = reply {
                let _ = reply.send(Vec::new());
            }
            return;
        };
        let name = Arc::clone(name);
        if let Some(tree) = self.trees.get_mut(&name) {
            tree.waiting.extend(reply);
            tree.drain_within = deadline;
        }
        self.tell(&name, Event::Stop).await;
    }

    /// It runs, and is asked to end; by force where it does not.
    pub(super) fn drain(&mut self, name: &Arc<str>) {
        let Some(tree) = self.trees.get_mut(name) else {
            return;
        };
        let within = tree.drain_within;
        if let Some(actor) = &tree.actor {
            let _ = actor.cast(TreeMsg::Drain {
                deadline: deadline_after(within),
            });
        }
        let overdue = RootMsg::StopOverdue {
            name: Arc::clone(name),
            generation: tree.child.attempt(),
        };
        let overdue = send_later(&self.myself, within.saturating_add(STOP_SLACK), overdue);
        tree.timer = Some(overdue);
        self.args.board.set(name, TreeState::Stopping, None);
    }

    /// The last step of a graceful stop: nothing is left below the tree.
    pub(super) fn tree_drained(&mut self, name: &str, generation: u64, unfinished: &[Arc<str>]) {
        if let Some(tree) = self.trees.get_mut(name)
            && let Some(actor) = tree.stopping(generation)
        {
            actor.stop(None);
            tree.unfinished = unfinished.iter().map(|c| format!("{name}/{c}")).collect();
        }
    }

    /// The tree itself does not answer, and ends by force.
    pub(super) fn stop_overdue(&mut self, name: &str, generation: u64) {
        if let Some(tree) = self.trees.get_mut(name)
            && let Some(actor) = tree.stopping(generation)
        {
            tracing::error!(root = %self.args.name, tree = name, "did not stop in time and is killed");
            actor.kill();
            let children = tree.spec.children.iter();
            tree.unfinished = children.map(|c| format!("{name}/{}", c.name)).collect();
        }
    }

    /// Nothing of it is left.
    pub(super) fn forget(&mut self, name: &str) {
        let Some(tree) = self.trees.remove(name) else {
            return;
        };
        for child in &tree.spec.children {
            child.control.presentation().stopped();
        }
        self.args.board.remove(name);
        for reply in tree.waiting {
            let _ = reply.send(tree.unfinished.clone());
        }
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.unfinished.extend(tree.unfinished);
        }
        self.end_if_shut_down();
    }

    pub(super) async fn shut_down(&mut self, deadline: Duration, reply: RpcReplyPort<Unfinished>) {
        let shutdown = self.shutdown.get_or_insert_with(|| Shutdown {
            waiting: Vec::new(),
            unfinished: Vec::new(),
        });
        shutdown.waiting.push(reply);
        let names: Vec<_> = self.trees.keys().cloned().collect();
        for name in names {
            self.stop(&name, deadline, None).await;
        }
        self.end_if_shut_down();
    }

    pub(super) fn end_if_shut_down(&mut self) {
        if !self.trees.is_empty() {
            return;
        }
        if let Some(shutdown) = &mut self.shutdown {
            for reply in shutdown.waiting.drain(..) {
                let _ = reply.send(shutdown.unfinished.clone());
            }
            self.myself.stop(None);
        }
    }
}
