//! `work.submit`: one item or several.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::error::WireError;
use crate::id::WorkId;
use crate::time::Timestamp;

/// Fields of a submit that are refused until they work, never ignored.
pub const RESERVED_FIELDS: [&str; 4] = ["dependsOn", "group", "budget", "review"];

/// `work.submit`: one item, or `items` and nothing else.
///
/// Fields that a sender may get wrong are taken as they come and checked later, so that one bad
/// item of an array is answered by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
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
    /// The item in the course of which it is submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
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
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::input::items"
    )]
    pub items: Option<Vec<SubmitRequest>>,
}

/// The answer to one submitted item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SubmitAnswer {
    /// The item's id.
    pub id: WorkId,
    /// The same.
    pub work_item_id: WorkId,
    /// Its task.
    pub task_id: String,
    /// The agent type that will take it: the required or the preferred one, else that of an agent that may take it,
    /// else `claude-code`.
    pub target_agent_type: String,
    /// Whether an agent is being started for it.
    pub spin_up_triggered: bool,
    /// A guess at the wait for an agent, in seconds: what items have lately waited, 30 where none has been claimed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub estimated_wait_seconds: Option<u64>,
    /// Whether an item of this id was there already; the submission changed nothing then.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub existing: bool,
    /// Fields of the submission that nobody reads: the first few, long names cut.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ignored: Vec<String>,
    /// How many more such fields there are than `ignored` names.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub ignored_more: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One place of an answer to several items: what it would be for one alone, or its error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
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

/// What a submission came to: one answer, or one for each of `items`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Submitted {
    /// To one item.
    One(SubmitAnswer),
    /// To several.
    Many {
        /// One for each, in order.
        items: Vec<ItemAnswer<SubmitAnswer>>,
    },
}

/// The answers to several items, in the order of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct BatchAnswer<T> {
    /// One for each item.
    pub items: Vec<ItemAnswer<T>>,
}
