//! Leases that nobody may have told their agents of: written for an incarnation of the dispatcher
//! that died before it could answer, and found when this one had answered the claim without them.

use loom_protocol::{AgentGuid, WorkId};

use crate::hashing::HashMap;

/// Such leases, until the agent has been told and claims by another name, or until their end.
#[derive(Debug, Default)]
pub(super) struct UnacknowledgedAssignments(HashMap<AgentGuid, OfAgent>);

/// Which, and whether its claim has started it: one that is started later is known to its agent.
type Leases = HashMap<WorkId, bool>;

#[derive(Debug, Default)]
struct OfAgent {
    /// To be told with the answer to its next claim.
    pending: Leases,
    /// Told with the answer to the claim of this name. Where that answer is lost, the agent repeats the claim.
    told: Option<(Box<str>, Leases)>,
}

impl UnacknowledgedAssignments {
    pub fn note(&mut self, guid: AgentGuid, id: WorkId, is_started: bool) {
        self.0
            .entry(guid)
            .or_default()
            .pending
            .insert(id, is_started);
    }

    /// The lease has ended.
    pub fn forget(&mut self, guid: AgentGuid, id: WorkId) {
        if let Some(of_agent) = self.0.get_mut(&guid) {
            of_agent.pending.remove(&id);
            if let Some((_, ids)) = &mut of_agent.told {
                ids.remove(&id);
            }
            if of_agent.is_empty() {
                self.0.remove(&guid);
            }
        }
    }

    /// Whether the agent may have to be told of something.
    pub fn has(&self, guid: AgentGuid) -> bool {
        self.0.contains_key(&guid)
    }

    /// What the agent is to be told with the answer to its claim of this name; once more if the claim is repeated.
    pub fn tell(&mut self, guid: AgentGuid, claim_id: &str) -> Leases {
        let Some(of_agent) = self.0.get_mut(&guid) else {
            return Leases::default();
        };
        let mut ids = std::mem::take(&mut of_agent.pending);
        if let Some((_, before)) = of_agent.told.take_if(|(told_by, _)| **told_by == *claim_id) {
            ids.extend(before);
        }
        of_agent.told = (!ids.is_empty()).then(|| (claim_id.into(), ids.clone()));
        if of_agent.is_empty() {
            self.0.remove(&guid);
        }
        ids
    }
}

impl OfAgent {
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.told.as_ref().is_none_or(|(_, ids)| ids.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> WorkId {
        WorkId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn what_was_told_with_an_answer_that_got_lost_is_told_again() {
        let guid = AgentGuid::generate();
        let mut leases = UnacknowledgedAssignments::default();
        leases.note(guid, id(1), false);
        assert_eq!(leases.tell(guid, "a"), Leases::from_iter([(id(1), false)]));
        leases.note(guid, id(2), true);
        let both = Leases::from_iter([(id(1), false), (id(2), true)]);
        assert_eq!(leases.tell(guid, "a"), both);
        assert_eq!(leases.tell(guid, "a"), both);
        leases.forget(guid, id(1));
        assert_eq!(leases.tell(guid, "a"), Leases::from_iter([(id(2), true)]));
    }

    #[test]
    fn another_claim_says_that_the_answer_before_has_come() {
        let guid = AgentGuid::generate();
        let mut leases = UnacknowledgedAssignments::default();
        leases.note(guid, id(1), false);
        assert_eq!(leases.tell(guid, "a").len(), 1);
        assert!(leases.tell(guid, "b").is_empty());
        assert!(leases.tell(guid, "a").is_empty());
        assert!(leases.0.is_empty());
    }
}
