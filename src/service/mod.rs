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
//! | `ignored` | the unknown fields of a submission |
//! | `items` | get, list, cancel, explain |
//! | `named` | what a text names: ids, handles, taskIds |
//! | `queue` | queue info, purge |
//! | `turns` | requests that cost much, a few at a time |
//! | `verdicts` | which agents may take an item, in `explain` |
//! | `upkeep` | resume, what the reaper does |
//! | `dead_letters` | list, get, retry, discard |
//! | `store` | which store it is, what is lost with one, accepting another |
//! | `totals` | stats, projects, info, readiness |
//! | `trouble` | what keeps the coordinator as a whole from serving |

mod agents;
mod batches;
mod brief;
mod claim;
mod dead_letters;
mod ignored;
mod items;
mod lease;
mod named;
mod queue;
mod store;
mod submit;
mod totals;
mod trouble;
mod turns;
mod upkeep;
mod verdicts;

use loom_actors::domain::room::Room;
use std::sync::Arc;
use std::time::Duration;

use loom_actors::events::EventHub;
use loom_actors::nats::server::ServerControl;
use loom_actors::project::Project;
use loom_actors::projects::Projects;
use loom_protocol::rest::PageInfo;
use loom_protocol::verbs::Sender;
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, Timestamp, WireError};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::access::Allowed;

pub use batches::{BatchFilter, Named, Reassigned, check_scope};
pub use brief::without_long_texts;
pub use ignored::Ignored;
pub use submit::check_submission;
pub use trouble::Owning;
pub use turns::{Turn, threads};

/// How many requests a door has under way at the most; more are refused with `overloaded`.
const MAX_REQUESTS: usize = 4_096;
/// How many may listen to events over REST at a time.
const MAX_LISTENERS: usize = 256;
/// What this coordinator can do beyond the version of the wire that it speaks.
pub(crate) const FEATURES: [&str; 3] = ["instance-id", "late-completion", "resume"];
const RETRY_AFTER: Duration = Duration::from_millis(100);
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
    /// Who listens to events.
    pub events: EventHub,
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

impl Service {
    /// A service over these projects.
    pub fn new(projects: Projects, options: ServiceOptions) -> Self {
        Self(Arc::new(Inner {
            projects: RwLock::new(projects),
            options,
            listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
            turns: turns::turns(),
            readings: turns::turns(),
        }))
    }

    /// The project that a request without one means.
    pub fn default_project(&self) -> &ProjectId {
        &self.0.options.default_project
    }

    /// What happens in all projects, over changes of ownership.
    pub fn events(&self) -> &EventHub {
        &self.0.options.events
    }

    /// A place among those who listen to events for long; `None` where all are taken.
    pub fn place_to_listen(&self) -> Option<OwnedSemaphorePermit> {
        self.0.listeners.clone().try_acquire_owned().ok()
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
        self.projects().activate(id).await
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
        let mut left = Room::of(self.projects().terms().nats.max_payload()).record();
        let fits = |item: &_| {
            let size = serde_json::to_vec(item).map_or(usize::MAX, |bytes| bytes.len() + 1);
            left.checked_sub(size).map(|rest| left = rest)
        };
        items.iter().map_while(fits).count().max(1)
    }

    /// A project if it is awake.
    ///
    /// # Errors
    /// Its store is another one than it should be: nothing can be said about what is in it.
    fn active(&self, id: &ProjectId) -> Result<Option<Arc<Project>>, WireError> {
        let projects = self.projects();
        projects.check_store(id)?;
        Ok(projects.get(id))
    }

    /// The projects that a reading request is about.
    fn readable(&self, id: Option<&ProjectId>) -> Result<Vec<Arc<Project>>, WireError> {
        if let Some(id) = id {
            return Ok(self.active(id)?.into_iter().collect());
        }
        let projects = self.projects();
        let mut all = projects.all();
        all.retain(|project| projects.check_store(&project.id).is_ok());
        Ok(all)
    }

    /// The answer about a thing that is in no project that can be looked into: not found, unless there are others.
    fn found_nowhere(&self, not_found: WireError) -> WireError {
        if not_found.code != ErrorCode::NotFound {
            return not_found;
        }
        let projects = self.projects();
        match projects
            .terms()
            .stores
            .problems_of_projects()
            .into_iter()
            .next()
        {
            Some(sentence) => WireError::unavailable(sentence, RETRY_AFTER),
            None => not_found,
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
