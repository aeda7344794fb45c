//! How a project comes to be awake, and stops: one thing at a time for each, all of them side by side.
//!
//! ```text
//! absent ── found (its resources are there) ──► found ──┐
//!   └────── a first write ──────────────────────────────┴─► starting ─► awake ─► stopping ─► absent, or found
//!                                                              └─ failed: absent or found, with the reason
//! ```
//!
//! Whoever needs a project while it starts waits for the one start that is under way; whoever goes away leaves it alone.
//! A project that was found is not read before all of its actors have been up: what is not read yet would be told to be
//! absent.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | its resources cannot be made or opened | those who wait are told; the next write tries again, and the next look where it was found |
//! | an actor does not come up, or its tree is parked | it goes on by itself; writes go to the handles, which say so; reads are refused until it was up once |
//! | a thousand are found at once | [`STARTS`](super::doing::STARTS) at a time; one that takes longer than [`SLOW_AFTER`] keeps no place |
//! | NATS or the ownership goes meanwhile | the start fails; nothing is made |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use loom_protocol::{ErrorCode, ProjectId, WireError};
use tokio::time::timeout;

use super::coming_up::care_for;
use super::doing::{ByProject, Doing, Done, What};
use super::found::NOT_LISTED;
use super::wake_subscriptions::WakeSubscription;
use super::{Projects, RETRY_AFTER};
use crate::domain::sleep::Mark;
use crate::project::Project;
use crate::supervision::{StartError, StopError};
use crate::unavailable::not_started;

/// After how long the start of one lets the next one begin beside it.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// How often room is made for a project where no more may be awake; others may take it first.
const TRIES_FOR_ROOM: u32 = 3;

impl Projects {
    /// A project for a read; `None`: there is none of that id.
    ///
    /// # Errors
    /// `unavailable`: it is there, and has not been up since this coordinator owns, so that nothing can be said of what is
    /// in it; or its store is another one.
    pub fn readable(&self, id: &ProjectId) -> Result<Option<Arc<Project>>, WireError> {
        self.check_store(id)?;
        if let Some(sentence) = self.why_unread(id) {
            return Err(WireError::unavailable(sentence, RETRY_AFTER));
        }
        // What falls asleep can be read from until its actors have ended.
        let Some(project) = self.get(id) else {
            return self.0.asleep.why_unread(id).map_or(Ok(None), Err);
        };
        project.last_use.note();
        Ok(Some(project))
    }

    /// Every project that is awake and can be read from, by id. Asking for all is no use of any.
    ///
    /// # Errors
    /// `unavailable`: which projects there are is not known yet.
    pub fn all_readable(&self) -> Result<Vec<Arc<Project>>, WireError> {
        if !self.0.found.is_listed() {
            return Err(WireError::unavailable(NOT_LISTED, RETRY_AFTER));
        }
        let mut all = self.all();
        all.retain(|project| {
            let id = &project.id;
            let is_read = self.0.found.why_unread(id).is_none();
            is_read && !self.is_asleep(id) && self.check_store(id).is_ok()
        });
        Ok(all)
    }

    /// Those that are there and have not been up since this coordinator owns, with what keeps each from it, or what its last start
    /// came to.
    pub fn not_up_yet(&self) -> BTreeMap<ProjectId, Option<String>> {
        let mut all = self.0.found.all();
        for (id, why) in &mut all {
            if let Some(failure) = self.last_failure(id) {
                *why = Some(failure);
            }
        }
        all
    }

    /// Why nothing can be said of what is in a project; `None`: it is up, or there is none of that id.
    pub(super) fn why_unread(&self, id: &ProjectId) -> Option<String> {
        let why = self.0.found.why_unread(id)?;
        let failure = self.last_failure(id);
        Some(failure.map_or(why, |failure| {
            format!("project {id} is there and has not started yet: {failure}")
        }))
    }

    /// Which of the actors of a project crashed last or cannot load, and why, where not all of them have been up since.
    fn last_failure(&self, id: &ProjectId) -> Option<String> {
        let tree = self.0.root.tree(id.as_str())?;
        tree.last_failure.map(|failure| failure.to_string())
    }

