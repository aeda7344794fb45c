//! The reaper's view of a project's agents: what it would do, what it did, whom it has buried.

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentStatus};
use crate::id::AgentGuid;
use crate::time::Timestamp;
use crate::work::LeaseRef;

/// What the reaper does to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum GcAction {
    /// It was silent for too long: offline, its leases go back.
    MarkOffline,
    /// It has been offline for too long: its entry goes, a grave stays for a while.
    Bury,
    /// It has been idle for too long: it is ordered to end, with a grace.
    SendHome,
    /// It has not ended within its grace: it is ordered to end at once.
    Insist,
    /// It has not ended then either, or has been silent for too long: the target from which it was born ends its process.
    EndProcess,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

impl GcAction {
    /// The action as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MarkOffline => "mark-offline",
            Self::Bury => "bury",
            Self::SendHome => "send-home",
            Self::Insist => "insist",
            Self::EndProcess => "end-process",
            Self::Unknown => "unknown",
        }
    }
}

/// One agent in a [`GcReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GcAgent {
    /// The agent.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// How it is (in the report of a run: how it was).
    pub status: AgentStatus,
    /// When it last gave a sign of life.
    pub last_heartbeat: Timestamp,
    /// How many items it holds (in the report of a run: held).
    pub leases: usize,
    /// What is done to it, or will be if nothing changes.
    pub action: GcAction,
    /// After how many milliseconds; 0: now, or done.
    pub due_in_ms: u64,
}

/// `gc.run`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GcRequest {
    /// Whether only to say what would be done, as `gc.report` does.
    pub dry_run: bool,
}

/// `gc.report` and `gc.run`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GcReport {
    /// The project.
    pub project_id: String,
    /// Whether it only says what is to come; else what was done.
    pub dry_run: bool,
    /// When.
    pub timestamp: Timestamp,
    /// How many agents were looked at.
    pub examined: usize,
    /// Those with whom something is (or was) to be done, the most urgent first; 1000 at the most.
    pub agents: Vec<GcAgent>,
    /// How many graves there are.
    pub graves: usize,
}

/// A value of the bucket `loom-graveyard-{p}`, by guid: an agent that was taken for dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Grave {
    /// The agent.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type.
    pub agent_type: String,
    /// Where it ran.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hostname: Option<String>,
    /// When it last gave a sign of life.
    pub last_heartbeat: Timestamp,
    /// When it was marked offline, or its entry was removed.
    pub died_at: Timestamp,
    /// Whether its entry was removed.
    pub buried: bool,
    /// What it held and lost; 100 at the most.
    pub lost: Vec<LeaseRef>,
}

impl Grave {
    /// How many lost leases a grave names.
    pub const MAX_LOST: usize = 100;

    /// The grave of an agent.
    pub fn of(agent: &Agent, died_at: Timestamp, buried: bool, mut lost: Vec<LeaseRef>) -> Self {
        lost.truncate(Self::MAX_LOST);
        Self {
            guid: agent.guid,
            handle: agent.handle.clone(),
            agent_type: agent.agent_type.clone(),
            hostname: agent.hostname.clone(),
            last_heartbeat: agent.last_heartbeat,
            died_at,
            buried,
            lost,
        }
    }
}
