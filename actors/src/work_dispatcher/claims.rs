//! The open claims: who waits, for what, and who is asked first when an item comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use loom_protocol::work::LeaseRef;
use loom_protocol::{AgentGuid, ErrorCode, WireError, WorkId};
use parking_lot::Mutex;
use ractor::RpcReplyPort;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::queue::FilterRef;
use crate::liveness::InFlightGuard;
use crate::work_ledger::{Applied, LedgerError, Requirements};

/// How many claims may wait at a time.
const MAX_PARKED: usize = 50_000;

/// What a request holds until it has been applied: the permit of the door that let it in, and its
/// ticket for the barrier. A claim gives both back when it waits: until then claims on their way to
/// the dispatcher are bounded as all requests are. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<Mutex<Option<(OwnedSemaphorePermit, InFlightGuard)>>>);

impl Admission {
    /// Of a request that was let in just now.
    pub fn new(permit: OwnedSemaphorePermit, ticket: InFlightGuard) -> Self {
        Self(Arc::new(Mutex::new(Some((permit, ticket)))))
    }

    /// Gives both back: waiting claims have a bound of their own.
    pub(super) fn give_back(&self) {
        self.0.lock().take();
    }
}

/// A claim as an agent makes it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The agent.
    pub guid: AgentGuid,
    /// Which run of it, if it says so.
    pub instance_id: Option<String>,
    /// Its name for the claim: the same again gives the same items.
    pub claim_id: String,
    /// Only these of its capabilities.
    pub capabilities: Option<Vec<String>>,
    /// How many at the most.
    pub max: usize,
    /// Until when to wait for the first; `None`: not at all.
    pub wait_until: Option<Instant>,
    /// Start at once what is given.
    pub start: bool,
    /// Leases that were taken from the agent: it wants their items again, before anything else.
    pub resume: Vec<LeaseRef>,
    /// What it holds until it waits.
    pub admission: Admission,
}

/// Why a claim gets an error instead of items.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClaimError {
    /// There is no such agent.
    #[error("agent {0} is not registered; register it, then claim again")]
    NotRegistered(AgentGuid),
    /// Another run of the agent has registered since.
    #[error(transparent)]
    Run(Box<WireError>),
    /// Too many claims wait.
    #[error("{MAX_PARKED} claims are waiting already; claim again later")]
    Overloaded,
    /// The ledger cannot write it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<ClaimError> for WireError {
    fn from(error: ClaimError) -> Self {
        let text = error.to_string();
        match error {
            ClaimError::NotRegistered(_) => Self::new(ErrorCode::NotRegistered, text),
            ClaimError::Run(error) => *error,
            ClaimError::Overloaded => Self::overloaded(text, std::time::Duration::from_secs(1)),
            ClaimError::Ledger(error) => error.into(),
        }
    }
}

/// What a claim comes to.
pub type ClaimOutcome = Result<Vec<Applied>, ClaimError>;

/// A claim that has not been answered.
pub(super) struct OpenClaim {
    pub order: Claim,
    pub reply: RpcReplyPort<ClaimOutcome>,
    pub wants: ClaimFilter,
}

/// What an agent can be given, as of the time when its claim was filled or parked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClaimFilter {
    pub agent_type: String,
    pub capabilities: Vec<String>,
    pub boundaries: Vec<String>,
}

impl ClaimFilter {
    pub fn as_wants(&self) -> FilterRef<'_> {
        FilterRef {
            agent_type: &self.agent_type,
            capabilities: &self.capabilities,
            boundaries: &self.boundaries,
        }
    }
}

type ByType = HashMap<String, BTreeSet<u64>>;

/// All open claims.
#[derive(Default)]
pub(super) struct Claims {
    open: BTreeMap<u64, OpenClaim>,
    count: u64,
    parked: HashMap<AgentGuid, u64>,
    filling: HashMap<(AgentGuid, String), u64>,
    /// Parked claims with a free slot: capability → boundary → agent type → claims, oldest first.
    listening: HashMap<String, HashMap<String, ByType>>,
}

impl Claims {
    pub fn open(&mut self, claim: OpenClaim) -> u64 {
        self.count += 1;
        self.open.insert(self.count, claim);
        self.count
    }

    pub fn get(&self, claim: u64) -> Option<&OpenClaim> {
        self.open.get(&claim)
    }

    /// Takes a claim out, to answer it.
    pub fn close(&mut self, claim: u64) -> Option<OpenClaim> {
        self.stop_listening(claim);
        let closed = self.open.remove(&claim)?;
        let guid = closed.order.guid;
        if self.parked.get(&guid) == Some(&claim) {
            self.parked.remove(&guid);
        }
        let name = (guid, closed.order.claim_id.clone());
        if self.filling.get(&name) == Some(&claim) {
            self.filling.remove(&name);
        }
        Some(closed)
    }

