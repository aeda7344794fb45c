//! The open claims: who waits, for what, and who is asked first when an item comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loom_protocol::work::LeaseRef;
use loom_protocol::{AgentGuid, ErrorCode, WireError, WorkId};
use parking_lot::Mutex;
use ractor::RpcReplyPort;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::agent_registry::{AgentDirectory, AgentEntry};
use crate::domain::matching::{FilterRef, Requirements};
use crate::hashing::HashMap;
use crate::liveness::InFlightGuard;
use crate::work_ledger::{Applied, LedgerError};

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

impl Claim {
    /// Why it is not for its sender any more: another run of its agent has registered.
    pub(super) fn refusal(&self, agents: &AgentDirectory) -> Option<ClaimError> {
        let agent = agents.get(self.guid)?;
        let refused = agent.admit(self.instance_id.as_deref()).err()?;
        Some(ClaimError::Run(Box::new(refused)))
    }
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
    pub filter: ClaimFilter,
}

/// What an agent can be given, as of the time when its claim was filled or parked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClaimFilter {
    pub agent_type: String,
    pub capabilities: Vec<String>,
    pub boundaries: Vec<String>,
}

impl ClaimFilter {
    /// What the agent can do, as far as the claim asks for it.
    pub fn of(agent: &AgentEntry, order: &Claim) -> Self {
        let agent = agent.agent();
        let asked_for = |capability: &&String| {
            order
                .capabilities
                .as_ref()
                .is_none_or(|asked| asked.contains(capability))
        };
        let capabilities = agent.capabilities.iter().filter(asked_for);
        Self {
            agent_type: agent.agent_type.clone(),
            capabilities: capabilities.cloned().collect(),
            boundaries: agent.boundaries.clone(),
        }
    }

    pub fn as_ref(&self) -> FilterRef<'_> {
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

    pub fn set_filter(&mut self, claim: u64, filter: ClaimFilter) {
        self.stop_listening(claim);
        if let Some(open) = self.open.get_mut(&claim) {
            open.filter = filter;
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
        for capability in &open.filter.capabilities {
            let by_boundary = self.listening.entry(capability.clone()).or_default();
            for boundary in &open.filter.boundaries {
                by_boundary
                    .entry(boundary.clone())
                    .or_default()
                    .entry(open.filter.agent_type.clone())
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
        for capability in &open.filter.capabilities {
            let Some(by_boundary) = self.listening.get_mut(capability) else {
                continue;
            };
            for boundary in &open.filter.boundaries {
                let Some(by_type) = by_boundary.get_mut(boundary) else {
                    continue;
                };
                if let Some(claims) = by_type.get_mut(&open.filter.agent_type) {
                    claims.remove(&claim);
                    if claims.is_empty() {
                        by_type.remove(&open.filter.agent_type);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::matching::fits;
    use proptest::prelude::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn any_filter() -> impl Strategy<Value = ClaimFilter> {
        let tokens = || prop::sample::subsequence(NAMES.to_vec(), 0..=3);
        let own = |names: Vec<&str>| names.into_iter().map(String::from).collect();
        (prop::sample::select(&NAMES[..]), tokens(), tokens()).prop_map(
            move |(agent_type, capabilities, boundaries)| ClaimFilter {
                agent_type: agent_type.to_owned(),
                capabilities: own(capabilities),
                boundaries: own(boundaries),
            },
        )
    }

    fn any_needs() -> impl Strategy<Value = Requirements> {
        let name = || prop::sample::select(&NAMES[..]);
        let some = move || prop::option::of(name());
        (name(), name(), some(), some()).prop_map(|(capability, boundary, required, preferred)| {
            Requirements {
                capability: capability.into(),
                boundary: boundary.into(),
                required_agent_type: required.map(Into::into),
                preferred_agent_type: preferred.map(Into::into),
            }
        })
    }

    fn open(filter: ClaimFilter) -> OpenClaim {
        let (reply, _) = ractor::concurrency::oneshot();
        OpenClaim {
            order: Claim {
                guid: AgentGuid::generate(),
                instance_id: None,
                claim_id: "claim".to_owned(),
                capabilities: None,
                max: 1,
                wait_until: None,
                start: false,
                resume: Vec::new(),
                admission: Admission::default(),
            },
            reply: reply.into(),
            filter,
        }
    }

    proptest! {
        #[test]
        fn the_index_asks_the_preferred_type_first_then_the_oldest_of_those_who_fit(
            filters in prop::collection::vec((any_filter(), any::<bool>(), any::<bool>()), 0..12),
            needs in any_needs(),
        ) {
            let mut claims = Claims::default();
            let mut expected = Vec::new();
            for (filter, listens, may) in &filters {
                let claim = claims.open(open(filter.clone()));
                claims.park(claim);
                claims.listen(claim);
                if !listens {
                    claims.stop_listening(claim);
                } else if *may && fits(&filter.as_ref(), &needs).is_ok() {
                    let is_preferred =
                        needs.preferred_agent_type.as_deref() == Some(filter.agent_type.as_str());
                    expected.push((!is_preferred, claim));
                }
            }
            expected.sort_unstable();
            let may = |open: &OpenClaim| {
                let place = claims.open.values().position(|other| std::ptr::eq(other, open));
                place.is_some_and(|place| filters[place].2)
            };
            let first = claims.first_for(&needs, may);
            prop_assert_eq!(first, expected.first().map(|(_, claim)| *claim));
            let all: Vec<u64> = claims.open.keys().copied().collect();
            for claim in all {
                claims.close(claim);
            }
            prop_assert!(claims.listening.is_empty() && claims.parked.is_empty());
        }
    }
}
