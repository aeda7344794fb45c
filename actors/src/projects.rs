//! All projects of a coordinator: started on first use, found when their resources are there.
//!
//! A project can be read from before its first actor runs: what its actors tell is found by whoever hears it.
//!
//! A read never starts one. A write does, and so does a bucket that somebody else makes (a client
//! that knows nothing but NATS), and a work stream on which a submission waits for nobody; the server tells of those,
//! and a look now and then finds what it did not tell.

mod work_streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use futures_util::{StreamExt as _, TryStreamExt as _};
use loom_protocol::{ProjectId, WireError, names};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::work_streams::WorkStreams;
use crate::project::{Project, Terms};
use crate::supervision::{Root, RootHandle, StartError, StopError, TreeState, TreeStatus};
use crate::unavailable::not_started;

/// The server tells of every stream that is made.
const STREAM_CREATED: &str = "$JS.EVENT.ADVISORY.STREAM.CREATED.>";
/// How often the list of streams is read, in case the server's word got lost.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a project may take to stop whose store is another one: nothing of it can be written.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// The projects that are awake. Cheap to clone.
#[derive(Clone)]
pub struct Projects(Arc<Inner>);

struct Inner {
    root: RootHandle,
    terms: Terms,
    max: usize,
    /// What reads find: those that are awake, and the one that is being started.
    active: DashMap<ProjectId, Arc<Project>>,
    /// Those whose start has ended: writes go to these without another look.
    started: DashSet<ProjectId>,
    /// One is opened at a time, so that each is opened once.
    opening: Mutex<()>,
    /// Streams that may turn out to be signs of life.
    work_streams: WorkStreams,
    _watching: AbortOnDropHandle<()>,
    /// Puts projects to sleep whose store is another one.
    guarding: OnceLock<AbortOnDropHandle<()>>,
}

impl Projects {
    /// No projects yet, at the most `max`.
    pub async fn start(terms: Terms, max: usize) -> Result<Self, WireError> {
        let root = Root::start(format!("loom-{}", terms.epoch))
            .await
            .map_err(|error| {
                WireError::new(loom_protocol::ErrorCode::Internal, error.to_string())
            })?;
        let watching = tokio::spawn(terms.grace.clone().watch_over(terms.nats.client.clone()));
        let turns = terms.stores.turns();
        let projects = Self(Arc::new(Inner {
            root,
            terms,
            max,
            active: DashMap::new(),
            started: DashSet::new(),
            opening: Mutex::new(()),
            work_streams: WorkStreams::default(),
            _watching: AbortOnDropHandle::new(watching),
            guarding: OnceLock::new(),
        }));
        let guarding = tokio::spawn(deactivate_foreign(Arc::downgrade(&projects.0), turns));
        let _first = projects.0.guarding.set(AbortOnDropHandle::new(guarding));
        Ok(projects)
    }

    /// Why a project is not to be used: its store is another one than this process works with.
    ///
    /// # Errors
    /// That.
    pub fn check_store(&self, id: &ProjectId) -> Result<(), WireError> {
        match self.0.terms.stores.foreign(id) {
            Some(sentence) => Err(WireError::unavailable(sentence.to_string(), RETRY_AFTER)),
            None => Ok(()),
        }
    }

    /// What the projects have in common.
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// The supervisor of all.
    pub fn root(&self) -> &RootHandle {
        &self.0.root
    }

    /// A project that is awake, or being started.
    pub fn get(&self, id: &ProjectId) -> Option<Arc<Project>> {
        self.0.active.get(id).map(|project| project.clone())
    }

    /// Every project that is awake or being started, by id.
    pub fn all(&self) -> Vec<Arc<Project>> {
        let mut all: Vec<_> = self.0.active.iter().map(|entry| entry.clone()).collect();
        all.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        all
    }

