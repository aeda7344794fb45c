//! The bucket `agent-registry`, in which existing clients keep the agents of all projects. Owns
//! nothing: only clients write there; a buried entry is deleted by its project's registry.
//!
//! One reader for the whole process follows the bucket and hands each entry to the registry of the
//! project that it names; such an entry brings a project to life as any first write does. The
//! registry decides what it means, as for an entry in the project's own bucket.
//!
//! # States
//! | of the reader | means | left by |
//! |---|---|---|
//! | off | `compat.agent_registry = false`: nothing is read, no barrier waits | never |
//! | missing | there is no such bucket; no barrier waits | the server tells that it was made, or a look every 10 s |
//! | reading | it is told from its beginning: at the start, after an interruption, made anew | all of it was told |
//! | current | what is put arrives as it is put | an error; the bucket is destroyed or another one |
//!
//! | of an entry | means |
//! |---|---|
//! | handed over | its project's registry has it |
//! | on its way | the project is being started, or its registry restarts; the latest of each agent waits |
//! | unreadable | it is no agent: listed with the reason, left as it is |
//!
//! # Messages
//! | message | from | effect |
//! |---|---|---|
//! | put | watch | to the project's registry; to the former one that it is gone, where the project is another one |
//! | delete | watch | to the registry: the agent has deregistered. Our own delete of a buried entry: nothing |
//! | not told again | the end of a reading | asked for; where it is gone, the registry is told so |
//! | reached? | the barrier of a project | answered when what was in the bucket then has been applied by that project |
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | NATS away, the reader behind or interrupted | no barrier is passed: our stall, nobody's silence |
//! | a project cannot be started | its entries are listed with the reason, and tried again every 5 s; no other project waits |
//! | a registry restarts | its entries wait for it; told twice they change nothing |
//! | two spellings of one id | one agent: the one put last counts; when that is deleted the other one counts again |
//! | the bucket is destroyed | who is known stays known, and is judged by its silence |
//! | made anew | all of it is read as if for the first time |
//! | more than [`MAX_ENTRIES`] | the rest is listed as unreadable |
//! | the reader meets a defect | logged; it begins anew after a second |

mod handing;
mod reader;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use loom_protocol::agent::UnreadableEntry;
use loom_protocol::{ProjectId, WireError, names};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::agent_registry::AgentRegistryHandle;
use crate::clock::Clock;
use crate::liveness::{Position, SharedReader};
use crate::nats::connection::Nats;
use crate::nats::kv::Bucket;
use crate::nats::store_guard::StoreGuard;

/// How many entries are read.
pub const MAX_ENTRIES: usize = 100_000;
/// How many projects entries may name.
const MAX_PROJECTS: usize = 10_000;
/// How many unreadable entries are listed.
const MAX_UNREADABLE: usize = 10_000;
/// After how much waiting a barrier has the reader look whether its watch still lives.
const IMPATIENT: Duration = Duration::from_millis(500);

/// What is known of the bucket. One for all projects of an ownership. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedAgents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    is_read: bool,
    position: watch::Sender<Position>,
    look: Notify,
    lanes: Mutex<HashMap<ProjectId, Lane>>,
    unreadable: RwLock<BTreeMap<String, UnreadableEntry>>,
    /// Projects that were opened again: they know nothing of what was handed over before.
    opened: Mutex<HashSet<ProjectId>>,
}

/// What is on its way to one project.
#[derive(Debug, Default)]
struct Lane {
    /// The latest of each agent, in no order: what an agent's entry was before does not matter.
    waiting: handing::Waiting,
    /// Whether somebody hands it over.
    is_busy: bool,
    /// How much has ever been received.
    received: u64,
    /// How much of that has been applied.
    applied: watch::Sender<u64>,
}

impl SharedAgents {
    /// Nothing is read before [`SharedAgents::keep_reading`].
    pub fn new(nats: &Nats, is_read: bool, clock: &Clock) -> Self {
        let name = names::SHARED_AGENTS_BUCKET;
        Self(Arc::new(Inner {
            bucket: Bucket::new(&nats.jetstream, name, 1, &StoreGuard::unwatched())
                .timed_by(clock)
                .heard_through(nats.listing.inbox()),
            opened: Mutex::default(),
            is_read,
            position: watch::Sender::default(),
            look: Notify::new(),
            lanes: Mutex::default(),
            unreadable: RwLock::default(),
        }))
    }

