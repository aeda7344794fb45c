//! How a record is stored: a version byte, then MessagePack without field names.
//!
//! New fields are added at the end of [`Stored`] with `#[serde(default)]`, so that an older record
//! still reads. A change that this cannot express gets a new version byte.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use loom_protocol::work::{
    CancelInfo, Evidence, Reason, Session, Usage, WorkErrorInfo, WorkResult, WorkStatus,
};
use loom_protocol::{AgentGuid, Body, Timestamp, WorkId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{
    EndedLease, Holder, LeaseEnd, LeaseRecord, Loss, RawSubmission, WorkRecord, WriteId,
};

const VERSION: u8 = 1;
/// No version of Loom goes beyond it: a record that begins with more is no record.
const MOST_VERSIONS: u8 = 31;

/// A record that cannot be read; it is quarantined, never a reason to crash.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Nothing there.
    #[error("the record is empty")]
    Empty,
    /// Written by a later Loom.
    #[error("the record has version {0}, and this Loom reads version {VERSION}; use a newer Loom")]
    Version(u8),
    /// Not what was expected.
    #[error("the record is damaged: {0}")]
    Damaged(String),
}

/// Writes a record.
pub fn encode(record: &WorkRecord) -> Result<Bytes, RecordError> {
    let rare = Rare {
        errors: Cow::Borrowed(&record.errors),
        cancel: record.cancel.as_ref().map(Cow::Borrowed),
        usage: record.usage.as_ref().map(Cow::Borrowed),
        dead_letter: record.dead_letter,
        retries: record.retries,
        auto_retries: record.auto_retries,
        raw: record.raw.as_ref().map(|raw| Raw(raw.bytes.clone())),
        raw_size: record.raw.as_ref().map_or(0, |raw| raw.size),
        releases: record.releases,
        has_run: record.has_run,
        loss: record.loss.as_ref().map(StoredLoss::from),
        parent_id: record.parent_id,
        usage_before: record.usage_before.as_ref().map(Cow::Borrowed),
        session: record.session.as_ref().map(Cow::Borrowed),
        evidence: Cow::Borrowed(&record.evidence),
    };
    let mut stored = Stored::from(record);
    if rare != Rare::default() {
        stored.rare = Some(Raw(rmp_serde::to_vec_named(&rare).map_err(damaged)?.into()));
    }
    let mut bytes = Vec::with_capacity(256 + record.description.len());
    bytes.push(VERSION);
    rmp_serde::encode::write(&mut bytes, &stored).map_err(damaged)?;
    Ok(bytes.into())
}

fn damaged(error: impl std::fmt::Display) -> RecordError {
    RecordError::Damaged(error.to_string())
}

/// Reads a record.
pub fn decode(bytes: &[u8]) -> Result<WorkRecord, RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&VERSION, rest)) => {
            let mut stored: Stored = rmp_serde::from_slice(rest).map_err(damaged)?;
            let rare: Rare = match stored.rare.take() {
                Some(Raw(bytes)) => rmp_serde::from_slice(&bytes).map_err(damaged)?,
                None => Rare::default(),
            };
            Ok(WorkRecord {
                errors: rare.errors.into_owned(),
                cancel: rare.cancel.map(Cow::into_owned),
                usage: rare.usage.map(Cow::into_owned),
                dead_letter: rare.dead_letter,
                retries: rare.retries,
                auto_retries: rare.auto_retries,
                raw: rare.raw.map(|Raw(bytes)| RawSubmission {
                    bytes,
                    size: rare.raw_size,
                }),
                releases: rare.releases,
                has_run: rare.has_run,
                loss: rare.loss.map(Loss::from),
                parent_id: rare.parent_id,
                usage_before: rare.usage_before.map(Cow::into_owned),
                session: rare.session.map(Cow::into_owned),
                evidence: rare.evidence.into_owned(),
                ..WorkRecord::from(stored)
            })
        }
        Some((&version @ ..=MOST_VERSIONS, _)) => Err(RecordError::Version(version)),
        Some((&first, _)) => Err(RecordError::Damaged(format!(
            "it begins with the byte {first}, and Loom has not written it"
        ))),
    }
}

/// Bytes that MessagePack stores as they are.
#[derive(Debug, Clone, PartialEq)]
struct Raw(Bytes);

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

type Millis = i64;

#[derive(PartialEq, Serialize, Deserialize)]
struct StoredLease<'a> {
    guid: Uuid,
    handle: Cow<'a, str>,
    agent_type: Cow<'a, str>,
    hostname: Option<Cow<'a, str>>,
    claim_id: Option<Cow<'a, str>>,
    assigned_at: Millis,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct StoredLoss<'a> {
    lease: StoredLease<'a>,
    started_at: Option<Millis>,
    attempts: u32,
    unstarted_returns: u8,
    releases: u8,
}

