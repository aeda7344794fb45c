//! How the rest of the program talks to the root.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::super::handle::deadline_after;
use super::super::messages::{RootMsg, StartAnswer};
use super::super::spec::TreeSpec;
use super::super::status::{StatusBoard, TreeState, TreeStatus};

/// Why a tree is not up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It goes on trying.
    #[error("{tree} is not up after {within:?} and goes on trying{}", because(last_failure.as_deref()))]
    NotUpYet {
        /// Which.
        tree: Arc<str>,
        /// How long was waited: `start_timeout` of the tree's policy.
        within: Duration,
        /// Which actor crashed last, and why.
        last_failure: Option<Arc<str>>,
    },
    /// It crashed too often, and is tried again later. Starting it again tries it at once.
    #[error("{tree} is parked, it crashed too often: {reason}")]
    Parked {
        /// Which.
        tree: Arc<str>,
        /// Which actor crashed last, and why.
        reason: Arc<str>,
    },
    /// Somebody stopped it while it started.
    #[error("{tree} was stopped before it was up")]
    Stopped {
        /// Which.
        tree: Arc<str>,
    },
    /// Its specification contradicts itself; a defect of ours.
    #[error("{tree} can't be started: {problem}")]
    Invalid {
        /// Which.
        tree: Arc<str>,
        /// How.
        problem: String,
    },
    /// The process is ending.
    #[error("no tree can be started: the supervision is shutting down")]
    ShuttingDown,
}

fn because(failure: Option<&str>) -> String {
    failure.map_or_else(String::new, |failure| {
        format!(" (the last failure: {failure})")
    })
}

/// Why a stop was not a graceful one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// These (as `tree/actor`) were not up, or were killed before they had finished what was in flight.
    #[error("stopped, but these did not finish what was in flight: {}", .0.join(", "))]
    Unfinished(Vec<String>),
    /// The root has ended, and everything with it.
    #[error("the supervision has ended already")]
    Ended,
}

/// Reaches the root. Cheap to clone. Dropping it stops nothing.
#[derive(Clone)]
pub struct RootHandle {
    root: ActorRef<RootMsg>,
    board: Arc<StatusBoard>,
}

impl RootHandle {
    pub(super) fn new(root: ActorRef<RootMsg>, board: Arc<StatusBoard>) -> Self {
        Self { root, board }
    }

    /// Starts a tree and waits until all of its actors are up, at the most for the tree's `start_timeout`; then the
    /// tree goes on trying by itself.
    ///
    /// A tree of that name that is there already is waited for, and `spec` is dropped: its handles are not filled. A
    /// parked one that waits for its next try is replaced by `spec`; one that is being stopped is waited for first.
    pub async fn start_tree(&self, spec: TreeSpec) -> Result<(), StartError> {
        let tree: Arc<str> = spec.name.as_str().into();
        let within = spec.policy.start_timeout;
        let deadline = deadline_after(within);
        let spec = Arc::new(spec);
        loop {
            let request = |reply| RootMsg::Start {
                spec: Arc::clone(&spec),
                reply,
            };
            match self.ask(request).await {
                Some(StartAnswer::Accepted) => break,
                Some(StartAnswer::Stopping) => {
                    let gone = |status: Option<TreeStatus>| {
                        status.is_none_or(|s| s.state != TreeState::Stopping)
                    };
                    if !self.wait_for_tree(&tree, deadline, gone).await {
                        return Err(self.not_up(tree, within));
                    }
                }
                Some(StartAnswer::Invalid(problem)) => {
                    return Err(StartError::Invalid { tree, problem });
                }
                Some(StartAnswer::ShuttingDown) | None => return Err(StartError::ShuttingDown),
            }
        }
        let mut outcome = None;
        let decided = |status: Option<TreeStatus>| {
            outcome = match status.map(|status| status.state) {
                Some(TreeState::Running) => Some(Ok(())),
                Some(TreeState::Parked {
                    reason,
                    next_try: Some(_),
                }) => Some(Err(StartError::Parked {
                    tree: Arc::clone(&tree),
                    reason,
                })),
                Some(TreeState::Stopping) | None => Some(Err(StartError::Stopped {
                    tree: Arc::clone(&tree),
                })),
                Some(TreeState::Starting | TreeState::Restarting | TreeState::Parked { .. }) => {
                    None
                }
            };
            outcome.is_some()
        };
        self.wait_for_tree(&tree, deadline, decided).await;
        outcome.unwrap_or_else(|| Err(self.not_up(tree, within)))
    }

