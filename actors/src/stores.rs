//! Which store this process works with, over all its ownerships: the guard of each project's ledger and of the store
//! as a whole, what was known of a store that is gone, and the memory of the data directory.
//!
//! ```text
//! reconnect, suspicion, now and then ─► look at what is in doubt ─► trusted
//!                                                               └─► foreign ─► /ready red, the project sleeps,
//!                                                                              requests `unavailable`, until
//!                                                              accepted by a person, or the right one is back
//! ```
//!
//! The store as a whole is known by the stamp of `LOOM_OWNERS` (its id). A project is known by its ledger: work stream,
//! agents, graves and dead letters of the project go with that. Where the ledger is the right one and another of these
//! is gone, it was removed alone, and is made again as far as it is known; where the ledger is not, nothing is
//! made before that was accepted.
//!
//! # At a start
//! A process that has just started knows nothing but what its data directory remembers: per project the stamp and the
//! last acknowledged sequence, written at most every [`REMEMBER_EVERY`] and at the end. Where what is found differs
//! there is a warning in the log and in `/api/info`, and no more: the URL alone does not say that it must be the
//! same store. With `nats.store_id` it must be, and where it is not the process is up, takes nothing in, and owns as soon
//! as it is. The memory is kept as it is until it was compared: by a standby, and by a process that waits for its store; and of
//! a project that is there until that was opened.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | the store is emptied or replaced while another coordinator owns it | that one answers for it: what was known here is forgotten |
//! | the memory cannot be written | a warning once; nothing else depends on it |
//! | the memory cannot be read | as if there was none |
//! | a crash | the memory is up to [`REMEMBER_EVERY`] old: what it says is a lower bound |

mod looking;
mod lost;
mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use loom_protocol::ProjectId;
use loom_protocol::store::{LostItem, StoreAnswer};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::memory::Memory;
use crate::hashing::DashMap;
use crate::nats::connection::Nats;
use crate::nats::error::StoreError;
use crate::nats::listing::StreamListing;
use crate::nats::store_guard::{Guarded, LOOK_AGAIN, StoreGuard};
use crate::nats::verdicts::ledger_stamp::{Found, difference};
use crate::work_ledger::ReadModel;

/// How often every guard is looked at though nothing speaks against it.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often a store that is not the right one is looked at.
const LOOK_FOR_THE_RIGHT_ONE: Duration = Duration::from_secs(1);
/// How often what has changed is written into the data directory.
pub const REMEMBER_EVERY: Duration = Duration::from_secs(10);

/// What this process knows of its store. Cheap to clone.
#[derive(Clone)]
pub struct Stores(Arc<Inner>);