    /// The open claim that an agent calls by this name.
    pub fn named(&self, guid: AgentGuid, claim_id: &str) -> Option<u64> {
        let parked = self.parked_of(guid).filter(|claim| {
            self.open
                .get(claim)
                .is_some_and(|open| open.order.claim_id == claim_id)
        });
        parked.or_else(|| self.filling.get(&(guid, claim_id.to_owned())).copied())
    }

    pub fn parked_of(&self, guid: AgentGuid) -> Option<u64> {
        self.parked.get(&guid).copied()
    }

    /// Assignments for this claim are being written.
    pub fn fill(&mut self, claim: u64) {
        self.stop_listening(claim);
        if let Some(open) = self.open.get(&claim) {
            let guid = open.order.guid;
            if self.parked.get(&guid) == Some(&claim) {
                self.parked.remove(&guid);
            }
            self.filling
                .insert((guid, open.order.claim_id.clone()), claim);
        }
    }

    /// The claim waits. Gives the claim of the same agent that waited before.
    pub fn park(&mut self, claim: u64) -> Option<u64> {
        let open = self.open.get(&claim)?;
        open.order.admission.give_back();
        let guid = open.order.guid;
        self.filling.remove(&(guid, open.order.claim_id.clone()));
        self.parked
            .insert(guid, claim)
            .filter(|before| *before != claim)
    }

    pub fn is_full(&self) -> bool {
        self.parked.len() >= MAX_PARKED
    }

    pub fn set_wants(&mut self, claim: u64, wants: ClaimFilter) {
        self.stop_listening(claim);
        if let Some(open) = self.open.get_mut(&claim) {
            open.wants = wants;
        }
    }

    /// The agent cannot have this item again.
    pub fn do_not_resume(&mut self, claim: u64, id: WorkId) {
        if let Some(open) = self.open.get_mut(&claim) {
            open.order.resume.retain(|lease| lease.id != id);
        }
    }

    /// The claim was made once more: the later one is answered, as the bound on open claims allows.
    pub fn replace_reply(&mut self, claim: u64, order: &Claim, reply: RpcReplyPort<ClaimOutcome>) {
        if let Some(open) = self.open.get_mut(&claim) {
            order.admission.give_back();
            let before = std::mem::replace(&mut open.reply, reply);
            let _ = before.send(Ok(Vec::new()));
        }
    }

    /// The claim wants to be asked when an item comes.
    pub fn listen(&mut self, claim: u64) {
        let Some(open) = self.open.get(&claim) else {
            return;
        };
        for capability in &open.wants.capabilities {
            let by_boundary = self.listening.entry(capability.clone()).or_default();
            for boundary in &open.wants.boundaries {
                by_boundary
                    .entry(boundary.clone())
                    .or_default()
                    .entry(open.wants.agent_type.clone())
                    .or_default()
                    .insert(claim);
            }
        }
    }

    /// The claim is not asked until it listens again.
    pub fn stop_listening(&mut self, claim: u64) {
        let Some(open) = self.open.get(&claim) else {
            return;
        };
        for capability in &open.wants.capabilities {
            let Some(by_boundary) = self.listening.get_mut(capability) else {
                continue;
            };
            for boundary in &open.wants.boundaries {
                let Some(by_type) = by_boundary.get_mut(boundary) else {
                    continue;
                };
                if let Some(claims) = by_type.get_mut(&open.wants.agent_type) {
                    claims.remove(&claim);
                    if claims.is_empty() {
                        by_type.remove(&open.wants.agent_type);
                    }
                }
                if by_type.is_empty() {
                    by_boundary.remove(boundary);
                }
            }
            if by_boundary.is_empty() {
                self.listening.remove(capability);
            }
        }
    }

    /// The parked claim that is asked first for an item: of the preferred type, then the oldest.
    pub fn first_for(&self, needs: &Requirements, may: impl Fn(&OpenClaim) -> bool) -> Option<u64> {
        let by_type = self
            .listening
            .get(&*needs.capability)?
            .get(&*needs.boundary)?;
        let of_type = |agent_type: &str| {
            by_type.get(agent_type).and_then(|claims| {
                claims
                    .iter()
                    .copied()
                    .find(|claim| self.open.get(claim).is_some_and(&may))
            })
        };
        if let Some(required) = needs.required_agent_type.as_deref() {
            return of_type(required);
        }
        let preferred = needs.preferred_agent_type.as_deref().and_then(of_type);
        preferred.or_else(|| by_type.keys().filter_map(|t| of_type(t)).min())
    }

    /// Whether every claim has been answered.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Every claim that waits, to be answered because the actor ends.
    pub fn close_parked(&mut self) -> Vec<OpenClaim> {
        let claims: Vec<u64> = self.parked.values().copied().collect();
        claims
            .into_iter()
            .filter_map(|claim| self.close(claim))
            .collect()
    }
}
