//! The requests about work items, and their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::{self, FromSentence};
use super::item::{Usage, WorkItem, WorkStatus};
use crate::agent::AgentStatus;
use crate::body::Body;
use crate::error::WireError;
use crate::id::{AgentGuid, WorkId};
use crate::time::Timestamp;
use crate::work::Reason;

/// Fields of a submit that are refused until they work, never ignored.
pub const RESERVED_FIELDS: [&str; 4] = ["dependsOn", "group", "budget", "review"];

/// `work.submit`: one item, or `items` and nothing else.
///
/// Fields that a sender may get wrong are taken as they come and checked later, so that one bad
/// item of an array is answered by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubmitRequest {
    /// What is to be done. Required.
    pub description: String,
    /// What an agent must be able to do. Required.
    pub capability: String,
    /// The isolation boundary; `default` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// The item's id, chosen by the sender so that a repeated submit changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The sender's name for the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// 1 to 10; 5 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<serde_json::Number>,
    /// The sender's own marks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it is too late to begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Not offered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The progress clock of this item, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How many attempts may be spent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The agent type that is served first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_agent_type: Option<String>,
    /// The only agent type that may take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_agent_type: Option<String>,
    /// What the agent needs to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_data: Option<Body>,
    /// Who submits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_by: Option<String>,
    /// When it was submitted, where that was earlier than its arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offered_at: Option<Timestamp>,
    /// Refuse unknown fields instead of naming them in the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
    /// Several items in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<SubmitRequest>>,
}

/// The answer to one submitted item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubmitAnswer {
    /// The item's id.
    pub id: WorkId,
    /// The same.
    pub work_item_id: WorkId,
    /// Its task.
    pub task_id: String,
    /// The agent type that it waits for; `any` where it is open to all.
    pub target_agent_type: String,
    /// Whether an agent is being started for it.
    pub spin_up_triggered: bool,
    /// A guess at the wait, in seconds, where there is a basis for one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_wait_seconds: Option<u64>,
    /// Fields of the submission that nobody reads.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ignored: Vec<String>,
}

/// One place of an answer to several items: what it would be for one alone, or its error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ItemAnswer<T> {
    /// It was refused.
    Refused(WireError),
    /// It was done.
    Done(T),
}

impl<T> From<Result<T, WireError>> for ItemAnswer<T> {
    fn from(result: Result<T, WireError>) -> Self {
        match result {
            Ok(answer) => Self::Done(answer),
            Err(error) => Self::Refused(error),
        }
    }
}

impl<T> From<ItemAnswer<T>> for Result<T, WireError> {
    fn from(answer: ItemAnswer<T>) -> Self {
        match answer {
            ItemAnswer::Done(answer) => Ok(answer),
            ItemAnswer::Refused(error) => Err(error),
        }
    }
}

/// The answers to several items, in the order of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchAnswer<T> {
    /// One for each item.
    pub items: Vec<ItemAnswer<T>>,
}

/// `work.claim`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRequest {
    /// The agent that claims.
    pub guid: AgentGuid,
    /// What it claims.
    #[serde(flatten)]
    pub claim: ThenClaim,
}

/// What a claim asks for; also as `thenClaim` of a completion.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ThenClaim {
    /// The sender's name for this claim: the same one again gives the same items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<String>,
    /// Only these of the agent's capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// How many at the most; 1 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long to wait for the first, in milliseconds; 0 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Start the items at once: one write less.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub start: bool,
}

/// How long an agent may stay silent about an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The fence that every write must name.
    pub attempt: u32,
    /// When the lease ends if no progress is reported, on the coordinator's clock.
    pub expires_at: Timestamp,
    /// The same, from now.
    pub expires_in_ms: u64,
    /// The progress clock that applies.
    pub timeout_ms: u64,
}

/// An item and the lease on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimedItem {
    /// The item, with its bodies.
    pub work_item: WorkItem,
    /// The lease.
    pub lease: Lease,
}

/// The answer to a claim; empty when the wait was over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimAnswer {
    /// What was given.
    pub items: Vec<ClaimedItem>,
}

/// An item and an attempt: how a lease is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseRef {
    /// The item.
    pub id: WorkId,
    /// The attempt.
    pub attempt: u32,
}

/// `work.start` and `work.progress`; without `progress` and `message` it means "still alive".
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// The fence.
    pub attempt: u32,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<f64>,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// What it has used up so far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
}

/// A result as an agent reports it; a plain sentence is its summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

/// One finished item of a completion.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompleteItem {
    /// The item.
    pub id: WorkId,
    /// The fence.
    pub attempt: u32,
    /// What it came to.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_sentence_or_map"
    )]
    pub result: Option<ReportedResult>,
    /// What it used up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
}

/// `work.complete`: one item (`id`, `attempt`…) or `items`; then, if asked for, the next claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompleteRequest {
    /// The agent.
    pub guid: AgentGuid,
    /// The item, when it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<WorkId>,
    /// The fence, when it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// What it came to, when it is one.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_sentence_or_map"
    )]
    pub result: Option<ReportedResult>,
    /// What it used up, when it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// Several finished items.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub items: Option<Vec<CompleteItem>>,
    /// Claim the next in the same request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub then_claim: Option<ThenClaim>,
}

