//! One item of the ledger, complete.

use std::collections::BTreeMap;

use bytes::Bytes;
use loom_protocol::work::{
    AssignedAgent, CancelInfo, Evidence, PRIORITY, Reason, Session, Usage, WorkErrorInfo,
    WorkResult, WorkStatus,
};
use loom_protocol::{AgentGuid, Body, Timestamp, WorkId};

/// Which write of which coordinator a record is: tells my write from another's after a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteId {
    /// The owner's epoch.
    pub epoch: u64,
    /// Counts the writes of that owner.
    pub counter: u64,
}

/// The agent that claimed an item, as it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub guid: AgentGuid,
    /// Its name.
    pub handle: String,
    /// Its type.
    pub agent_type: String,
    /// Where it runs.
    pub hostname: Option<String>,
}

impl Holder {
    pub(super) fn to_wire(&self) -> AssignedAgent {
        AssignedAgent {
            guid: self.guid,
            handle: self.handle.clone(),
            agent_type: self.agent_type.clone(),
            hostname: self.hostname.clone(),
        }
    }
}

/// The present lease, or the last one of an ended item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Who holds it.
    pub holder: Holder,
    /// The agent's name for the claim.
    pub claim_id: Option<String>,
    /// When it was given.
    pub assigned_at: Timestamp,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// By a completion.
    Completed,
    /// By a reported failure.
    Failed,
    /// By a release.
    Released,
    /// Taken back by the coordinator.
    Revoked,
}

/// The lease before the present one: a repeated report of its end gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedLease {
    /// Who held it.
    pub guid: AgentGuid,
    /// Its fence.
    pub attempt: u32,
    /// How it ended.
    pub end: LeaseEnd,
}

/// A lease that the coordinator took back, of an item that nobody has had since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The lease.
    pub lease: LeaseRecord,
    /// When the agent had started.
    pub started_at: Option<Timestamp>,
    /// How many attempts had been spent before.
    pub attempts: u32,
    /// How many returns had been counted that were never started.
    pub unstarted_returns: u8,
    /// How many releases had been counted.
    pub releases: u8,
}

/// A published message that was refused, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSubmission {
    /// Its bytes; of more than a record can hold, the first.
    pub bytes: Bytes,
    /// How many there were.
    pub size: u64,
}

/// One item of the ledger. Its fields mean what they mean in
/// [`WorkItem`](loom_protocol::work::WorkItem); changed only by the verbs in `transition`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "documented in loom_protocol::work::WorkItem")]
pub struct WorkRecord {
    pub id: WorkId,
    pub task_id: String,
    pub parent_id: Option<WorkId>,
    pub capability: String,
    pub boundary: String,
    pub description: String,
    pub priority: u8,
    pub labels: BTreeMap<String, String>,
    pub status: WorkStatus,
    pub attempt: u32,
    pub attempts: u32,
    pub max_attempts: u32,
    pub offered_by: String,
    pub offered_at: Timestamp,
    pub preferred_agent_type: Option<String>,
    pub required_agent_type: Option<String>,
    pub deadline: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
    pub timeout_ms: Option<u64>,
    pub context_data: Option<Body>,
    /// The sequence of the write that created it; 0 in that write itself, which cannot know it.
    pub created: u64,
    pub write_id: WriteId,
    pub lease: Option<LeaseRecord>,
    pub ended_lease: Option<EndedLease>,
    /// What its last agent may still complete, or have again.
    pub loss: Option<Loss>,
    /// Returns since the last start whose attempts were never started, see
    /// [`FREE_RETURNS`](super::FREE_RETURNS).
    pub unstarted_returns: u8,
    /// Returns without a spent attempt by an agent, since the last retry; the same number of them is free.
    pub releases: u8,
    /// Whether an agent ever started it.
    pub has_run: bool,
    pub started_at: Option<Timestamp>,
    pub progress: Option<f64>,
    pub progress_message: Option<String>,
    pub pending_reason: Option<Reason>,
    pub result: Option<WorkResult>,
    pub errors: Vec<WorkErrorInfo>,
    pub cancel: Option<CancelInfo>,
    /// What the present or last attempt has used up; one that was resumed counts on.
    pub usage: Option<Usage>,
    /// What all attempts before it have used up together.
    pub usage_before: Option<Usage>,
    pub session: Option<Session>,
    pub evidence: Vec<Evidence>,
    /// Of a failed item: the sequence of its dead letter. Without it the letter is still to be written.
    pub dead_letter: Option<u64>,
    /// How often it was put back from the dead letters.
    pub retries: u32,
    /// How often the schedule did so since somebody did it by hand.
    pub auto_retries: u32,
    /// Of a refused submission: what there was instead of an item.
    pub raw: Option<RawSubmission>,
    pub updated_at: Timestamp,
}

impl WorkRecord {
    /// A pending item of normal priority that says nothing yet.
    pub fn blank(
        id: WorkId,
        offered_by: &str,
        now: Timestamp,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let (_, usual_priority, _) = PRIORITY;
        Self {
            id,
            task_id: String::new(),
            parent_id: None,
            capability: String::new(),
            boundary: String::new(),
            description: String::new(),
            priority: usual_priority,
            labels,
            status: WorkStatus::Pending,
            attempt: 0,
            attempts: 0,
            max_attempts: 1,
            offered_by: offered_by.into(),
            offered_at: now,
            preferred_agent_type: None,
            required_agent_type: None,
            deadline: None,
            not_before: None,
            timeout_ms: None,
            context_data: None,
            created: 0,
            write_id: WriteId::default(),
            lease: None,
            ended_lease: None,
            loss: None,
            unstarted_returns: 0,
            releases: 0,
            has_run: false,
            started_at: None,
            progress: None,
            progress_message: None,
            pending_reason: None,
            result: None,
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
            updated_at: now,
        }
    }

    /// The creation sequence, given the sequence that this record was read at.
    pub const fn created_at_sequence(&self, revision: u64) -> u64 {
        if self.created == 0 {
            revision
        } else {
            self.created
        }
    }
}
