//! What an agent asks and says about the items that it holds.

use serde::{Deserialize, Serialize};

use super::evidence::ReportedEvidence;
use super::item::WorkItem;
use super::reason::Reason;
use super::report::{ReportedError, ReportedResult};
use super::session::Session;
use super::usage::Usage;
use super::{input, limits};
use crate::id::{AgentGuid, WorkId};
use crate::time::Timestamp;

/// `work.claim`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClaimRequest {
    /// The agent that claims.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// What it claims.
    #[serde(flatten)]
    pub claim: ThenClaim,
}

/// What a claim asks for; also as `thenClaim` of a completion.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ThenClaim {
    /// The sender's name for this claim: the same one again gives the same items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<String>,
    /// Only these of the agent's capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// How many at the most; where absent 1, or as many as `resume` names. 0 beside `resume`: only those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long to wait for the first, in milliseconds; 0 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Start the items at once: one write less.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub start: bool,
    /// Leases of this agent that were taken back while it was away: it has their items again, as new
    /// attempts and before anything else, where nobody has had them since.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "input::optional_objects::<{ limits::COMPLETIONS }, _, _>"
    )]
    pub resume: Option<Vec<LeaseRef>>,
}

/// How long an agent may stay silent about an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
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
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClaimedItem {
    /// The item, with its bodies.
    pub work_item: WorkItem,
    /// The lease.
    pub lease: Lease,
}

/// The answer to a claim; empty when the wait was over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct ClaimAnswer {
    /// What was given.
    pub items: Vec<ClaimedItem>,
}

/// An item and an attempt: how a lease is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct LeaseRef {
    /// The item.
    pub id: WorkId,
    /// The attempt.
    pub attempt: u32,
}

/// `work.start` and `work.progress`; without `progress` and `message` it means "still alive".
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProgressRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The fence.
    pub attempt: u32,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<f64>,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// What this attempt has used up so far, all in all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which it is worked on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
}

/// One finished item of a completion.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
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
    /// What this attempt has used up, all in all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which it is worked on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
    /// What was checked.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_objects::<{ limits::ITEMS }, _, _>"
    )]
    pub evidence: Option<Vec<ReportedEvidence>>,
}

/// `work.complete`: one item (`id`, `attempt`…) or `items`; then, if asked for, the next claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CompleteRequest {
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
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
    /// What this attempt has used up, all in all, when it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which it is worked on, when it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
    /// What was checked, when it is one.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_objects::<{ limits::ITEMS }, _, _>"
    )]
    pub evidence: Option<Vec<ReportedEvidence>>,
    /// Several finished items.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_objects::<{ limits::COMPLETIONS }, _, _>"
    )]
    pub items: Option<Vec<CompleteItem>>,
    /// Claim the next in the same request.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_object"
    )]
    pub then_claim: Option<ThenClaim>,
}

/// `work.fail`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FailRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The fence.
    pub attempt: u32,
    /// What went wrong: a sentence or an object.
    #[serde(deserialize_with = "input::sentence_or_map")]
    pub error: ReportedError,
    /// Whether another attempt may help; yes where absent, here and in `error`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recoverable: Option<bool>,
    /// Which kind of failure, one of [`Reason::OF_FAILURE`]; `agent-error` where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// Not to be offered again before, from now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
    /// Whether it counts as an attempt; where absent yes, unless the reason is `usage-limit`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spends_attempt: Option<bool>,
    /// What this attempt has used up, all in all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which it is worked on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
    /// What was checked.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_objects::<{ limits::ITEMS }, _, _>"
    )]
    pub evidence: Option<Vec<ReportedEvidence>>,
}

/// `work.release`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The fence.
    pub attempt: u32,
    /// Why, one of [`Reason::OF_RELEASE`]; `released` where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Reason>,
    /// The same in words: kept among the item's errors.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// Not to be offered again before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_before: Option<Timestamp>,
    /// With `usage-limit`, `outage` and `account`: until when the agent is paused, where that is not `notBefore`; others
    /// may have the item at once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pause_until: Option<Timestamp>,
    /// What this attempt has used up, all in all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which it is worked on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
}

/// `work.stopped`: the agent has obeyed a cancel directive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StoppedRequest {
    /// The item.
    pub id: WorkId,
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it registered with that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance_id: Option<String>,
    /// The fence.
    pub attempt: u32,
    /// What there was by then; kept as the item's result, within the limit of a completion's.
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        deserialize_with = "input::optional_sentence_or_map"
    )]
    pub result: Option<ReportedResult>,
    /// What this attempt has used up, all in all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// The conversation in which it is worked on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<Session>,
}

#[cfg(test)]
mod tests {
    use super::super::submit::SubmitRequest;
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
    fn fields_have_names_in_lists_too() {
        let (id, guid) = (WorkId::generate(), AgentGuid::generate());
        for request in [
            json!({"guid": guid, "items": [[id, 1]]}),
            json!({"guid": guid, "id": id, "attempt": 1, "thenClaim": ["c", null, 1]}),
        ] {
            for encoding in [Encoding::Json, Encoding::MessagePack] {
                let payload = encoding.encode(&request).unwrap();
                let error = encoding.decode_request::<CompleteRequest>(&payload);
                let error = error.unwrap_err().to_string();
                assert!(error.contains("an object with named fields"), "{error}");
            }
        }
        assert!(serde_json::from_value::<SubmitRequest>(json!({"items": [["d", "c"]]})).is_err());
    }

    #[test]
    fn one_bad_priority_does_not_spoil_an_array() {
        let request: SubmitRequest =
            serde_json::from_value(json!({"items": [{"priority": 5.5}, {"priority": 5}]})).unwrap();
        assert_eq!(request.items.unwrap().len(), 2);
    }
}
