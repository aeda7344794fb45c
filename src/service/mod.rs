//! What Loom can do, once: every door (NATS requests, REST) decodes, calls one method here, encodes.
//!
//! What is done for a verb takes an [`Allowed`]: that its caller may is known before it begins (`crate::access`).
//!
//! | file | what it does |
//! |---|---|
//! | `agents` | register, heartbeat, deregister, list, get, shutdown |
//! | `submit` | submit, with what is to be said about unknown fields |
//! | `claim` | claim, by itself or after a completion |
//! | `lease` | start, progress, complete, fail, release, stopped |
//! | `batches` | which agents and items a filter names, reassign |
//! | `brief` | an answer that would be too large, shortened |
//! | `explain` | why an item waits: who may take it, and who may start an agent for it |
//! | `following` | listening to events |
//! | `forecast` | whether an agent is started for what was submitted, of which type and how soon |
//! | `ignored` | the unknown fields of a submission |
//! | `items` | get, list, cancel |
//! | `named` | what a text names: ids, handles, taskIds |
//! | `queue` | queue info, purge |
//! | `turns` | requests that cost much, a few at a time |
//! | `verdicts`, `target_verdicts` | which agents may take an item, and which targets may start one for it, in `explain` |
//! | `upkeep` | resume, what the reaper does |
//! | `dead_letters` | list, get, retry, discard |
//! | `spin_ups` | start an agent at a target, look at starts |
//! | `store` | which store it is, what is lost with one, accepting another |
//! | `targets` | register, list, get, update, remove, enable, disable |
//! | `totals` | stats, projects, info, readiness |
//! | `trouble` | what keeps the coordinator as a whole from serving |

mod agents;
mod batches;
mod brief;
mod claim;
mod dead_letters;
mod explain;
mod following;
mod forecast;
mod ignored;
mod items;
mod lease;
mod named;
mod queue;
mod spin_ups;
mod store;
mod submit;
mod target_verdicts;
mod targets;
mod totals;
mod trouble;
mod turns;
mod upkeep;
mod verdicts;

use std::sync::{Arc, Weak};
use std::time::Duration;

use loom_actors::domain::room::Room;
use loom_actors::events::EventHub;
use loom_actors::nats::server::ServerControl;
use loom_actors::project::Project;
use loom_actors::projects::Projects;
use loom_protocol::rest::PageInfo;
use loom_protocol::target::Mechanism;
use loom_protocol::verbs::{Scope, Sender, VerbName};
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, Timestamp, WireError};
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::access::Allowed;

pub use batches::{BatchFilter, Named, Reassigned, check_scope};
pub use brief::without_long_texts;
pub use following::Following;
pub use ignored::Ignored;
pub use submit::check_submission;
pub use trouble::Owning;
#[cfg(test)]
pub(crate) use turns::is_aside;
pub use turns::{LARGE_BODY, Turn, aside, threads};

/// How many requests a door has under way at the most; more are refused with `overloaded`.
const MAX_REQUESTS: usize = 4_096;
/// What this coordinator can do beyond the version of the wire that it speaks.
pub(crate) const FEATURES: [&str; 8] = [
    "instance-id",
    "late-completion",
    "resume",
    "reasons",
    "usage",
    "sessions",
    "evidence",
    "feedback",
];
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a request waits for projects that were found at a start of the coordinator: as long as a write waits for NATS.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
/// How long a write waits for a project that it starts. A start is a dozen requests of JetStream, each of which takes seconds
/// while a cluster elects.
const STARTED_WITHIN: Duration = Duration::from_secs(10);
const RETRY_START_AFTER: Duration = Duration::from_secs(1);
/// How long a request waits for what a project reads when it starts.
const READY_WITHIN: Duration = Duration::from_millis(2_500);
/// How many requests a door may have under way, and how long a refused one should wait.
pub(crate) const ADMISSION: (usize, Duration) = (MAX_REQUESTS, RETRY_AFTER);

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where it stands.
    pub info: PageInfo,
}

/// What the service needs to know beyond the projects.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// The project that a request without one means.
    pub default_project: ProjectId,
    /// Where agents find NATS.
    pub nats_url: Option<String>,
    /// Whether this process owns.
    pub owner: watch::Receiver<Owning>,
    /// Where events are told and heard.
    pub events: EventHub,
    /// Which mechanisms a target may have that comes by request.
    pub api_mechanisms: Vec<Mechanism>,
    /// The nats-server of our own, if there is one.
    pub server: Option<ServerControl>,
    /// When the process began to serve.
    pub since: Timestamp,
}