    /// Whether a request about this project, or about all, that needs the `wanted` one has nothing to wait for: it is known what
    /// each is, and that one neither sleeps nor waits for a place.
    pub fn is_settled(&self, about: Option<&ProjectId>, wanted: Option<&ProjectId>) -> bool {
        let sleeps = wanted.is_some_and(|id| self.is_asleep(id));
        !sleeps && self.0.found.is_settled(about, wanted)
    }

    /// Waits until it is known of a project, or of all, what it is: up, or failed to start once. False: not within that time, or
    /// too many wait already.
    pub async fn settled(&self, id: Option<&ProjectId>, within: Duration) -> bool {
        self.0.found.settled(id, within).await
    }

    /// A project, started if it is not awake.
    ///
    /// # Errors
    /// Why it is not; `overloaded` where no more may be awake.
    pub async fn activate(&self, id: &ProjectId) -> Result<Arc<Project>, WireError> {
        self.check_store(id)?;
        let mut tries = TRIES_FOR_ROOM;
        loop {
            if let Some(project) = self.started(id) {
                project.last_use.note();
                return Ok(project);
            }
            let Done::Started(outcome) = self.begin_start(id).await else {
                continue;
            };
            match outcome {
                Err(error) if error.code == ErrorCode::Overloaded && tries > 0 => {
                    tries -= 1;
                    if !Box::pin(self.make_room()).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Stops a project after what is in flight; its resources stay, and its next use starts it again.
    ///
    /// # Errors
    /// What was in flight could not be finished; it is stopped all the same.
    pub async fn deactivate(&self, id: &ProjectId, deadline: Duration) -> Result<(), StopError> {
        loop {
            if let Done::Stopped(outcome) = self.begin_stop(id, deadline).await {
                return outcome;
            }
        }
    }

    /// Starts those that were found and are not awake, side by side. Ends when each is up, has failed, or is slow.
    pub(super) async fn start_found(&self) {
        let found: Vec<ProjectId> = self.0.found.all().into_keys().collect();
        let starts = found.iter().map(|id| self.start_one_found(id));
        join_all(starts).await;
    }

    /// Starts one that was found. A slow one goes on by itself.
    pub(super) async fn start_one_found(&self, id: &ProjectId) {
        if let Err(error) = self.check_store(id) {
            return self.0.found.failed(id, &error);
        }
        if !self.0.terms.ownership.is_held() {
            return;
        }
        let _place = self.0.starting.places.acquire().await;
        match timeout(SLOW_AFTER, self.activate(id)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.code == ErrorCode::Overloaded => {
                tracing::debug!(project = %id, "{error}");
            }
            Ok(Err(error)) => {
                tracing::warn!(project = %id, "the project was found and could not be started: {error}");
            }
            Err(_elapsed) => {
                tracing::warn!(project = %id, "the project was found and takes long to start; the others go on");
            }
        }
    }

    /// What is being done with a project; a start, where that is nothing.
    fn begin_start(&self, id: &ProjectId) -> Doing {
        let mut doing = self.0.starting.doing.lock();
        if let Some((_, doing)) = doing.get(id) {
            return doing.clone();
        }
        if let Some(project) = self.started(id) {
            return std::future::ready(Done::Started(Ok(project)))
                .boxed()
                .shared();
        }
        let on_their_way = doing.iter().filter(|(id, (what, _))| {
            *what == What::Start && (self.is_asleep(id) || !self.0.active.contains_key(*id))
        });
        let awake = self.awake() + on_their_way.count();
        if let Some(why) = self.why_too_many(id, awake) {
            let text = format!("project {id} is not started: {why}");
            let error = WireError::overloaded(text, RETRY_AFTER);
            self.0.found.failed(id, &error);
            self.0.asleep.kept_asleep(id, &error);
            return std::future::ready(Done::Started(Err(error)))
                .boxed()
                .shared();
        }
        self.begin(id, What::Start, &mut doing, |projects, id| async move {
            let slept = projects.is_asleep(&id);
            let outcome = projects.start_now(&id).await;
            match &outcome {
                Ok(project) => projects.note_when_read(project),
                Err(error) => projects.0.found.failed(&id, error),
            }
            if slept && outcome.is_err() {
                projects.start_until_up(&id);
            }
            Done::Started(outcome)
        })
    }

    /// What is being done with a project; its stop, where that is nothing.
    fn begin_stop(&self, id: &ProjectId, deadline: Duration) -> Doing {
        let mut doing = self.0.starting.doing.lock();
        if let Some((_, doing)) = doing.get(id) {
            return doing.clone();
        }
        self.begin(id, What::End, &mut doing, move |projects, id| async move {
            projects.0.started.remove(&id);
            let outcome = projects.0.root.stop_tree(id.as_str(), deadline).await;
            // What was in flight has told of its end.
            if projects.0.active.remove(&id).is_some() {
                projects.0.found.note(&id);
            }
            Done::Stopped(outcome)
        })
    }

    /// What is being done with a project; its falling asleep, where that is nothing.
    pub(super) fn begin_sleep(
        &self,
        project: Arc<Project>,
        mark: Mark,
        subscription: WakeSubscription,
        used_before: Duration,
    ) -> Doing {
        let id = project.id.clone();
        let mut doing = self.0.starting.doing.lock();
        if let Some((_, doing)) = doing.get(&id) {
            return doing.clone();
        }
        self.begin(&id, What::End, &mut doing, |projects, _| async move {
            Done::Stopped(
                projects
                    .sleep_now(project, mark, subscription, used_before)
                    .await,
            )
        })
    }

    /// Does something with a project with which nothing is being done.
    fn begin<F: Future<Output = Done> + Send + 'static>(
        &self,
        id: &ProjectId,
        what: What,
        doing: &mut ByProject,
        how: impl FnOnce(Self, ProjectId) -> F,
    ) -> Doing {
        let (projects, of) = (self.clone(), id.clone());
        let doing_it = how(self.clone(), id.clone());
        let begun = by_itself(async move {
            let _until_it_ends = UnderWay(&projects, &of);
            doing_it.await
        });
        doing.insert(id.clone(), (what, begun.clone()));
        begun
    }

    async fn start_now(&self, id: &ProjectId) -> Result<Arc<Project>, WireError> {
        // Nothing is made that another coordinator may be making.
        if !self.0.terms.ownership.is_held() {
            return Err(WireError::unavailable(
                format!("project {id} cannot be started: this coordinator does not own just now"),
                RETRY_AFTER,
            ));
        }
        if !self.0.terms.nats.is_up() {
            return Err(WireError::unavailable(
                format!("project {id} cannot be started: NATS is away"),
                RETRY_AFTER,
            ));
        }
        if self.is_asleep(id) {
            self.0.found.note(id);
            self.0.asleep.remove(id);
            // Nobody has looked at its store meanwhile.
            self.0.terms.stores.guard(id).suspect();
        }
        let (project, tree) = Box::pin(Project::open(id.clone(), &self.0.terms)).await?;
        let project = Arc::new(project);
        // Its actors tell events as soon as they run.
        self.0.active.insert(id.clone(), project.clone());
        let started = self.0.root.start_tree(tree).await;
        match &started {
            Ok(()) => tracing::info!(project = %id, "project is awake"),
            // What goes on trying is there when it is up, and what is parked says so to everybody.
            Err(StartError::NotUpYet { .. } | StartError::Parked { .. }) => self.note_when_up(id),
            // Any other one would never be started again.
            Err(error) => {
                self.0.active.remove(id);
                return Err(not_started(error));
            }
        }
        self.0.started.insert(id.clone());
        let nats = self.0.terms.nats.client.clone();
        tokio::spawn(care_for(Arc::downgrade(&project), nats));
        started.map_err(|error| not_started(&error))?;
        Ok(project)
    }

    pub(super) fn started(&self, id: &ProjectId) -> Option<Arc<Project>> {
        let project = self.0.started.contains(id).then(|| self.get(id))??;
        // One that falls asleep is held by nobody from then on.
        (!self.is_asleep(id)).then_some(project)
    }
}

/// Something is done with a project until this is dropped, also where it meets a defect.
struct UnderWay<'a>(&'a Projects, &'a ProjectId);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.starting.doing.lock().remove(self.1);
    }
}

/// Runs something to its end, whoever of those who wait for it goes away.
fn by_itself(doing: impl Future<Output = Done> + Send + 'static) -> Doing {
    let task = tokio::spawn(doing);
    let done = async move {
        task.await.unwrap_or_else(|error| {
            let text = format!("the start of a project met a defect: {error}; please report this");
            Done::Started(Err(WireError::new(ErrorCode::Internal, text)))
        })
    };
    done.boxed().shared()
}