    /// Entries that cannot be taken for agents, by key; at most `limit`. Of a project, or of all;
    /// those that name no project are of `rest`.
    pub fn unreadable(
        &self,
        project: Option<&ProjectId>,
        rest: &ProjectId,
        limit: usize,
    ) -> (Vec<UnreadableEntry>, usize) {
        let entries = self.0.unreadable.read();
        let belongs = |entry: &&UnreadableEntry| {
            project.is_none_or(|project| {
                let named = entry.project_id.as_deref();
                named.unwrap_or(rest.as_str()) == project.as_str()
            })
        };
        let total = entries.values().filter(belongs).count();
        let shown = entries.values().filter(belongs).take(limit).cloned();
        (shown.collect(), total)
    }

    /// How many entries cannot be taken for agents, by project; those that name none of `projects` are of `rest`.
    pub fn unreadable_counts<'a>(
        &self,
        projects: &[&'a str],
        rest: &'a str,
    ) -> BTreeMap<&'a str, usize> {
        let named = projects.iter().chain([&rest]).map(|name| (*name, 0));
        let mut counts: BTreeMap<&str, usize> = named.collect();
        for entry in self.0.unreadable.read().values() {
            let project = entry.project_id.as_deref().unwrap_or(rest);
            let place = if counts.contains_key(project) {
                project
            } else {
                rest
            };
            if let Some(count) = counts.get_mut(place) {
                *count += 1;
            }
        }
        counts
    }

    async fn until_applied(&self, project: &ProjectId, bucket: i128, sequence: u64) {
        let mut position = self.0.position.subscribe();
        loop {
            let read = position.wait_for(|position| position.reaches(bucket, sequence));
            let read = timeout(IMPATIENT, read)
                .await
                .map(|read| read.map(|_position| ()));
            match read {
                Ok(Ok(())) => break,
                Ok(Err(_)) => pending::<()>().await,
                Err(_) => self.0.look.notify_one(),
            }
        }
        let lane = {
            let lanes = self.0.lanes.lock();
            let lane = lanes.get(project);
            lane.map(|lane| (lane.received, lane.applied.subscribe()))
        };
        if let Some((received, mut applied)) = lane
            && applied
                .wait_for(|applied| *applied >= received)
                .await
                .is_err()
        {
            pending::<()>().await;
        }
    }

    /// A project is opened. Where it was before, all of its entries are told again.
    pub fn opened(&self, project: &ProjectId) {
        {
            let mut lanes = self.0.lanes.lock();
            let Some(lane) = lanes.get_mut(project) else {
                return;
            };
            if *lane.applied.borrow() == 0 {
                return;
            }
            // Until then nothing is known to be applied.
            lane.received += 1;
        }
        self.0.opened.lock().insert(project.clone());
        self.0.look.notify_one();
    }

    fn note_unreadable(&self, entry: UnreadableEntry) {
        let mut entries = self.0.unreadable.write();
        let is_noted = entries
            .get(&entry.key)
            .is_some_and(|noted| noted.revision == entry.revision && noted.reason == entry.reason);
        if is_noted {
            return;
        }
        let shown: String = entry.key.chars().take(64).collect();
        tracing::warn!(
            bucket = entry.bucket,
            key = shown,
            revision = entry.revision,
            reason = entry.reason,
            "an entry is no agent; it is left as it is"
        );
        if entries.len() < MAX_UNREADABLE || entries.contains_key(&entry.key) {
            entries.insert(entry.key.clone(), entry);
        }
    }

    fn forget_unreadable(&self, key: &str) {
        self.0.unreadable.write().remove(key);
    }

    /// The entry of this put was taken.
    fn was_taken(&self, key: &str, revision: u64) {
        let mut entries = self.0.unreadable.write();
        if entries
            .get(key)
            .is_some_and(|entry| entry.revision <= revision)
        {
            entries.remove(key);
        }
    }

    fn has_room_for(&self, project: &ProjectId) -> bool {
        let lanes = self.0.lanes.lock();
        lanes.len() < MAX_PROJECTS || lanes.contains_key(project)
    }
}

impl SharedReader for SharedAgents {
    fn is_read(&self) -> bool {
        self.0.is_read
    }

    fn reaches<'a>(
        &'a self,
        project: &'a ProjectId,
        bucket: i128,
        sequence: u64,
    ) -> BoxFuture<'a, ()> {
        self.until_applied(project, bucket, sequence).boxed()
    }
}

/// Where the registries of the projects are found, to hand over what was read.
pub trait Registries: Clone + Send + Sync + 'static {
    /// The one of a project that is awake.
    fn awake(&self, project: &ProjectId) -> Option<AgentRegistryHandle>;

    /// The one of a project, which is started if it is not awake.
    fn started(
        &self,
        project: &ProjectId,
    ) -> impl Future<Output = Result<AgentRegistryHandle, WireError>> + Send;
}