/// The service layer. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    projects: RwLock<Projects>,
    options: ServiceOptions,
    listeners: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    readings: Arc<Semaphore>,
}

/// A service, for as long as others keep it.
#[derive(Clone)]
pub struct WeakService(Weak<Inner>);

impl WeakService {
    /// The service, where it is still there.
    pub fn upgrade(&self) -> Option<Service> {
        self.0.upgrade().map(Service)
    }
}

impl Service {
    /// A service over these projects.
    pub fn new(projects: Projects, options: ServiceOptions) -> Self {
        Self(Arc::new(Inner {
            projects: RwLock::new(projects),
            options,
            listeners: Arc::new(Semaphore::new(following::MAX_LISTENERS)),
            turns: turns::turns(),
            readings: turns::turns(),
        }))
    }

    /// The same, for whoever is to keep nothing alive.
    pub fn downgrade(&self) -> WeakService {
        WeakService(Arc::downgrade(&self.0))
    }

    /// The project that a request without one means.
    pub fn default_project(&self) -> &ProjectId {
        &self.0.options.default_project
    }

    /// Where what happens in all projects is told, over changes of ownership.
    pub fn events(&self) -> &EventHub {
        &self.0.options.events
    }

    /// How many requests a door may have under way, and how long a refused one should wait.
    pub const fn admission(&self) -> (usize, Duration) {
        ADMISSION
    }

    /// The projects of the present ownership.
    pub fn projects(&self) -> Projects {
        self.0.projects.read().clone()
    }

    /// Serves from these projects from now on: the ownership was won anew.
    pub fn serve_from(&self, projects: Projects) {
        *self.0.projects.write() = projects;
    }

    fn now(&self) -> Timestamp {
        self.projects().terms().clock.now()
    }

    /// A project for a write: started if it is not awake.
    async fn activate(&self, id: &ProjectId) -> Result<Arc<Project>, WireError> {
        let projects = self.projects();
        let started = timeout(STARTED_WITHIN, projects.activate(id)).await;
        started.unwrap_or_else(|_elapsed| {
            let text =
                format!("project {id} is not up after {STARTED_WITHIN:?} and goes on starting");
            Err(WireError::unavailable(text, RETRY_START_AFTER))
        })
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self, caller: &Allowed) -> bool {
        if caller.verb().row().scope == Scope::Coordinator {
            return true;
        }
        let projects = self.projects();
        let wanted = self.to_be_awake(caller);
        // One that is wanted does not fall asleep from here on, or it is seen below that it does.
        if let Some(project) = wanted.and_then(|id| projects.get(id)) {
            project.last_use.note();
        }
        projects.is_settled(caller.project(), wanted)
    }

    /// The project that has to be awake for a request. None for one that only counts, or goes over all: a project that
    /// sleeps has no agents and nothing to do, and its totals are known.
    fn to_be_awake<'a>(&'a self, caller: &'a Allowed) -> Option<&'a ProjectId> {
        let goes_over_all = caller.project().is_none();
        match caller.verb() {
            VerbName::Stats | VerbName::Events | VerbName::StoreLost | VerbName::StoreAccept => {
                None
            }
            VerbName::AgentsList if goes_over_all => None,
            _ => Some(self.project_of(caller)),
        }
    }

    /// Waits for a project that is found at a start of the coordinator, or for all of them, before a request is carried
    /// out, and wakes the one that it is about: for a moment only, then whoever carries it out says what is missing.
    pub async fn settled(&self, caller: &Allowed) {
        if self.is_settled(caller) {
            return;
        }
        let projects = self.projects();
        let settled = async {
            let wanted = self.to_be_awake(caller);
            if let Some(id) = wanted.filter(|id| projects.waits_to_be_wanted(id)) {
                // Why it does not wake is told to whoever reads from it.
                let _ = projects.activate(id).await;
                projects.settled(Some(id), SETTLED_WITHIN).await;
            }
            projects.settled(caller.project(), SETTLED_WITHIN).await
        };
        let _ = timeout(SETTLED_WITHIN, settled).await;
    }

    /// The project that a request is about: the one that it names, or else the default one.
    fn project_of<'a>(&'a self, caller: &'a Allowed) -> &'a ProjectId {
        caller.project().unwrap_or(self.default_project())
    }