#[derive(Serialize, Deserialize)]
struct StoredResult<'a> {
    summary: Option<Cow<'a, str>>,
    output: Option<Raw>,
    artifacts: Option<Raw>,
    completed_at: Millis,
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    id: Uuid,
    task_id: Cow<'a, str>,
    capability: Cow<'a, str>,
    boundary: Cow<'a, str>,
    description: Cow<'a, str>,
    priority: u8,
    labels: Cow<'a, BTreeMap<String, String>>,
    status: WorkStatus,
    attempt: u32,
    attempts: u32,
    max_attempts: u32,
    offered_by: Cow<'a, str>,
    offered_at: Millis,
    preferred_agent_type: Option<Cow<'a, str>>,
    required_agent_type: Option<Cow<'a, str>>,
    deadline: Option<Millis>,
    not_before: Option<Millis>,
    timeout_ms: Option<u64>,
    context_data: Option<Raw>,
    created: u64,
    epoch: u64,
    counter: u64,
    lease: Option<StoredLease<'a>>,
    ended_lease: Option<(Uuid, u32, u8)>,
    /// In records of 0.1.0 the releases are in it too: nobody knows which was which, and as returns
    /// that were never started they are forgotten at the next start.
    unstarted_returns: u8,
    started_at: Option<Millis>,
    progress: Option<f64>,
    progress_message: Option<Cow<'a, str>>,
    pending_reason: Option<Reason>,
    result: Option<StoredResult<'a>>,
    /// [`Rare`], with field names: its parts are types of the wire, which leave fields out.
    rare: Option<Raw>,
    updated_at: Millis,
}

/// What few records have. Fields may be added: an older record does not have them, and an older
/// Loom passes over them.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Rare<'a> {
    errors: Cow<'a, [WorkErrorInfo]>,
    cancel: Option<Cow<'a, CancelInfo>>,
    /// Of the last attempt.
    usage: Option<Cow<'a, Usage>>,
    dead_letter: Option<u64>,
    retries: u32,
    auto_retries: u32,
    raw: Option<Raw>,
    raw_size: u64,
    releases: u8,
    has_run: bool,
    loss: Option<StoredLoss<'a>>,
    parent_id: Option<WorkId>,
    usage_before: Option<Cow<'a, Usage>>,
    session: Option<Cow<'a, Session>>,
    evidence: Cow<'a, [Evidence]>,
}

const fn end_code(end: LeaseEnd) -> u8 {
    match end {
        LeaseEnd::Completed => 0,
        LeaseEnd::Failed => 1,
        LeaseEnd::Released => 2,
        LeaseEnd::Revoked => 3,
    }
}

const fn end_of_code(code: u8) -> LeaseEnd {
    match code {
        0 => LeaseEnd::Completed,
        1 => LeaseEnd::Failed,
        2 => LeaseEnd::Released,
        _ => LeaseEnd::Revoked,
    }
}

fn text(value: &str) -> Cow<'_, str> {
    Cow::Borrowed(value)
}

fn maybe_text(value: Option<&String>) -> Option<Cow<'_, str>> {
    value.map(|value| Cow::Borrowed(value.as_str()))
}

fn raw(body: Option<&Body>) -> Option<Raw> {
    body.map(|body| Raw(body.as_bytes().clone()))
}

fn owned(value: Option<Cow<'_, str>>) -> Option<String> {
    value.map(Cow::into_owned)
}

fn body(raw: Option<Raw>) -> Option<Body> {
    raw.map(|Raw(bytes)| Body::trusted(bytes))
}

fn millis(time: Option<Timestamp>) -> Option<Millis> {
    time.map(Timestamp::as_millis)
}

fn time(millis: Option<Millis>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}

impl<'a> From<&'a LeaseRecord> for StoredLease<'a> {
    fn from(lease: &'a LeaseRecord) -> Self {
        Self {
            guid: lease.holder.guid.uuid(),
            handle: text(&lease.holder.handle),
            agent_type: text(&lease.holder.agent_type),
            hostname: maybe_text(lease.holder.hostname.as_ref()),
            claim_id: maybe_text(lease.claim_id.as_ref()),
            assigned_at: lease.assigned_at.as_millis(),
        }
    }
}

impl From<StoredLease<'_>> for LeaseRecord {
    fn from(lease: StoredLease<'_>) -> Self {
        Self {
            holder: Holder {
                guid: AgentGuid::new(lease.guid),
                handle: lease.handle.into_owned(),
                agent_type: lease.agent_type.into_owned(),
                hostname: owned(lease.hostname),
            },
            claim_id: owned(lease.claim_id),
            assigned_at: Timestamp::from_millis(lease.assigned_at),
        }
    }
}