struct Inner {
    jetstream: jetstream::Context,
    listing: StreamListing,
    whole: StoreGuard,
    projects: DashMap<ProjectId, Kept>,
    to_be_looked_at: Arc<Notify>,
    /// Counts how often a store turned out to be another one, or the right one again.
    turns: watch::Sender<u64>,
    /// What the data directory remembered at the start; since it was compared, of projects that were there.
    remembered: Mutex<Memory>,
    file: Option<PathBuf>,
    could_write: AtomicBool,
    /// What was remembered was compared with what is there.
    compared: AtomicBool,
    /// Whether what was remembered of projects is remembered until more is known of them.
    is_carried: AtomicBool,
    warnings: Mutex<BTreeMap<String, String>>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

struct Kept {
    guard: StoreGuard,
    /// The last one that was filled from the right store.
    read: Option<Arc<ReadModel>>,
    /// What was given up when another store was accepted.
    lost: Arc<[LostItem]>,
}

/// What to do where a store is another one.
fn remedy(project: Option<&ProjectId>) -> String {
    let of = project.map_or(String::new(), |project| format!(" --project {project}"));
    format!(
        "put the right store back, or go on with this one by `loom store accept{of}` \
         (`loom store lost{of}` lists what is not in it)"
    )
}

/// The same where a setting says which one it must be.
fn remedy_of_a_pinned(_whole: Option<&ProjectId>) -> String {
    "nats.store_id names it: put the right store back, or end the coordinator, and start it with the id of the one \
     that is there, or without nats.store_id (`loom store accept` does not overrule the setting)"
        .into()
}

impl Stores {
    /// Of a process with this connection. `directory`: where to remember; none: nowhere. `store_id`: what the store must
    /// be.
    pub fn new(nats: &Nats, directory: Option<PathBuf>, store_id: Option<&str>) -> Self {
        let to_be_looked_at = Arc::new(Notify::new());
        let guarded = Guarded {
            project: None,
            remedy: if store_id.is_some() {
                remedy_of_a_pinned
            } else {
                remedy
            },
        };
        let whole = StoreGuard::of(guarded, &nats.listing, to_be_looked_at.clone());
        if let Some(id) = store_id {
            whole.pin(id);
        }
        let file = directory.map(|directory| memory::file_in(&directory));
        let stores = Self(Arc::new(Inner {
            jetstream: nats.jetstream.clone(),
            listing: nats.listing.clone(),
            whole,
            projects: DashMap::default(),
            to_be_looked_at,
            turns: watch::Sender::new(0),
            remembered: Mutex::new(file.as_deref().map(Memory::read).unwrap_or_default()),
            file,
            could_write: AtomicBool::new(true),
            compared: AtomicBool::new(false),
            is_carried: AtomicBool::new(false),
            warnings: Mutex::default(),
            tasks: Mutex::default(),
        }));
        let (looked_at, remembered) = (Arc::downgrade(&stores.0), Arc::downgrade(&stores.0));
        let notify = stores.0.to_be_looked_at.clone();
        let mut reconnects = nats.reconnects.clone();
        reconnects.mark_unchanged();
        let looking = async move {
            let mut everything = Instant::now() + LOOK_EVERY;
            let mut wait = LOOK_EVERY;
            loop {
                tokio::select! {
                    changed = reconnects.changed() => if changed.is_err() { return },
                    () = notify.notified() => {}
                    () = sleep(wait) => {}
                }
                let Some(inner) = looked_at.upgrade() else {
                    return;
                };
                let at_everything = everything <= Instant::now();
                if at_everything {
                    everything = Instant::now() + LOOK_EVERY;
                }
                wait = Self(inner).look(at_everything).await;
                if wait == LOOK_AGAIN {
                    // Whoever waits for the answer notifies all the time.
                    sleep(LOOK_AGAIN).await;
                }
            }
        };
        let remembering = async move {
            loop {
                sleep(REMEMBER_EVERY).await;
                let Some(inner) = remembered.upgrade() else {
                    return;
                };
                Self(inner).remember().await;
            }
        };
        *stores.0.tasks.lock() = vec![
            AbortOnDropHandle::new(tokio::spawn(looking)),
            AbortOnDropHandle::new(tokio::spawn(remembering)),
        ];
        stores
    }

    /// The guard of the store as a whole.
    pub fn whole(&self) -> &StoreGuard {
        &self.0.whole
    }

    /// The guard of a project's ledger.
    pub fn guard(&self, project: &ProjectId) -> StoreGuard {
        if let Some(kept) = self.0.projects.get(project) {
            return kept.guard.clone();
        }
        let kept = self.0.projects.entry(project.clone()).or_insert_with(|| {
            let guarded = Guarded {
                project: Some(project.clone()),
                remedy,
            };
            let notify = self.0.to_be_looked_at.clone();
            Kept {
                guard: StoreGuard::of(guarded, &self.0.listing, notify),
                read: None,
                lost: Arc::default(),
            }
        });
        kept.guard.clone()
    }

