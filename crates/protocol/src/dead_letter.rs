//! Dead letters: work that was given up, with its whole story, and the requests about it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounded::AtMost;
use crate::id::{AgentGuid, WorkId};
use crate::time::Timestamp;
use crate::work::{Reason, WorkErrorInfo, WorkItem, limits};

/// How many ids and errors the answer to one retry names; `retried` and `failed` count them all.
pub const NAMED: usize = 1_000;

/// Work that was given up: one per failed item, under `loom.{p}.dlq.{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The item.
    pub id: WorkId,
    /// The item as it failed. Listings omit `contextData`; the errors stand in `errors`.
    pub work_item: WorkItem,
    /// Why it failed.
    pub reason: Reason,
    /// How many attempts were spent.
    pub attempts: u32,
    /// When it failed.
    pub failed_at: Timestamp,
    /// The errors of the last attempts, oldest first, with the agent of each.
    #[serde(default)]
    pub errors: Vec<WorkErrorInfo>,
    /// The agent that had it last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_agent_guid: Option<AgentGuid>,
    /// How often it was put back from the dead letters before.
    #[serde(default)]
    pub retries: u32,
    /// How often the schedule did so since somebody did it by hand.
    #[serde(default)]
    pub auto_retries: u32,
    /// Of a published submission that was refused: what was published. Listings omit it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub submission: Option<RefusedSubmission>,
}

/// A published submission that was refused, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct RefusedSubmission {
    /// How many bytes were published.
    pub size: u64,
    /// The bytes; fewer than `size` where a stored message cannot hold all.
    pub base64: RawBytes,
}

/// Bytes that are nothing in particular: base64 in JSON, as they are in MessagePack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawBytes(pub Bytes);

impl Serialize for RawBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for RawBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = RawBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64, or bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawBytes, E> {
                let bytes = STANDARD.decode(text).map_err(E::custom)?;
                Ok(RawBytes(bytes.into()))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RawBytes, E> {
                Ok(RawBytes(Bytes::copy_from_slice(bytes)))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Either)
        } else {
            deserializer.deserialize_bytes(Either)
        }
    }
}

/// `dlq.list`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ListDeadLettersRequest {
    /// Only of this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only of this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// At most so many; 50 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// `asc`: oldest first, as where it is absent; `desc`: newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Only of items that failed then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// `dlq.retry`: one letter by its id, or those that a filter names, or all.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct RetryRequest {
    /// The letter, or the beginning of its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Those of this capability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Those of this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// All of them. A request that names nothing is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Refused: several are named over REST only, and are not to be passed over in silence beside `all`.
    #[serde(skip_serializing)]
    pub ids: AtMost<{ limits::ITEMS }, String>,
    /// Whether the spent attempts are forgotten; otherwise one more is given.
    pub reset_attempts: bool,
}

impl Default for RetryRequest {
    fn default() -> Self {
        Self {
            id: None,
            capability: None,
            reason: None,
            all: false,
            ids: AtMost::default(),
            reset_attempts: true,
        }
    }
}

/// The answer to `dlq.retry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RetryAnswer {
    /// How many are back in the queue.
    pub retried: usize,
    /// Their ids, the first [`NAMED`].
    pub ids: Vec<WorkId>,
    /// How many are not.
    pub failed: usize,
    /// Why not, for the first [`NAMED`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub errors: BTreeMap<WorkId, String>,
}

/// The answer to `dlq.discard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct DiscardAnswer {
    /// The letter that is no more.
    pub id: WorkId,
    /// It is not there.
    pub discarded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Encoding;

    #[test]
    fn raw_bytes_survive_both_encodings() {
        let bytes: Vec<u8> = (0..=255).collect();
        let submission = RefusedSubmission {
            size: 256,
            base64: RawBytes(bytes.into()),
        };
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let sent = encoding.encode(&submission).unwrap();
            let back: RefusedSubmission = encoding.decode(&sent).unwrap();
            assert_eq!(back, submission);
        }
    }

    #[test]
    fn an_empty_retry_names_nothing_and_resets_attempts() {
        let request: RetryRequest = Encoding::Json.decode(b"{}").unwrap();
        assert!(request.reset_attempts && !request.all && request.id.is_none());
    }
}