impl<'a> From<&'a Loss> for StoredLoss<'a> {
    fn from(loss: &'a Loss) -> Self {
        Self {
            lease: StoredLease::from(&loss.lease),
            started_at: millis(loss.started_at),
            attempts: loss.attempts,
            unstarted_returns: loss.unstarted_returns,
            releases: loss.releases,
        }
    }
}

impl From<StoredLoss<'_>> for Loss {
    fn from(loss: StoredLoss<'_>) -> Self {
        Self {
            lease: loss.lease.into(),
            started_at: time(loss.started_at),
            attempts: loss.attempts,
            unstarted_returns: loss.unstarted_returns,
            releases: loss.releases,
        }
    }
}

impl<'a> From<&'a WorkRecord> for Stored<'a> {
    fn from(record: &'a WorkRecord) -> Self {
        Self {
            id: record.id.uuid(),
            task_id: text(&record.task_id),
            capability: text(&record.capability),
            boundary: text(&record.boundary),
            description: text(&record.description),
            priority: record.priority,
            labels: Cow::Borrowed(&record.labels),
            status: record.status,
            attempt: record.attempt,
            attempts: record.attempts,
            max_attempts: record.max_attempts,
            offered_by: text(&record.offered_by),
            offered_at: record.offered_at.as_millis(),
            preferred_agent_type: maybe_text(record.preferred_agent_type.as_ref()),
            required_agent_type: maybe_text(record.required_agent_type.as_ref()),
            deadline: millis(record.deadline),
            not_before: millis(record.not_before),
            timeout_ms: record.timeout_ms,
            context_data: raw(record.context_data.as_ref()),
            created: record.created,
            epoch: record.write_id.epoch,
            counter: record.write_id.counter,
            lease: record.lease.as_ref().map(StoredLease::from),
            ended_lease: record
                .ended_lease
                .as_ref()
                .map(|ended| (ended.guid.uuid(), ended.attempt, end_code(ended.end))),
            unstarted_returns: record.unstarted_returns,
            started_at: millis(record.started_at),
            progress: record.progress,
            progress_message: maybe_text(record.progress_message.as_ref()),
            pending_reason: record.pending_reason,
            result: record.result.as_ref().map(|result| StoredResult {
                summary: maybe_text(result.summary.as_ref()),
                output: raw(result.output.as_ref()),
                artifacts: raw(result.artifacts.as_ref()),
                completed_at: result.completed_at.as_millis(),
            }),
            rare: None,
            updated_at: record.updated_at.as_millis(),
        }
    }
}

impl From<Stored<'_>> for WorkRecord {
    fn from(stored: Stored<'_>) -> Self {
        Self {
            id: WorkId::new(stored.id),
            task_id: stored.task_id.into_owned(),
            parent_id: None,
            capability: stored.capability.into_owned(),
            boundary: stored.boundary.into_owned(),
            description: stored.description.into_owned(),
            priority: stored.priority,
            labels: stored.labels.into_owned(),
            status: stored.status,
            attempt: stored.attempt,
            attempts: stored.attempts,
            max_attempts: stored.max_attempts,
            offered_by: stored.offered_by.into_owned(),
            offered_at: Timestamp::from_millis(stored.offered_at),
            preferred_agent_type: owned(stored.preferred_agent_type),
            required_agent_type: owned(stored.required_agent_type),
            deadline: time(stored.deadline),
            not_before: time(stored.not_before),
            timeout_ms: stored.timeout_ms,
            context_data: body(stored.context_data),
            created: stored.created,
            write_id: WriteId {
                epoch: stored.epoch,
                counter: stored.counter,
            },
            lease: stored.lease.map(LeaseRecord::from),
            ended_lease: stored.ended_lease.map(|(id, attempt, end)| EndedLease {
                guid: AgentGuid::new(id),
                attempt,
                end: end_of_code(end),
            }),
            unstarted_returns: stored.unstarted_returns,
            started_at: time(stored.started_at),
            progress: stored.progress,
            progress_message: owned(stored.progress_message),
            pending_reason: stored.pending_reason,
            result: stored.result.map(|result| WorkResult {
                summary: owned(result.summary),
                output: body(result.output),
                artifacts: body(result.artifacts),
                completed_at: Timestamp::from_millis(result.completed_at),
            }),
            errors: Vec::new(),
            cancel: None,
            usage: None,
            usage_before: None,
            session: None,
            evidence: Vec::new(),
            dead_letter: None,
            retries: 0,
            auto_retries: 0,
            raw: None,
            releases: 0,
            has_run: false,
            loss: None,
            updated_at: Timestamp::from_millis(stored.updated_at),
        }
    }
}

#[cfg(test)]
mod tests;
