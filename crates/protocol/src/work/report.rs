//! What an agent reports: results, errors, and the messages that carry them durably.

use serde::{Deserialize, Serialize};

use super::evidence::ReportedEvidence;
use super::input::{self, FromSentence};
use super::reason::Reason;
use super::session::Session;
use super::usage::Usage;
use crate::body::Body;
use crate::id::{AgentGuid, WorkId};
use crate::time::Timestamp;

/// A result as an agent reports it; a plain sentence is its summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ReportedResult {
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Whatever there is to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Body>,
    /// A list of things made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Body>,
    /// When it was finished, by the agent's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

impl FromSentence for ReportedResult {
    fn from_sentence(sentence: &str) -> Self {
        Self {
            summary: Some(sentence.into()),
            ..Self::default()
        }
    }
}

/// An error as an agent reports it; a plain sentence is its message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ReportedError {
    /// What went wrong.
    pub message: String,
    /// The agent's own code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether another attempt may help; yes where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recoverable: Option<bool>,
    /// When it happened, by the agent's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
}

impl FromSentence for ReportedError {
    fn from_sentence(sentence: &str) -> Self {
        Self {
            message: sentence.into(),
            ..Self::default()
        }
    }
}

/// A completion published to `loom.{p}.work.completed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CompletedReport {
    /// The item.
    pub work_item_id: WorkId,
    /// Its task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task_id: Option<String>,
    /// The agent.
    pub agent_guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The fence; without it the report counts only if the agent is the assignee and reported after the assignment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// What it came to.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_sentence_or_map"
    )]
    pub result: Option<ReportedResult>,
    /// What this attempt has used up, all in all; passed over where it cannot be read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::or_nothing"
    )]
    pub usage: Option<Usage>,
    /// The conversation in which it was worked on; passed over where it cannot be read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::or_nothing"
    )]
    pub session: Option<Session>,
    /// What was checked; passed over where it cannot be read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::or_nothing"
    )]
    pub evidence: Option<Vec<ReportedEvidence>>,
}

/// A failure published to `loom.{p}.work.errors`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ErrorReport {
    /// The item.
    pub work_item_id: WorkId,
    /// Its task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task_id: Option<String>,
    /// The agent.
    pub agent_guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The fence; as in a [`CompletedReport`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// What went wrong.
    #[serde(deserialize_with = "input::sentence_or_map")]
    pub error: ReportedError,
    /// Which kind of failure, one of [`Reason::OF_FAILURE`]; any other one counts as `agent-error`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// What this attempt has used up, all in all; passed over where it cannot be read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::or_nothing"
    )]
    pub usage: Option<Usage>,
    /// The conversation in which it was worked on; passed over where it cannot be read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::or_nothing"
    )]
    pub session: Option<Session>,
    /// What was checked; passed over where it cannot be read.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::or_nothing"
    )]
    pub evidence: Option<Vec<ReportedEvidence>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;
    use serde_json::json;

    #[test]
    fn a_published_end_counts_although_what_stands_beside_it_cannot_be_read() {
        let (id, guid) = (WorkId::generate(), AgentGuid::generate());
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let report = |usage: serde_json::Value, evidence: serde_json::Value| {
                let report = json!({
                    "workItemId": id, "agentGuid": guid, "result": {"summary": "ok"},
                    "usage": usage, "session": {"id": 7}, "evidence": evidence,
                });
                let bytes = encoding.encode(&report).unwrap();
                encoding.decode_request::<CompletedReport>(&bytes).unwrap()
            };
            let bad = report(json!({"tokens": -1}), json!([{"name": "t"}]));
            assert_eq!(bad.result.unwrap().summary.as_deref(), Some("ok"));
            assert!(bad.usage.is_none() && bad.session.is_none() && bad.evidence.is_none());
            let good = report(json!({"tokens": 1}), json!([{"name": "t", "exitCode": 0}]));
            assert_eq!(good.usage.unwrap().tokens, Some(1));
            assert_eq!(good.evidence.unwrap().len(), 1);
        }
    }
}
