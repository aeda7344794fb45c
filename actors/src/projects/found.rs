//! The projects whose resources are there and that have not been up: nothing can be said yet of what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loom_protocol::{ErrorCode, ProjectId, WireError};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// How many requests may wait for projects that start; more are refused at once.
const WAITERS: usize = 512;

/// Before they are listed.
pub(super) const NOT_LISTED: &str =
    "which projects there are is not known yet; try again in a moment";

/// By id, with what the last start of each came to.
type ById = BTreeMap<ProjectId, Option<WireError>>;

/// Those that were found.
pub(super) struct Found {
    /// `None` before they were listed: any project may be there.
    by_id: Mutex<Option<ById>>,
    /// Changes with them.
    changes: watch::Sender<()>,
    waiters: Semaphore,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            by_id: Mutex::default(),
            changes: watch::Sender::default(),
            waiters: Semaphore::new(WAITERS),
        }
    }
}

impl Found {
    /// The resources of these, and of no others, are there.
    pub fn listed(&self, all: &BTreeSet<ProjectId>, is_awake: impl Fn(&ProjectId) -> bool) {
        {
            let mut by_id = self.by_id.lock();
            let by_id = by_id.get_or_insert_default();
            by_id.retain(|id, _| all.contains(id));
            for id in all.iter().filter(|id| !is_awake(id)) {
                by_id.entry(id.clone()).or_default();
            }
        }
        self.changes.send_replace(());
    }

    /// The resources of this one are there.
    pub fn note(&self, id: &ProjectId) {
        self.change(|by_id| {
            by_id.entry(id.clone()).or_default();
        });
    }

    /// It is up, and can be read from.
    pub fn came_up(&self, id: &ProjectId) {
        self.change(|by_id| {
            by_id.remove(id);
        });
    }