    /// A project for a request that names an agent as its sender: the one place where another run of it
    /// than the registered one is refused, and where the agent is noted as heard of, if the verb says that it was.
    async fn admit(
        &self,
        caller: &Allowed,
        guid: AgentGuid,
        run: Option<&str>,
    ) -> Result<Arc<Project>, WireError> {
        let project = self.active_for_agent(self.project_of(caller), guid)?;
        project.registry.admit(guid, run).await?;
        match caller.verb().row().sender {
            Sender::Claims => {
                let alive = project.registry.sign_of_life(guid).await;
                project.heard(guid, alive)?;
            }
            // One that is gone may still report: whether it holds the lease is the ledger's to say.
            Sender::Reports if project.agents.get(guid).is_none() => {
                project.reaper.unregistered_agent_heard(guid);
            }
            Sender::Reports => project.registry.sign_of_life(guid).await?,
            // What renews an entry is taken in by the registry, with all that it says; a goodbye is no sign of life.
            Sender::Renews | Sender::Leaves | Sender::Nobody => {}
        }
        Ok(project)
    }

    /// A project for a request of an agent that must have registered there.
    fn active_for_agent(
        &self,
        project: &ProjectId,
        guid: AgentGuid,
    ) -> Result<Arc<Project>, WireError> {
        self.active(project)?.ok_or_else(|| {
            WireError::new(
                ErrorCode::NotRegistered,
                format!("agent {guid} is not registered in project {project}; register it first"),
            )
        })
    }

    /// How many of these, at least one, fit into one answer: a page of long texts ends sooner.
    fn how_many_fit(&self, items: &[impl serde::Serialize]) -> usize {
        self.how_many_fit_beside(0, items)
    }

    /// The same where so many bytes of the answer are taken.
    fn how_many_fit_beside(&self, taken: usize, items: &[impl serde::Serialize]) -> usize {
        let whole = Room::of(self.projects().terms().nats.max_payload()).record();
        let mut left = whole.saturating_sub(taken);
        let fits = |item: &_| {
            let size = serde_json::to_vec(item).map_or(usize::MAX, |bytes| bytes.len() + 1);
            left.checked_sub(size).map(|rest| left = rest)
        };
        items.iter().map_while(fits).count().max(1)
    }

    /// A project if it is awake.
    ///
    /// # Errors
    /// It has not been up yet, or its store is another one than it should be: nothing can be said about what is in it.
    fn active(&self, id: &ProjectId) -> Result<Option<Arc<Project>>, WireError> {
        self.projects().readable(id)
    }

    /// The projects that a reading request is about.
    fn readable(&self, id: Option<&ProjectId>) -> Result<Vec<Arc<Project>>, WireError> {
        if let Some(id) = id {
            return Ok(self.active(id)?.into_iter().collect());
        }
        self.projects().all_readable()
    }

    /// The answer about a thing that is in no project that can be looked into: not found, unless there are others, and it
    /// may be in those.
    fn found_nowhere(&self, project: Option<&ProjectId>, not_found: WireError) -> WireError {
        if not_found.code != ErrorCode::NotFound {
            return not_found;
        }
        let projects = self.projects();
        if let Some(named) = project {
            return projects.readable(named).err().unwrap_or(not_found);
        }
        let foreign = projects.terms().stores.problems_of_projects();
        let not_up = || {
            if let Err(not_listed) = projects.all_readable() {
                return Some(not_listed);
            }
            let (id, _) = projects.not_up_yet().pop_first()?;
            projects.readable(&id).err()
        };
        match foreign.into_iter().next() {
            Some(sentence) => WireError::unavailable(sentence, RETRY_AFTER),
            None => not_up().unwrap_or_else(|| match projects.asleep() {
                0 => not_found,
                asleep => WireError {
                    message: format!(
                        "{}; {asleep} projects sleep, and are looked into by a whole id only, or by name: --project",
                        not_found.message
                    ),
                    ..not_found
                },
            }),
        }
    }
}

/// The limit of a page, within its bounds.
fn page_limit(asked: Option<usize>) -> Result<usize, WireError> {
    use loom_protocol::work::limits::{DEFAULT_PAGE, PAGE};
    match asked {
        None => Ok(DEFAULT_PAGE),
        Some(limit) if (1..=PAGE).contains(&limit) => Ok(limit),
        Some(limit) => Err(WireError::invalid(format!(
            "limit is {limit}; write a number from 1 to {PAGE}"
        ))),
    }
}
