//! Answers that only REST has, and the totals that both doors give.

mod spin_ups;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, UnreadableEntry};
use crate::dead_letter::DeadLetter;
use crate::readiness::Readiness;
use crate::target::TargetAnswer;
use crate::time::Timestamp;
use crate::work::WorkItem;

pub use spin_ups::{SpinUpBegun, SpinUpsPage};

/// Where a page of a listing stands in the whole.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PageInfo {
    /// How many are on this page.
    pub count: usize,
    /// How many there are in all, as far as that is known without counting.
    pub total: usize,
    /// Whether there is a next page.
    pub has_more: bool,
    /// Its cursor.
    pub next_cursor: Option<String>,
    /// The cursor of the page before.
    pub prev_cursor: Option<String>,
}

/// `GET /api/work`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkPage {
    /// The items, without their bodies, newest last.
    pub work_items: Vec<WorkItem>,
    /// Where the page stands.
    #[serde(flatten)]
    pub page: PageInfo,
}

/// `GET /api/agents`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct AgentsPage {
    /// The agents.
    pub agents: Vec<Agent>,
    /// Projects whose agents are not among them, since they have not been up yet, with the reason; where those of all
    /// were asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starting: BTreeMap<String, String>,
    /// Where the page stands.
    #[serde(flatten)]
    pub page: PageInfo,
}

/// `GET /api/agents?unreadable=true`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct UnreadablePage {
    /// The entries that cannot be taken for agents.
    pub unreadable: Vec<UnreadableEntry>,
    /// How many are here.
    pub count: usize,
    /// How many there are.
    pub total: usize,
}

/// `GET /api/targets`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct TargetsPage {
    /// The targets, in the order in which they were registered.
    pub targets: Vec<TargetAnswer>,
    /// Records that cannot be read as targets, and how to get rid of them; at most 100, on the first page.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableEntry>,
    /// Where the page stands.
    #[serde(flatten)]
    pub page: PageInfo,
}

/// `GET /api/dlq`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct DeadLettersPage {
    /// The letters, without their bodies, newest last.
    pub items: Vec<DeadLetter>,
    /// Where the page stands.
    #[serde(flatten)]
    pub page: PageInfo,
}

/// The answer of a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// Ids that went well.
    pub success: Vec<String>,
    /// Ids that did not.
    pub failed: Vec<String>,
    /// How many went well.
    pub count: usize,
    /// A sentence for each that did not.
    pub errors: BTreeMap<String, String>,
    /// When it was over.
    pub completed_at: Timestamp,
    /// How many there were.
    pub total_processed: usize,
    /// The share that went well, 0 to 100.
    pub success_rate: f64,
}

/// `POST /api/agents/shutdown-batch`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShutdownBatchResult {
    /// How each of them went.
    #[serde(flatten)]
    pub batch: BatchResult,
    /// The agents that were told: `success` by another name.
    pub shutdown_agents: Vec<String>,
    /// Whether they were told to finish first.
    pub graceful: bool,
    /// Whether the filter names more than one request takes.
    pub has_more: bool,
}

/// `POST /api/work/cancel-batch`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CancelBatchResult {
    /// How each of them went.
    #[serde(flatten)]
    pub batch: BatchResult,
    /// Items that are cancelled.
    pub cancelled_items: Vec<String>,
    /// Items that were put back into the queue for another agent.
    pub reassigned_items: Vec<String>,
    /// Items that had ended already; in `failed` too.
    pub not_cancellable: Vec<String>,
    /// Whether the filter names more than one request takes.
    pub has_more: bool,
}

/// `POST /api/targets/disable-batch`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DisableTargetsResult {
    /// How each of them went.
    #[serde(flatten)]
    pub batch: BatchResult,
    /// The targets that are disabled: `success` by another name.
    pub disabled_targets: Vec<String>,
}

/// Items by status; counts what is retained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct WorkTotals {
    /// Waiting.
    pub pending: usize,
    /// Leased.
    pub active: usize,
    /// Done.
    pub completed: usize,
    /// Given up.
    pub failed: usize,
    /// Called off.
    #[serde(default)]
    pub cancelled: usize,
}

impl WorkTotals {
    /// All of them.
    pub const fn total(&self) -> usize {
        self.pending + self.active + self.completed + self.failed + self.cancelled
    }
}

/// Dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct DeadLetterTotals {
    /// All that are kept.
    pub total: usize,
    /// How many have expired by age since the start.
    pub expired: u64,
}

/// Agents by type and status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentTotals {
    /// All of them.
    pub total: usize,
    /// By type.
    pub by_type: BTreeMap<String, usize>,
    /// By status.
    pub by_status: BTreeMap<String, usize>,
}