    /// A project is open: this is what is known of it from now on.
    pub fn opened(&self, project: &ProjectId, read: &Arc<ReadModel>) {
        let guard = self.guard(project);
        guard.follow();
        if let Some(mut kept) = self.0.projects.get_mut(project) {
            kept.read = Some(read.clone());
        }
        let remembered = self.0.remembered.lock();
        let before = remembered.projects.get(project.as_str()).cloned();
        drop(remembered);
        let (Some(before), Some(now)) = (before, guard.known()) else {
            return;
        };
        let found = Found::Ledger {
            stamp: Some(now.stamp),
            made: 0,
            last: now.last,
        };
        if let Some(differs) = difference(&before, &found) {
            self.warn(format!("project {project}"), &differs.to_string());
        }
    }

    /// A project is closed: what is in it is no longer kept in memory, only which store it is.
    pub fn closed(&self, project: &ProjectId) {
        if let Some(mut kept) = self.0.projects.get_mut(project) {
            kept.guard.unfollow();
            kept.read = None;
        }
    }

    /// Warns of what the data directory remembers and is not there, neither the store as a whole nor the ledgers of
    /// projects; one that is there is compared when it is opened. Only the first time counts.
    pub fn compare_with_memory(&self, is_there: impl Fn(&ProjectId) -> bool) {
        if self.0.compared.swap(true, Ordering::AcqRel) {
            return;
        }
        let known = self.0.whole.known().map(|known| known.stamp);
        let mut remembered = self.0.remembered.lock();
        if let (Some(before), Some(now)) = (&remembered.store_id, known)
            && *before != now
        {
            self.warn(
                "this NATS".into(),
                &format!("its id is {now}, and was {before}"),
            );
        }
        remembered.projects.retain(|project, before| {
            let is_there = project.parse().is_ok_and(|project| is_there(&project));
            let differs = difference(before, &Found::Nothing);
            if let (false, Some(differs)) = (is_there, differs) {
                self.warn(format!("project {project}"), &differs.to_string());
            }
            is_there
        });
        self.0.is_carried.store(true, Ordering::Release);
    }

    fn warn(&self, whose: String, differs: &str) {
        let mut warnings = self.0.warnings.lock();
        if warnings.contains_key(&whose) {
            return;
        }
        let text = format!(
            "the store of {whose} is not the one that this data directory worked with: {differs}; \
             if it should be, stop, and put that one back"
        );
        tracing::warn!("{text}");
        warnings.insert(whose, text);
    }

    /// What is to be known of the store and does not stop anything, a sentence each: where the data directory remembers
    /// another one than was found at the start, and streams that do not keep what they are given.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.0.warnings.lock().values().cloned().collect();
        warnings.extend(self.0.whole.warnings());
        let projects = self.0.projects.iter();
        let mut of_projects: Vec<_> = projects.flat_map(|kept| kept.guard.warnings()).collect();
        of_projects.sort();
        warnings.extend(of_projects);
        warnings
    }