    /// A project, started if it is not awake.
    pub async fn activate(&self, id: &ProjectId) -> Result<Arc<Project>, WireError> {
        self.check_store(id)?;
        if let Some(project) = self.started(id) {
            return Ok(project);
        }
        let _one_at_a_time = self.0.opening.lock().await;
        if let Some(project) = self.started(id) {
            return Ok(project);
        }
        if self.0.active.len() >= self.0.max {
            return Err(WireError::overloaded(
                format!(
                    "project {id} is not started: {} projects are awake, and no more are allowed (projects.max)",
                    self.0.max
                ),
                RETRY_AFTER,
            ));
        }
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
        let (project, tree) = Box::pin(Project::open(id.clone(), &self.0.terms)).await?;
        let project = Arc::new(project);
        // Its actors tell events as soon as they run.
        self.0.active.insert(id.clone(), project.clone());
        let started = self.0.root.start_tree(tree).await;
        // What goes on trying is there when it is up, and what is parked says so to everybody; any
        // other one would never be started again.
        if let Err(error) = &started
            && !matches!(
                error,
                StartError::NotUpYet { .. } | StartError::Parked { .. }
            )
        {
            self.0.active.remove(id);
            return Err(not_started(error));
        }
        self.0.started.insert(id.clone());
        tracing::info!(project = %id, "project is awake");
        let cared_for = Arc::downgrade(&project);
        tokio::spawn(async move {
            while let Some(project) = cared_for.upgrade() {
                match project.revoke_orphaned_leases().await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(project = %project.id, "orphaned leases could not be taken back yet: {error}");
                    }
                }
                drop(project);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        started.map_err(|error| not_started(&error))?;
        Ok(project)
    }

    fn started(&self, id: &ProjectId) -> Option<Arc<Project>> {
        self.0.started.contains(id).then(|| self.get(id))?
    }

    /// Stops a project after what is in flight; its resources stay, and its next use starts it again.
    pub async fn deactivate(&self, id: &ProjectId, deadline: Duration) -> Result<(), StopError> {
        let _one_at_a_time = self.0.opening.lock().await;
        self.0.started.remove(id);
        let stopped = self.0.root.stop_tree(id.as_str(), deadline).await;
        // What was in flight has told of its end.
        self.0.active.remove(id);
        stopped
    }

    /// Stops all projects after what is in flight.
    pub async fn shut_down(&self, deadline: Duration) -> Result<(), StopError> {
        self.0.root.shutdown(deadline).await
    }

    /// Every project's tree, with its actors.
    pub fn trees(&self) -> Vec<TreeStatus> {
        self.0.root.status()
    }

    /// The projects that crashed too often and are given up for now, with the reason and when they are tried again.
    pub fn parked(&self) -> BTreeMap<String, String> {
        self.trees()
            .into_iter()
            .filter_map(|tree| Some((tree.name.to_string(), why_parked(&tree.state)?)))
            .collect()
    }

    /// Why a project does not run that should. `None`: all of its actors are up; or it is not awake, so that its first
    /// use starts it.
    pub fn why_not_up(&self, id: &ProjectId) -> Option<NotUp> {
        let tree = self.0.root.tree(id.as_str())?;
        if let Some(why) = why_parked(&tree.state) {
            return Some(NotUp::Parked(why));
        }
        let doing = match tree.state {
            TreeState::Running | TreeState::Parked { .. } => return None,
            TreeState::Starting => "is being started",
            TreeState::Restarting => "is being restarted",
            TreeState::Stopping => "is being stopped",
        };
        Some(NotUp::Down(match tree.last_failure {
            Some(failure) => format!("{doing} (the last failure: {failure})"),
            None => doing.to_owned(),
        }))
    }

    /// Wakes every project whose resources are there.
    pub async fn discover(&self) -> Result<(), async_nats::Error> {
        let streams: Vec<String> = self
            .0
            .terms
            .nats
            .jetstream
            .stream_names()
            .try_collect()
            .await?;
        for stream in &streams {
            self.activate_owner_of(stream).await;
        }
        let active: BTreeSet<String> = self.awake_streams();
        let work_streams = streams
            .into_iter()
            .filter(|stream| names::is_work_stream(stream) && !active.contains(stream));
        self.0.work_streams.listed(work_streams.collect());
        Ok(())
    }

    fn awake_streams(&self) -> BTreeSet<String> {
        let active = self.0.active.iter();
        active
            .map(|entry| names::work_stream(entry.key()))
            .collect()
    }

    /// Tells the agents of the projects that are awake that requests are answered (again): a claim
    /// that was open when the coordinator before this one died is answered by nobody.
    pub async fn greet_agents(self) {
        for project in self.all() {
            if let Err(error) = project.greet_agents(&self.0.terms.nats.client).await {
                tracing::debug!(project = %project.id, "its agents could not be greeted: {error}");
            }
        }
    }

    /// Goes on discovering, for ever.
    pub async fn keep_discovering(self) {
        let as_told = async {
            loop {
                if let Err(error) = self.discover_as_told().await {
                    tracing::debug!("looking for new projects is interrupted: {error}");
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        };
        let by_work_streams = async {
            loop {
                let jetstream = &self.0.terms.nats.jetstream;
                for project in self.0.work_streams.look(jetstream).await {
                    self.wake_found(&project).await;
                }
                tokio::time::sleep(work_streams::LOOK_EVERY).await;
            }
        };
        tokio::join!(as_told, by_work_streams);
    }

    async fn discover_as_told(&self) -> Result<(), async_nats::Error> {
        let mut told = self.0.terms.nats.client.subscribe(STREAM_CREATED).await?;
        // However many streams are made meanwhile.
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            match tokio::time::timeout_at(next_look, told.next()).await {
                Ok(Some(message)) => {
                    if let Some(stream) = message.subject.rsplit('.').next() {
                        self.activate_owner_of(stream).await;
                        if names::is_work_stream(stream) && !self.awake_streams().contains(stream) {
                            self.0.work_streams.told(stream);
                        }
                    }
                }
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.discover().await?;
                    next_look = Instant::now() + LOOK_EVERY;
                }
            }
        }
    }

    async fn activate_owner_of(&self, stream: &str) {
        let Some(id) = names::project_of_stream(stream) else {
            return;
        };
        self.wake_found(&id).await;
    }

    async fn wake_found(&self, id: &ProjectId) {
        if self.check_store(id).is_err() || !self.0.terms.ownership.is_held() {
            return;
        }
        if let Err(error) = self.activate(id).await {
            tracing::warn!(project = %id, "the project was found and could not be started: {error}");
        }
    }
}

/// Why a project does not run just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotUp {
    /// It crashed too often: for which reason, and when it is tried again.
    Parked(String),
    /// What is being done about it.
    Down(String),
}