/// Targets by state: each is in one of the parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TargetTotals {
    /// All of them.
    pub total: usize,
    /// Ready.
    pub available: usize,
    /// With an agent.
    pub in_use: usize,
    /// Switched off.
    pub disabled: usize,
    /// Whose last start failed, and that have no agent.
    #[serde(default)]
    pub error: usize,
}

/// The totals of one project, or of all that the caller may see.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Waiting items.
    pub pending: usize,
    /// Leased items.
    pub active: usize,
    /// Done items.
    pub completed: usize,
    /// Given up items.
    pub failed: usize,
    /// Called off items.
    pub cancelled: usize,
    /// All items.
    pub total: usize,
    /// Agents.
    pub agents: AgentTotals,
    /// The same items once more, as an object.
    pub work: WorkTotals,
    /// Targets.
    pub targets: TargetTotals,
    /// Dead letters.
    #[serde(default)]
    pub dead_letters: DeadLetterTotals,
    /// How many projects, awake or asleep.
    pub total_projects: usize,
    /// How many of them sleep: what is in them is counted as it was when they fell asleep.
    #[serde(default)]
    pub asleep: usize,
    /// Sums over all of them.
    pub totals: SumTotals,
    /// Each of them.
    pub by_project: BTreeMap<String, ProjectTotals>,
    /// Projects that are there and are not counted, since they have not been up yet, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starting: BTreeMap<String, String>,
    /// When this was counted.
    pub timestamp: Timestamp,
}

/// Sums over all projects.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct SumTotals {
    pub agents: usize,
    pub pending_work: usize,
    pub active_work: usize,
    pub completed_work: usize,
    pub failed_work: usize,
    pub targets: usize,
}

/// The sums of one project.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct ProjectTotals {
    pub agents: usize,
    pub pending_work: usize,
    pub active_work: usize,
    pub targets: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_activity: Option<Timestamp>,
}

/// One project of `GET /api/stats/projects`, in `details`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProjectSummary {
    /// Its id.
    pub project_id: String,
    /// Its sums.
    #[serde(flatten)]
    pub totals: ProjectTotals,
    /// Whether it sleeps; absent where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asleep: bool,
    /// Whether it is not there yet: the default project before it is used; absent for any other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unused: bool,
}

/// `GET /api/stats/projects`, `coord.global.projects`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct ProjectsAnswer {
    /// Their names, in order. The default project is there before it is used.
    pub projects: Vec<String>,
    /// The same with their sums.
    #[serde(default)]
    pub details: Vec<ProjectSummary>,
    /// Projects that are there and are not among them, since they have not been up yet, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starting: BTreeMap<String, String>,
    /// How many.
    pub count: usize,
    /// When this was counted.
    pub timestamp: Timestamp,
}

/// `GET /api/status`: how the coordinator is, for the people who run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it began to serve.
    pub since: Timestamp,
    /// Whether it is the owner.
    pub owner: bool,
    /// Which ownership this is.
    pub epoch: u64,
    /// How many projects are awake.
    pub projects: usize,
    /// How many sleep.
    #[serde(default)]
    pub asleep: usize,
    /// Its NATS.
    pub nats: NatsStatus,
    /// Whether it can serve, which projects gave up, and what else is wrong.
    pub readiness: Readiness,
    /// What is to be looked at though it serves, a sentence each: the store is not the one of before.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The NATS of a coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NatsStatus {
    /// Where agents find it, without credentials.
    pub url: String,
    /// Whether the connection stands.
    pub up: bool,
    /// The version of the server.
    pub version: String,
    /// The server that the coordinator runs by itself, where it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub own: Option<OwnServerStatus>,
}

/// A nats-server that a coordinator runs by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OwnServerStatus {
    /// Its process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// The folder of its store.
    pub store: String,
    /// What may still be written there, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub free_bytes: Option<u64>,
    /// How much that disk holds, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total_bytes: Option<u64>,
    /// Its log.
    pub log: String,
}

/// `GET /api/info`, `coord.global.info`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// `loom`.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// The version of the wire.
    pub protocol: u32,
    /// What it can do beyond it.
    pub features: Vec<String>,
    /// Which ownership this is.
    pub epoch: u64,
    /// How many projects are awake.
    pub projects: usize,
    /// The project that a request without one means.
    #[serde(default)]
    pub default_project: String,
    /// Where agents find NATS, where the coordinator may tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nats_url: Option<String>,
    /// The id of the store, for `nats.store_id`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store_id: Option<String>,
    /// Where the store is not the one that the data directory remembers, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}