    /// Changes whenever a store turned out to be another one, or the right one again.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.0.turns.subscribe()
    }

    /// Why a project is not to be used: its store, or the whole one, is another one.
    pub fn foreign(&self, project: &ProjectId) -> Option<Arc<str>> {
        let own = self
            .0
            .projects
            .get(project)
            .and_then(|kept| kept.guard.foreign());
        own.or_else(|| self.0.whole.foreign())
    }

    /// The projects that are not to be used, by id.
    pub fn foreign_projects(&self) -> Vec<(ProjectId, Arc<str>)> {
        let foreign = self.0.projects.iter().filter_map(|kept| {
            let sentence = kept.guard.foreign()?;
            Some((kept.key().clone(), sentence))
        });
        let mut foreign: Vec<_> = foreign.collect();
        foreign.sort();
        foreign
    }

    /// Why projects are not to be used, a sentence each.
    pub fn problems_of_projects(&self) -> Vec<String> {
        let foreign = self.foreign_projects().into_iter();
        let whole = self.0.whole.foreign().into_iter();
        whole
            .chain(foreign.map(|(_, sentence)| sentence))
            .map(|sentence| sentence.to_string())
            .collect()
    }

    /// Which streams of projects cannot be used, and why, a sentence each.
    pub fn problems_of_streams(&self) -> Vec<String> {
        let guards = self.0.projects.iter();
        let mut problems: Vec<_> = guards.flat_map(|kept| kept.guard.problems()).collect();
        problems.sort();
        problems
    }

    /// Only these projects are there: what kept another one from being made is asked again when somebody wants it.
    pub fn only_these_are_there(&self, is_there: impl Fn(&ProjectId) -> bool) {
        let gone = self.0.projects.iter();
        for kept in gone.filter(|kept| !is_there(kept.key())) {
            kept.guard.forget_problems();
        }
    }

    /// What is wrong with the store, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.problems_of_projects();
        problems.extend(self.problems_of_streams());
        problems
    }

    /// What is known of the store.
    pub fn describe(&self) -> StoreAnswer {
        StoreAnswer {
            id: self.0.whole.known().map(|known| known.stamp),
            problems: self.problems(),
            warnings: self.warnings(),
        }
    }

    /// Every project of which anything is known.
    pub fn known_projects(&self) -> Vec<ProjectId> {
        let known = self.0.projects.iter().map(|kept| kept.key().clone());
        let mut known: Vec<_> = known.collect();
        known.sort();
        known
    }

    /// From now on the store of a project that is there is the right one. Gives what was known and is not in it; `None`:
    /// it was the right one already.
    ///
    /// # Errors
    /// The store cannot be read; nothing is accepted.
    pub async fn accept(&self, project: &ProjectId) -> Result<Option<Arc<[LostItem]>>, StoreError> {
        if self.foreign(project).is_none() {
            return Ok(None);
        }
        let lost = self.lost(project).await?;
        tracing::warn!(
            %project, lost = lost.len(),
            "the store of the project that is there was accepted; what was known and is not in it is given up"
        );
        if let Some(mut kept) = self.0.projects.get_mut(project) {
            kept.lost = lost.clone();
            kept.read = None;
            kept.guard.unfollow();
            kept.guard.forget();
        }
        Ok(Some(lost))
    }

    /// From now on the store as a whole is the right one. False: it was already, or `nats.store_id` names another one.
    pub fn accept_whole(&self) -> bool {
        let whole = &self.0.whole;
        if whole.foreign().is_none() || !whole.forget_unless_pinned() {
            return false;
        }
        tracing::warn!("the store that is there was accepted as the one to work with");
        true
    }

    /// Another coordinator has owned, and answers for what is there now.
    pub fn others_owned(&self) {
        self.0.is_carried.store(false, Ordering::Release);
        for mut kept in self.0.projects.iter_mut() {
            kept.guard.unfollow();
            kept.guard.forget();
            kept.read = None;
        }
    }

    /// Writes down what is known, where that has changed.
    pub async fn remember(&self) {
        let Some(file) = self.0.file.clone() else {
            return;
        };
        if !self.0.compared.load(Ordering::Acquire) {
            return;
        }
        let is_carried = self.0.is_carried.load(Ordering::Acquire);
        let carried = is_carried.then(|| self.0.remembered.lock().projects.clone());
        let mut memory = Memory {
            store_id: self.0.whole.known().map(|known| known.stamp),
            projects: carried.unwrap_or_default(),
        };
        for kept in &self.0.projects {
            if let Some(known) = kept.guard.known() {
                memory.projects.insert(kept.key().to_string(), known);
            }
        }
        let writing = tokio::task::spawn_blocking(move || memory.write(&file));
        let written = match timeout(REMEMBER_EVERY, writing).await {
            Ok(Ok(written)) => written.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_elapsed) => Err(format!("not within {REMEMBER_EVERY:?}")),
        };
        let could = self.0.could_write.swap(written.is_ok(), Ordering::AcqRel);
        if let (true, Err(error)) = (could, written) {
            tracing::warn!("which store is worked with cannot be remembered: {error}");
        }
    }
}
