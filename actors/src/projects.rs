//! All projects of a coordinator: started on first use, found when their resources are there.
//!
//! A project can be read from before its first actor runs: what its actors tell is found by whoever hears it.
//!
//! A read never starts one. A write does, and so does a bucket that somebody else makes (a client
//! that knows nothing but NATS), and a work stream on which a submission waits for nobody; the server tells of those,
//! and a look now and then finds what it did not tell.

mod asleep;
mod coming_up;
mod comparison;
mod discovery;
mod doing;
mod found;
mod marks;
mod room;
mod search;
mod sleeping;
mod starting;
mod work_streams;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use loom_protocol::{ProjectId, WireError};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::asleep::{Asleep, RETRY_AFTER};
use self::doing::Starting;
use self::found::Found;
use self::marks::Marks;
use self::work_streams::WorkStreams;
use crate::agent_registry::AgentRegistryHandle;
use crate::hashing::{DashMap, DashSet};
use crate::project::{Project, Terms};
use crate::shared_agents::Registries;
use crate::supervision::{Root, RootHandle, StopError, TreeState, TreeStatus};

/// How often the list of streams is read, in case the server's word got lost.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a project may take to stop whose store is another one: nothing of it can be written.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// How many of those stop at a time.
const STOPS: usize = 16;

/// How many projects there may be, and when they sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectLimits {
    /// How many may be awake at a time.
    pub awake: usize,
    /// How many there may be, awake or asleep: above, no new one is made.
    pub known: usize,
    /// After how long without use one sleeps that has nothing to do; `None`: none ever does.
    pub sleep_after: Option<Duration>,
}

/// The projects that are awake. Cheap to clone.
#[derive(Clone)]
pub struct Projects(Arc<Inner>);

struct Inner {
    root: RootHandle,
    terms: Terms,
    limits: ProjectLimits,
    /// Those that are awake, and those that are being started.
    active: DashMap<ProjectId, Arc<Project>>,
    /// Those whose start has ended: writes go to these without another look.
    started: DashSet<ProjectId>,
    /// Those that are there and have not been up.
    found: Found,
    /// Those that sleep.
    asleep: Asleep,
    /// Where that is kept for the coordinator after this one.
    marks: Marks,
    /// Places for those who look for an item in all that sleep.
    searches: Semaphore,
    /// Whether those that slept before were taken over.
    recalled: AtomicBool,
    /// What is being done with each.
    starting: Starting,
    /// Streams that may turn out to be signs of life.
    work_streams: WorkStreams,
    _watching: AbortOnDropHandle<()>,
    /// Puts projects to sleep whose store is another one.
    guarding: OnceLock<AbortOnDropHandle<()>>,
}

impl Projects {
    /// No projects yet.
    pub async fn start(terms: Terms, limits: ProjectLimits) -> Result<Self, WireError> {
        let root = Root::start(format!("loom-{}", terms.epoch))
            .await
            .map_err(|error| {
                WireError::new(loom_protocol::ErrorCode::Internal, error.to_string())
            })?;
        let watching = tokio::spawn(terms.grace.clone().watch_over(terms.nats.client.clone()));
        let (turns, marks) = (terms.stores.turns(), Marks::new(&terms));
        let projects = Self(Arc::new(Inner {
            root,
            terms,
            limits,
            active: DashMap::default(),
            started: DashSet::default(),
            found: Found::default(),
            asleep: Asleep::default(),
            marks,
            searches: Semaphore::new(search::SEARCHES),
            recalled: AtomicBool::new(false),
            starting: Starting::default(),
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

    /// Why one more may not be started beside those that are awake.
    fn why_too_many(&self, id: &ProjectId, awake: usize) -> Option<String> {
        let ProjectLimits {
            awake: most_awake,
            known: most_known,
            ..
        } = self.0.limits;
        if awake >= most_awake {
            return Some(format!(
                "{awake} projects are awake, and no more are allowed (projects.max)"
            ));
        }
        let is_known = self.is_asleep(id) || self.0.found.contains(id);
        let known = awake + self.0.asleep.len();
        (!is_known && known >= most_known).then(|| {
            format!("there are {known} projects, and no new ones are allowed (projects.max_known)")
        })
    }

    /// How many are awake, or are being started. One that falls asleep is not, though its actors have not ended yet.
    pub fn awake(&self) -> usize {
        let active = self.0.active.iter();
        active.filter(|entry| !self.is_asleep(entry.key())).count()
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

    /// The projects that were up and are being restarted after a failure, which is named.
    pub fn failing(&self) -> BTreeMap<String, String> {
        let failing = self
            .trees()
            .into_iter()
            .filter(|tree| matches!(tree.state, TreeState::Starting | TreeState::Restarting));
        failing
            .filter_map(|tree| Some((tree.name.to_string(), tree.last_failure?.to_string())))
            .collect()
    }

    /// Why a project does not run that should. `None`: all of its actors are up; or it is not awake, so that its first
    /// use starts it.
    pub fn why_not_up(&self, id: &ProjectId) -> Option<NotUp> {
        let Some(tree) = self.0.root.tree(id.as_str()) else {
            return self.why_unread(id).map(NotUp::Down);
        };
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

impl Registries for Projects {
    fn awake(&self, project: &ProjectId) -> Option<AgentRegistryHandle> {
        let project = self.get(project)?;
        // One that falls asleep is started again: what its registry takes in until its end is not in its streams.
        if self.is_asleep(&project.id) {
            return None;
        }
        project.last_use.note();
        Some(project.registry.clone())
    }

    async fn started(&self, project: &ProjectId) -> Result<AgentRegistryHandle, WireError> {
        Ok(self.activate(project).await?.registry.clone())
    }
}

/// Where the store of a project that is awake turns out to be another one, everything about it stops: no lease expires,
/// nobody is buried. It wakes again when the store was accepted, or the right one is back.
async fn deactivate_foreign(projects: Weak<Inner>, mut turns: watch::Receiver<u64>) {
    while turns.changed().await.is_ok() {
        let Some(projects) = projects.upgrade().map(Projects) else {
            return;
        };
        let stores = &projects.0.terms.stores;
        let active = projects.0.active.iter().map(|entry| entry.key().clone());
        let foreign: Vec<ProjectId> = active.filter(|id| stores.foreign(id).is_some()).collect();
        let projects = &projects;
        stream::iter(foreign)
            .for_each_concurrent(STOPS, |id| async move {
                tracing::warn!(project = %id, "the project stops: its store is another one");
                if let Err(error) = projects.deactivate(&id, STOP_WITHIN).await {
                    tracing::warn!(project = %id, "{error}");
                }
            })
            .await;
        if let Err(error) = projects.discover().await {
            tracing::debug!("looking for projects is interrupted: {error}");
        }
    }
}