fn why_parked(state: &TreeState) -> Option<String> {
    let TreeState::Parked { reason, next_try } = state else {
        return None;
    };
    Some(match next_try {
        None => format!("{reason}; it is being tried again"),
        Some(at) => {
            let secs = at.saturating_duration_since(Instant::now()).as_secs() + 1;
            format!("{reason}; it is tried again within {secs} s, sooner at a request")
        }
    })
}

/// Where the store of a project that is awake turns out to be another one, everything about it stops: no lease expires,
/// nobody is buried. It wakes again when the store was accepted, or the right one is back.
async fn deactivate_foreign(projects: Weak<Inner>, mut turns: watch::Receiver<u64>) {
    while turns.changed().await.is_ok() {
        let Some(projects) = projects.upgrade().map(Projects) else {
            return;
        };
        let stores = &projects.0.terms.stores;
        for project in projects.all() {
            if stores.foreign(&project.id).is_none() {
                continue;
            }
            tracing::warn!(project = %project.id, "the project stops: its store is another one");
            if let Err(error) = projects.deactivate(&project.id, STOP_WITHIN).await {
                tracing::warn!(project = %project.id, "{error}");
            }
        }
        if let Err(error) = projects.discover().await {
            tracing::debug!("looking for projects is interrupted: {error}");
        }
    }
}
