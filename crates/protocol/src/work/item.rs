//! A work item as clients see it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::evidence::Evidence;
use super::feedback::Feedback;
use super::reason::Reason;
use super::session::Session;
use super::usage::Usage;
use crate::body::Body;
use crate::id::{AgentGuid, WorkId};
use crate::time::Timestamp;

/// Where an item stands. A status that this version does not know means unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WorkStatus {
    /// Waiting for an agent.
    Pending,
    /// Leased to an agent that has not started yet.
    Assigned,
    /// An agent works on it.
    InProgress,
    /// Done.
    Completed,
    /// Given up; a dead letter tells why.
    Failed,
    /// Called off.
    Cancelled,
    /// Reserved: unfinished.
    Blocked,
    /// Reserved: unfinished.
    InReview,
    /// Of a later version: unfinished.
    #[serde(other)]
    Unknown,
}

impl WorkStatus {
    /// Every status that this version writes.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Assigned,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the item has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether an agent holds a lease on the item.
    pub const fn is_leased(self) -> bool {
        matches!(self, Self::Assigned | Self::InProgress)
    }

    /// The status as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
            Self::InReview => "in-review",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a status that this version writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl fmt::Display for WorkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The agent that holds, or last held, an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AssignedAgent {
    /// Its id.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type.
    pub agent_type: String,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hostname: Option<String>,
}

/// What a completed item came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkResult {
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<String>,
    /// Whatever the agent gave, as it gave it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<Body>,
    /// A list of things made, as the agent gave it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifacts: Option<Body>,
    /// When the agent had finished.
    pub completed_at: Timestamp,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkErrorInfo {
    /// What the agent said, or what befell it.
    pub message: String,
    /// The agent's own code.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// Whether another attempt may help.
    pub recoverable: bool,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// Which kind of end it was.
    pub reason: Reason,
    /// The attempt that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// The agent that failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_guid: Option<AgentGuid>,
}

/// Who called an item off, and whether the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CancelInfo {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// Who asked.
    pub by: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// When the agent was reached: an answer told it for the first time, or it had stopped by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivered_at: Option<Timestamp>,
    /// When the agent said that it had stopped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stopped_at: Option<Timestamp>,
}

/// A work item as clients see it. Listings omit `contextData`, `result` and `evidence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkItem {
    /// Its id.
    pub id: WorkId,
    /// The submitter's name for the task that it belongs to.
    pub task_id: String,
    /// The item in the course of which it was submitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent_id: Option<WorkId>,
    /// Its project.
    pub project_id: String,
    /// What an agent must be able to do.
    pub capability: String,
    /// The isolation boundary that an agent must be in.
    pub boundary: String,
    /// What is to be done.
    pub description: String,
    /// 1 to 10; higher first.
    pub priority: u8,
    /// The submitter's own marks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub status: WorkStatus,
    /// Whether it has ended.
    pub terminal: bool,
    /// The fence: +1 with every claim, never falls.
    pub attempt: u32,
    /// How many attempts are spent.
    pub attempts: u32,
    /// How many may be spent.
    pub max_attempts: u32,
    /// Who submitted it.
    pub offered_by: String,
    /// When it was submitted.
    pub offered_at: Timestamp,
    /// The agent type that is served first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preferred_agent_type: Option<String>,
    /// The only agent type that may take it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub required_agent_type: Option<String>,
    /// When it is too late to begin.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline: Option<Timestamp>,
    /// Not offered before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_before: Option<Timestamp>,
    /// Its progress clock, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
    /// What the agent needs to know, as the submitter gave it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub context_data: Option<Body>,
    /// The agent that holds it, or ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assigned_to: Option<AgentGuid>,
    /// More about that agent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assigned_to_agent: Option<AssignedAgent>,
    /// When it was last claimed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assigned_at: Option<Timestamp>,
    /// When the current or last attempt was started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<Timestamp>,
    /// 0 to 100; 100 of a completed item. Written as a whole number where it is one.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "whole_if_whole",
        default
    )]
    pub progress: Option<f64>,
    /// What the agent last said about its progress.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress_message: Option<String>,
    /// Why it is pending again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pending_reason: Option<Reason>,
    /// What it came to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<WorkResult>,
    /// How it failed last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<WorkErrorInfo>,
    /// How its attempts failed, the last ten.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<WorkErrorInfo>,
    /// Who called it off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cancel: Option<CancelInfo>,
    /// What all its attempts have used up together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which an agent program has worked on it last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
    /// What the checks of the last attempt that reported its end have found.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub evidence: Vec<Evidence>,
    /// What the next attempt should know of those before, the oldest first. In claimed items only.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub feedback: Vec<Feedback>,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// The number of its last write; grows with each.
    pub revision: u64,
}

/// Writes 40 as `40`, not as `40.0`, and 40.5 as it is.
#[allow(clippy::ref_option, reason = "serde asks for it")]
pub(crate) fn whole_if_whole<S: Serializer>(
    number: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the fraction is nought, and i32 holds the range that is asked for"
    )]
    match number {
        Some(number) if number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX) => {
            serializer.serialize_i64(*number as i64)
        }
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_whole_number_where_it_is_whole() {
        #[derive(Serialize)]
        struct Holder {
            #[serde(serialize_with = "whole_if_whole")]
            progress: Option<f64>,
        }
        for (progress, written) in [
            (Some(40.0), "40"),
            (Some(0.0), "0"),
            (Some(100.0), "100"),
            (Some(40.5), "40.5"),
            (Some(1e300), "1e+300"),
            (None, "null"),
        ] {
            let json = serde_json::to_string(&Holder { progress }).unwrap();
            assert_eq!(json, format!("{{\"progress\":{written}}}"));
        }
    }

    #[test]
    fn an_unknown_status_means_unfinished() {
        let status: WorkStatus = serde_json::from_str("\"hibernating\"").unwrap();
        assert!(!status.is_terminal());
        assert_eq!(WorkStatus::parse("hibernating"), None);
    }

    #[test]
    fn names_agree_with_the_wire() {
        for status in WorkStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
