//! Who is there, what they can do and how busy they are. Owns: KV `loom-agents-{p}`. Writes nowhere
//! else; agents put, update and delete their own entries in it. In the bucket of all projects,
//! which is read by [`shared_agents`](crate::shared_agents), it deletes what it buries, and writes
//! nothing.
//!
//! Whoever registers by request has an entry of ours, which we keep fresh. An entry that a client
//! puts by itself is the client's: it is merged into memory and left as it is, but for our verdict
//! where that has to be seen (`verdicts`, `shared`).
//!
//! Reads never come here: they go to the [`AgentDirectory`], which survives a restart of this
//! actor and costs what it returns. Status and numbers in memory may be ahead of the bucket by a
//! moment; a registration and a removal are answered when they are durable. An answer
//! `unavailable` to a registration leaves open whether it will be stored: the agent registers
//! again with the same guid. `lastHeartbeat` in an entry of ours is never older than half of
//! `stale_after` for an agent that beats at least every third of it.
//!
//! # States
//! | of the actor | means |
//! |---|---|
//! | loading | the bucket is being read for the first time: requests wait, heartbeats of known agents do not |
//! | ready | all of it has been read; a watch goes on |
//! | without a bucket | its owner destroyed it: nothing is written, nobody is forgotten, until an agent registers by request |
//! | draining | what is in flight ends, nothing new begins |
//!
//! Requests about an entry, what is to be written of it, and what is under way are kept by a
//! [`KeyedWriter`](crate::keyed_writer::KeyedWriter), one step a task: what the watch tells between two steps counts.
//! Requests are urgent; that memory is ahead of the bucket is a chore.
//!
//! | of an entry | means | left by |
//! |---|---|---|
//! | at rest | memory and bucket say the same | a request, a put, a change of status, a heartbeat that has become old |
//! | dirty | memory is ahead of the bucket | a write, one at a time for each entry |
//! | writing | a compare-and-set is under way | stored: at rest · conflict, no answer: in doubt |
//! | in doubt | what the bucket holds is not known | a read from the leader, then the write again |
//! | quarantined | an agent put what cannot be read; it is kept as it is | a readable put, a registration by request |
//!
//! # Messages
//! | message | from | effect |
//! |---|---|---|
//! | register | handle | compare-and-set, then directory, event, answer |
//! | deregister | handle | the entry is removed, then directory, event, answer |
//! | heartbeat, sign of life | handle, subscription | last seen; offline → online; what the agent says of itself |
//! | shutdown, directive | handle | an order, published once and repeated by every heartbeat answer |
//! | send home | handle (the reaper) | the order to end, unless the agent has something to do by now |
//! | mark offline, bury | handle (the reaper) | any → offline → gone, unless the agent was heard of meanwhile |
//! | pause | handle, the ledger's listener | paused until then, with all of its `limitGroup`; a new one of the group is born so |
//! | quarantine, let in | the ledger's listener; an operator | taken out after too many failures; let in again |
//! | pause over | timer | paused → takes work, exactly then |
//! | bucket event | watch | a put by an agent is merged, a removal by it is a deregistration |
//! | shared | the reader of all agents | the same of an entry in the bucket of all projects |
//! | recounted, counts due | the directory, timer | other numbers of items are told, together (`counts`) |
//! | write ended, read ended | own tasks | next step of that entry |
//! | sweep due | timer | heartbeats older than a quarter of `stale_after` are written, what failed is tried again |
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | NATS away | registrations answer `unavailable` within 3 s; heartbeats work from memory; changes are written later |
//! | a write is not confirmed | nothing is assumed: the entry is read again before the next write |
//! | a write that nobody waits for is refused, or a reading fails | the sweep tries again |
//! | an agent's put races ours | conflict: read, merge, write again; five times, then `unavailable` |
//! | an unreadable entry | quarantined: kept, listed with the reason, logged once |
//! | two keys that spell one id | one agent: the one put last counts, the other one is listed |
//! | a client's entry is old when it is found | the agent is offline until its next put; nobody has judged it, so nothing is written |
//! | a client puts while we bury it | the delete names the revision that was judged: conflict, and it lives |
//! | the bucket is empty | the number of what is to come says so; nobody waits |
//! | the bucket is destroyed | it stays so until the next registration by request; then what is ours is written from memory |
//! | an entry went by its age, or vanished without a mark | that is no goodbye: who lives or has leases stays known, is judged by its silence, and is written again if the entry is ours |
//! | the bucket was made by somebody else, with an age limit | the limit is taken out; where that may not be, it is said once, and entries of ours are written again before they go |
//! | the ownership is over, or a later owner has written | nothing is written any more, nor merged and written again |
//! | a write of a former owner comes late | the entry is written again from memory |
//! | this actor crashes | the directory stays; the bucket is read again and compared with it |
//! | more than [`MAX_AGENTS`] | registrations answer `overloaded`, puts are quarantined |
//!
//! Events: `agent:registered`, `agent:updated` (also another number of items), `agent:shutdown` (it
//! has gone, by whatever way).