/// The answer to a completion: the item without its bodies, or several, and what was claimed next.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CompleteAnswer {
    /// To `items`.
    Many {
        /// One for each item.
        items: Vec<ItemAnswer<WorkItem>>,
        /// What `thenClaim` gave.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        claimed: Option<Vec<ClaimedItem>>,
    },
    /// To one item.
    One {
        /// The item.
        #[serde(flatten)]
        item: Box<WorkItem>,
        /// What `thenClaim` gave.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        claimed: Option<Vec<ClaimedItem>>,
    },
}

/// `work.fail`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// The fence.
    pub attempt: u32,
    /// What went wrong: a sentence or an object.
    #[serde(deserialize_with = "input::sentence_or_map")]
    pub error: ReportedError,
    /// Whether another attempt may help; yes where absent, here and in `error`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recoverable: Option<bool>,
    /// Which kind of failure; `agent-error` where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// Not to be offered again before, from now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// Whether it counts as an attempt; yes where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spends_attempt: Option<bool>,
}

/// `work.release`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// The fence.
    pub attempt: u32,
    /// Why; `released` where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// Not to be offered again before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_before: Option<Timestamp>,
}

/// `work.stopped`: the agent has obeyed a cancel directive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoppedRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// The fence.
    pub attempt: u32,
    /// What there was by then.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_sentence_or_map"
    )]
    pub result: Option<ReportedResult>,
}

/// A request that only names an item: `work.get`, `work.explain`. A prefix will do if it is unambiguous.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdRequest {
    /// The item, or the beginning of its id.
    pub id: String,
}

/// `work.cancel`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CancelRequest {
    /// The item, or the beginning of its id.
    pub id: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `work.list`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListWorkRequest {
    /// Only of this status, or of one of several (comma between them).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only of this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only of this boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// Only of this agent: its guid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_to: Option<String>,
    /// Only with this label: `name` or `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// At most so many; 50 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The answer to `work.explain`: who may take an item, and why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainAnswer {
    /// The item.
    pub id: WorkId,
    /// Where it stands.
    pub status: WorkStatus,
    /// One sentence.
    pub summary: String,
    /// How many items go before it, among those with the same needs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ahead: Option<usize>,
    /// Every agent, with the rule that rejected it.
    pub agents: Vec<AgentVerdict>,
    /// Every target, with the rule that rejected it.
    pub targets: Vec<serde_json::Value>,
}

/// Whether an agent may take an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentVerdict {
    /// The agent.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type.
    pub agent_type: String,
    /// Its status.
    pub status: AgentStatus,
    /// Whether it may take the item now.
    pub eligible: bool,
    /// The rule that rejected it: `capability boundary agent-type status slots held-off`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The same as a sentence.
    pub message: String,
}

/// The answer to `queue.info`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueInfo {
    /// The stream that takes published work in.
    pub stream: String,
    /// Messages in it that are not taken over yet.
    pub messages: u64,
    /// Pending items by capability.
    pub pending: BTreeMap<String, usize>,
    /// When the oldest pending item was submitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_pending: Option<Timestamp>,
}

/// `queue.purge`: cancels what is pending and matches.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PurgeRequest {
    /// Only of this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only of this boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
    /// Only with this label: `name` or `name=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The answer to `queue.purge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeAnswer {
    /// How many were cancelled.
    pub purged: usize,
}

/// A completion published to `loom.{p}.work.completed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompletedReport {
    /// The item.
    pub work_item_id: WorkId,
    /// Its task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task_id: Option<String>,
    /// The agent.
    pub agent_guid: AgentGuid,
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
    /// What it used up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
}

/// A failure published to `loom.{p}.work.errors`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorReport {
    /// The item.
    pub work_item_id: WorkId,
    /// Its task.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task_id: Option<String>,
    /// The agent.
    pub agent_guid: AgentGuid,
    /// The fence; as in a [`CompletedReport`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// What went wrong.
    #[serde(deserialize_with = "input::sentence_or_map")]
    pub error: ReportedError,
    /// Which kind of failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoding;
    use serde_json::json;

    #[test]
    fn errors_and_results_may_be_sentences() {
        let id = WorkId::generate();
        let guid = AgentGuid::generate();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let payload = encoding
                .encode(&json!({"id": id, "guid": guid, "attempt": 1, "error": "no disk"}))
                .unwrap();
            let fail: FailRequest = encoding.decode(&payload).unwrap();
            assert_eq!(fail.error.message, "no disk");

            let payload = encoding
                .encode(
                    &json!({"id": id, "guid": guid, "attempt": 1, "result": {"output": {"n": 1}}}),
                )
                .unwrap();
            let complete: CompleteRequest = encoding.decode(&payload).unwrap();
            let output = complete.result.unwrap().output.unwrap();
            assert_eq!(output.as_bytes().as_ref(), br#"{"n":1}"#);
        }
    }

    #[test]
    fn a_claim_reads_flat() {
        let guid = AgentGuid::generate();
        let claim: ClaimRequest =
            serde_json::from_value(json!({"guid": guid, "waitMs": 10, "max": 2, "start": true}))
                .unwrap();
        assert_eq!(
            (claim.claim.wait_ms, claim.claim.max, claim.claim.start),
            (Some(10), Some(2), true)
        );
    }

    #[test]
    fn one_bad_priority_does_not_spoil_an_array() {
        let request: SubmitRequest =
            serde_json::from_value(json!({"items": [{"priority": 5.5}, {"priority": 5}]})).unwrap();
        assert_eq!(request.items.unwrap().len(), 2);
    }
}