    /// Its start has failed; it is waited for no longer.
    pub fn failed(&self, id: &ProjectId, error: &WireError) {
        self.change(|by_id| {
            if let Some(last) = by_id.get_mut(id) {
                *last = Some(error.clone());
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut ById)) {
        if let Some(by_id) = &mut *self.by_id.lock() {
            change(by_id);
        }
        self.changes.send_replace(());
    }

    /// All of them, with what the last start of each came to.
    pub fn all(&self) -> BTreeMap<ProjectId, Option<String>> {
        let by_id = self.by_id.lock();
        let said = |last: &Option<WireError>| last.as_ref().map(|error| error.message.clone());
        let all = by_id.iter().flatten();
        all.map(|(id, last)| (id.clone(), said(last))).collect()
    }

    /// Whether its resources are there and it has not been up.
    pub fn contains(&self, id: &ProjectId) -> bool {
        self.by_id
            .lock()
            .as_ref()
            .is_some_and(|by_id| by_id.contains_key(id))
    }

    /// Whether it was not started because no more may be awake: whoever needs it may try again.
    pub fn is_kept_out(&self, id: &ProjectId) -> bool {
        let by_id = self.by_id.lock();
        by_id.as_ref().is_some_and(|by_id| kept_out(by_id, id))
    }

    /// Whether a request about this project, or about all, that needs the `wanted` one has nothing to wait for. One question,
    /// since every request asks it.
    pub fn is_settled(&self, about: Option<&ProjectId>, wanted: Option<&ProjectId>) -> bool {
        let by_id = self.by_id.lock();
        let Some(by_id) = &*by_id else { return false };
        !undecided(by_id, about) && !wanted.is_some_and(|id| kept_out(by_id, id))
    }

    /// How many were not started because no more may be awake.
    pub fn kept_out(&self) -> usize {
        let by_id = self.by_id.lock();
        let last = by_id.iter().flat_map(BTreeMap::values).flatten();
        last.filter(|error| error.code == ErrorCode::Overloaded)
            .count()
    }

    /// Whether it is known which there are.
    pub fn is_listed(&self) -> bool {
        self.by_id.lock().is_some()
    }

    /// Why nothing can be said of what is in a project; `None`: it is up, or there is none of that id.
    pub fn why_unread(&self, id: &ProjectId) -> Option<String> {
        let by_id = self.by_id.lock();
        let Some(by_id) = &*by_id else {
            return Some(NOT_LISTED.into());
        };
        Some(match by_id.get(id)? {
            None => format!("project {id} is there and has not started yet; try again in a moment"),
            Some(error) => format!(
                "project {id} is there and has not started yet: {}",
                error.message
            ),
        })
    }

    /// Waits until each of these, or of all, is up or has failed to start once. False: not within that time, or too many
    /// wait already.
    pub async fn settled(&self, id: Option<&ProjectId>, within: Duration) -> bool {
        if !self.is_undecided(id) {
            return true;
        }
        let Ok(_place) = self.waiters.try_acquire() else {
            return false;
        };
        let mut changes = self.changes.subscribe();
        let decided = async {
            loop {
                changes.mark_unchanged();
                if !self.is_undecided(id) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(within, decided).await.is_ok()
    }

    /// Whether it starts for the first time, and may be up in a moment.
    pub fn is_undecided(&self, id: Option<&ProjectId>) -> bool {
        let by_id = self.by_id.lock();
        by_id.as_ref().is_none_or(|by_id| undecided(by_id, id))
    }
}

fn kept_out(by_id: &ById, id: &ProjectId) -> bool {
    let last = by_id.get(id).and_then(Option::as_ref);
    last.is_some_and(|error| error.code == ErrorCode::Overloaded)
}

fn undecided(by_id: &ById, id: Option<&ProjectId>) -> bool {
    match id {
        Some(id) => by_id.get(id).is_some_and(Option::is_none),
        None => by_id.values().any(Option::is_none),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RETRY_AFTER;
    use super::*;

    fn id(name: &str) -> ProjectId {
        ProjectId::new(name).unwrap()
    }

    fn ids(names: &[&str]) -> BTreeSet<ProjectId> {
        names.iter().map(|name| id(name)).collect()
    }

    #[test]
    fn before_the_projects_are_listed_nothing_is_said_to_be_absent() {
        let projects = Found::default();
        assert!(projects.is_undecided(None) && projects.is_undecided(Some(&id("a"))));
        assert!(!projects.is_settled(Some(&id("a")), None));
        assert!(projects.why_unread(&id("a")).is_some());
        projects.listed(&ids(&["a"]), |_| false);
        assert!(projects.why_unread(&id("a")).unwrap().contains("project a"));
        assert_eq!(projects.why_unread(&id("b")), None, "there is none");
    }

    #[test]
    fn one_that_failed_is_waited_for_no_longer_and_says_why_until_it_is_up() {
        let projects = Found::default();
        projects.listed(&ids(&["a", "b"]), |_| false);
        let error = WireError::unavailable("its stream is somebody else's", RETRY_AFTER);
        projects.failed(&id("a"), &error);
        assert!(!projects.is_undecided(Some(&id("a"))));
        assert!(projects.is_undecided(None), "b starts");
        let why = projects.why_unread(&id("a")).unwrap();
        assert!(why.ends_with("somebody else's"), "{why}");
        projects.came_up(&id("b"));
        assert!(!projects.is_undecided(None), "a delays nobody");
        let full = WireError::overloaded("no more may be awake", RETRY_AFTER);
        let settled = |projects: &Found| {
            let (a, b) = (id("a"), id("b"));
            [
                (Some(&a), Some(&a)),
                (Some(&b), Some(&b)),
                (None, Some(&a)),
                (None, None),
            ]
            .map(|(about, wanted)| projects.is_settled(about, wanted))
        };
        assert_eq!(settled(&projects), [true; 4]);
        projects.failed(&id("a"), &full);
        assert_eq!(
            settled(&projects),
            [false, true, false, true],
            "a waits for a place"
        );
        projects.failed(&id("a"), &error);
        // The next look finds both; the one that is up is not started again, and the other keeps its reason.
        projects.listed(&ids(&["a", "b"]), |found| *found == id("b"));
        assert_eq!(projects.why_unread(&id("b")), None);
        assert!(!projects.is_undecided(Some(&id("a"))));
        projects.listed(&ids(&["b"]), |found| *found == id("b"));
        assert_eq!(
            projects.why_unread(&id("a")),
            None,
            "its resources are gone"
        );
    }
}