mod actor;
mod bucket_view;
mod counts;
mod directory;
mod drafting;
mod entry;
mod entry_state;
mod entry_states;
mod fence;
mod handle;
mod heartbeats;
mod held_requests;
mod index;
mod messages;
mod notifications;
mod orders;
mod outbox;
mod outcomes;
mod page;
mod pauses;
mod pausing;
mod presence;
mod present;
mod requests;
mod shared;
mod shared_news;
mod verdicts;
mod watch_events;
mod writes;

use std::fmt;
use std::sync::Arc;

use loom_protocol::{ProjectId, Timestamp, names};

use crate::clock::Clock;
use crate::events::EventHub;
use crate::liveness::AppliedPositions;
use crate::nats::error::StoreError;
use crate::nats::kv::Bucket;
use crate::nats::owner::Ownership;
use crate::nats::store::StoreHealth;
use crate::nats::store_guard::StoreGuard;
use crate::settings::AgentSettings;

pub use directory::{AgentDirectory, ReportOrigin};
pub use entry::{AgentEntry, SharedPlace};
pub use handle::AgentRegistryHandle;
pub use page::{AgentFilter, AgentsFound};
pub use shared_news::{SharedChange, SharedNews, SharedRefusal};

/// How many agents a project may have.
pub const MAX_AGENTS: usize = 100_000;

/// What happened to an agent, as far as matching is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentChange {
    /// It is new.
    Registered,
    /// Its status or what it can do is different.
    Updated,
    /// It is offline.
    Offline,
    /// It is not there any more.
    Gone,
}

/// What the AgentRegistry of a project needs.
#[derive(Clone)]
pub struct AgentRegistryArgs {
    /// The project.
    pub project: ProjectId,
    /// The connection.
    pub client: async_nats::Client,
    /// JetStream over it.
    pub jetstream: async_nats::jetstream::Context,
    /// Is told of writes that the store of NATS refuses.
    pub health: StoreHealth,
    /// How many copies the bucket has where it must be created; at least 1.
    pub replicas: usize,
    /// The time of day.
    pub clock: Clock,
    /// `[agents]`
    pub settings: AgentSettings,
    /// The read model; belongs to the project's tree.
    pub directory: Arc<AgentDirectory>,
    /// Where events go.
    pub events: EventHub,
    /// Told how far what arrives has been applied.
    pub arrivals: AppliedPositions,
    /// Whether the store is the one that is worked with.
    pub guard: StoreGuard,
    /// Which ownership this is; stands in the header of every write.
    pub epoch: u64,
    /// When it began: what was put before is no news.
    pub begun_at: Timestamp,
    /// Whether it lasts: asked before every write.
    pub ownership: Ownership,
}

impl fmt::Debug for AgentRegistryArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentRegistryArgs")
            .field("project", &self.project)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl AgentRegistryArgs {
    fn bucket(&self) -> Bucket {
        let name = names::agents_bucket(&self.project);
        Bucket::new(&self.jetstream, &name, self.replicas, &self.guard)
            .owned_by(&self.ownership)
            .timed_by(&self.clock)
    }
}

impl AgentRegistryArgs {
    fn shared_bucket(&self) -> Bucket {
        let name = names::SHARED_AGENTS_BUCKET;
        Bucket::new(&self.jetstream, name, self.replicas, &self.guard)
            .owned_by(&self.ownership)
            .timed_by(&self.clock)
    }
}

/// Creates the agents bucket of a project if it is missing: for a project that comes to life. The
/// actor does so only for an agent that registers by request.
pub async fn ensure_bucket(args: &AgentRegistryArgs) -> Result<(), StoreError> {
    args.bucket().ensure().await.map(drop)
}