    /// Drains the actors of a tree in order, stops them and forgets the tree; then the name can be started again.
    ///
    /// Returns when it is gone, at the latest a few seconds after `deadline`. A tree that is not there is gone.
    pub async fn stop_tree(&self, name: &str, deadline: Duration) -> Result<(), StopError> {
        let answer = self.ask(|reply| RootMsg::Stop {
            name: name.into(),
            deadline,
            reply,
        });
        stopped(answer.await)
    }

    /// Stops every tree as [`RootHandle::stop_tree`] does, side by side, and then the root. No tree starts any more.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), StopError> {
        stopped(
            self.ask(|reply| RootMsg::Shutdown { deadline, reply })
                .await,
        )
    }

    /// Every tree as it is now, in the order of their names.
    pub fn status(&self) -> Vec<TreeStatus> {
        self.board.all()
    }

    /// One tree as it is now.
    pub fn tree(&self, name: &str) -> Option<TreeStatus> {
        self.board.one(name)
    }

    /// Waits until `accepts` says yes to the state of all trees. `Err`: what it was when `within` was over.
    pub async fn wait_until(
        &self,
        within: Duration,
        mut accepts: impl FnMut(&[TreeStatus]) -> bool,
    ) -> Result<Vec<TreeStatus>, Vec<TreeStatus>> {
        let deadline = deadline_after(within);
        let mut changes = self.board.changes();
        loop {
            changes.mark_unchanged();
            let status = self.board.all();
            if accepts(&status) {
                return Ok(status);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(self.board.all());
            }
        }
    }

    /// Waits until `accepts` says yes to the state of one tree; `None` is one that is not there. Costs nothing of the others.
    /// `Err`: what it was when `within` was over.
    pub async fn wait_for(
        &self,
        name: &str,
        within: Duration,
        mut accepts: impl FnMut(Option<&TreeStatus>) -> bool,
    ) -> Result<Option<TreeStatus>, Option<TreeStatus>> {
        let mut last = None;
        let accepted = |status: Option<TreeStatus>| {
            let accepts = accepts(status.as_ref());
            last = status;
            accepts
        };
        let deadline = deadline_after(within);
        if self.wait_for_tree(name, deadline, accepted).await {
            Ok(last)
        } else {
            Err(last)
        }
    }

    /// Fault injection: kills the actor of a tree, and with it everything below. `false` when it does not run.
    pub async fn kill_tree(&self, name: &str) -> bool {
        let answer = self.ask(|reply| RootMsg::Kill {
            name: name.into(),
            reply,
        });
        answer.await.unwrap_or(false)
    }

    /// Resolves when the root has ended, whether by [`RootHandle::shutdown`] or by a defect: the process is to end.
    pub async fn ended(&self) {
        let _ = self.root.wait(None).await;
    }

    /// `None`: the root has ended. It answers at once, or bounds by itself what it was asked to wait for.
    async fn ask<T>(&self, make: impl FnOnce(RpcReplyPort<T>) -> RootMsg) -> Option<T> {
        let (port, answer) = oneshot::channel();
        self.root.cast(make(port.into())).ok()?;
        answer.await.ok()
    }

    async fn wait_for_tree(
        &self,
        name: &str,
        deadline: Instant,
        mut accepts: impl FnMut(Option<TreeStatus>) -> bool,
    ) -> bool {
        let mut changes = self.board.changes();
        loop {
            changes.mark_unchanged();
            if accepts(self.board.one(name)) {
                return true;
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return false;
            }
        }
    }

    fn not_up(&self, tree: Arc<str>, within: Duration) -> StartError {
        let last_failure = self.board.one(&tree).and_then(|s| s.last_failure);
        StartError::NotUpYet {
            tree,
            within,
            last_failure,
        }
    }
}

impl fmt::Debug for RootHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootHandle")
            .field("trees", &self.board.all())
            .finish_non_exhaustive()
    }
}

fn stopped(unfinished: Option<Vec<String>>) -> Result<(), StopError> {
    match unfinished {
        Some(unfinished) if unfinished.is_empty() => Ok(()),
        Some(unfinished) => Err(StopError::Unfinished(unfinished)),
        None => Err(StopError::Ended),
    }
}
