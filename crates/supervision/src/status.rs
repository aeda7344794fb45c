//! What anybody may see of the trees. Written by the root alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::spec::TreeSpec;

/// How a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeState {
    /// Not all of its actors have been up yet.
    Starting,
    /// All of its actors are up.
    Running,
    /// One of its actors, or the whole of it, is being restarted.
    Restarting,
    /// It crashed too often, and is tried again by itself. Stays so until all of its actors are up.
    Parked {
        /// What the failure was that ended the last try.
        reason: Arc<str>,
        /// When it is tried again, if no call asks for it before. `None`: it is being tried.
        next_try: Option<Instant>,
    },
    /// It drains and will be gone.
    Stopping,
}

/// One tree as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeStatus {
    /// Its name.
    pub name: Arc<str>,
    /// How it is.
    pub state: TreeState,
    /// Its actors, in the order of their start.
    pub children: Vec<ChildStatus>,
    /// The last crash or failure to load since all were up: who and why.
    pub last_failure: Option<Arc<str>>,
}

/// One actor of a tree as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is up: it works, and has loaded what it works with.
    pub up: bool,
    /// How often it was restarted.
    pub restarts: u64,
}

struct Entry {
    spec: Arc<TreeSpec>,
    state: TreeState,
    last_failure: Option<Arc<str>>,
}

/// Shared by the root, which writes, and its handles, which read.
#[derive(Default)]
pub(super) struct StatusBoard {
    entries: Mutex<BTreeMap<Arc<str>, Entry>>,
    version: watch::Sender<u64>,
}

impl StatusBoard {
    /// Shows a tree that is to start.
    pub(super) fn put(&self, name: Arc<str>, spec: Arc<TreeSpec>) {
        let entry = Entry {
            spec,
            state: TreeState::Starting,
            last_failure: None,
        };
        self.entries.lock().insert(name, entry);
        self.bump();
    }

    /// Shows how a tree is now.
    pub(super) fn set(&self, name: &str, state: TreeState, last_failure: Option<Arc<str>>) {
        if let Some(entry) = self.entries.lock().get_mut(name) {
            entry.state = state;
            entry.last_failure = last_failure;
        }
        self.bump();
    }

    /// Forgets a tree.
    pub(super) fn remove(&self, name: &str) {
        self.entries.lock().remove(name);
        self.bump();
    }

    /// Changes with every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Every tree, in the order of their names.
    pub(super) fn all(&self) -> Vec<TreeStatus> {
        let entries = self.entries.lock();
        entries.iter().map(|(name, e)| e.status(name)).collect()
    }

    /// One tree.
    pub(super) fn one(&self, name: &str) -> Option<TreeStatus> {
        let entries = self.entries.lock();
        entries
            .get_key_value(name)
            .map(|(name, entry)| entry.status(name))
    }

    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

impl Entry {
    fn status(&self, name: &Arc<str>) -> TreeStatus {
        let children = self.spec.children.iter().map(|child| {
            let (up, restarts) = child.control.presentation().facts();
            ChildStatus {
                name: Arc::clone(&child.name),
                up,
                restarts,
            }
        });
        TreeStatus {
            name: Arc::clone(name),
            state: self.state.clone(),
            children: children.collect(),
            last_failure: self.last_failure.clone(),
        }
    }
}
