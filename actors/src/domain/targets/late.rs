//! Late births: the agent of a start that was given up registers after all.
//!
//! The link in the target's record is written first, then the end of the operation; after a crash in between the end follows
//! from the link.

use loom_protocol::target::SpinUpStatus;
use loom_protocol::{AgentGuid, Timestamp};

use super::record::{DecidedBirth, TargetRecord};
use super::tickets::{Newborn, TicketRefusal};

impl<R: Clone> TargetRecord<R> {
    /// Failed, Timeout → Success: the agent of a start that was given up registers after all.
    ///
    /// # Errors
    /// It may not: the ticket was used, the agent is another one than was started, or there is no room for it.
    pub fn redeem_late(
        &self,
        given_up: &DecidedBirth<R>,
        newborn: &Newborn<'_>,
        now: Timestamp,
    ) -> Result<(Self, DecidedBirth<R>), TicketRefusal> {
        if let Some(guid) = given_up.operation.agent_guid {
            let lives = self.agents.iter().any(|agent| agent.guid == guid);
            return Err(if lives {
                TicketRefusal::Used(guid)
            } else {
                TicketRefusal::Gone
            });
        }
        self.check_is_new(newborn)?;
        given_up.ticket.check(newborn)?;
        let condition = self.condition(false);
        if !condition.is_enabled {
            return Err(TicketRefusal::TooLate("is disabled".into()));
        }
        if condition.agents >= condition.max_agents {
            let text = format!("has its {} agents", condition.max_agents);
            return Err(TicketRefusal::TooLate(text));
        }
        if given_up.operation.mechanism != self.target.mechanism {
            // It could neither be found nor ended any more.
            let text = format!("starts its agents by {} now", self.target.mechanism);
            return Err(TicketRefusal::TooLate(text));
        }
        let decided = given_up.born_late(newborn.guid, newborn.instance_id, now);
        let next = self.with(now, |next| next.link(&decided, newborn, now));
        Ok((next, decided))
    }

    /// The end of a start that was given up, as the link of its agent says it. `None`: it has no agent here, or says so
    /// already.
    pub fn end_late(&self, given_up: &DecidedBirth<R>) -> Option<DecidedBirth<R>> {
        let operation = &given_up.operation;
        let mut agents = self.agents.iter();
        let agent = agents.find(|agent| agent.operation_id == operation.operation_id)?;
        let is_said = operation.agent_guid == Some(agent.guid);
        let run = agent.instance_id.as_deref();
        (!is_said).then(|| given_up.born_late(agent.guid, run, agent.born_at))
    }
}

impl<R: Clone> DecidedBirth<R> {
    fn born_late(&self, guid: AgentGuid, run: Option<&str>, at: Timestamp) -> Self {
        let mut born = self.clone();
        born.operation.status = SpinUpStatus::Success;
        born.operation.agent_guid = Some(guid);
        born.operation.error = None;
        born.operation.ended_at = Some(at);
        born.instance_id = run.map(ToOwned::to_owned);
        born
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::SpinUpId;
    use loom_protocol::target::Mechanism;
    use uuid::Uuid;

    use super::super::record_tests::{birth, guid, target};
    use super::*;

    #[test]
    fn nobody_is_born_late_of_a_mechanism_that_the_target_has_no_longer() {
        let at = Timestamp::from_millis;
        let record = TargetRecord::new(target(1));
        let begun = record.begin(birth(0), false, false, at(1)).unwrap();
        let id = birth(0).operation.operation_id;
        let end = (SpinUpStatus::Timeout, "nobody came", None);
        let cooldown = std::time::Duration::from_secs(1);
        let (mut record, given_up) = begun.given_up(id, end, cooldown, at(2)).unwrap();
        let ticket = &given_up.ticket;
        let newborn = Newborn {
            guid: guid(1),
            instance_id: Some("one"),
            agent_type: &ticket.agent_type,
            capabilities: &ticket.capabilities,
            boundaries: &ticket.boundaries,
        };
        assert!(record.redeem_late(&given_up, &newborn, at(3)).is_ok());
        record.target.mechanism = Mechanism::Webhook;
        let refused = record.redeem_late(&given_up, &newborn, at(3)).unwrap_err();
        assert!(matches!(refused, TicketRefusal::TooLate(_)), "{refused}");
    }

    #[test]
    fn the_end_of_a_late_birth_follows_from_its_link_with_the_same_words() {
        let at = Timestamp::from_millis;
        let record = TargetRecord::new(target(1));
        let begun = record.begin(birth(0), false, false, at(1)).unwrap();
        let id = SpinUpId::new(Uuid::from_u128(1));
        let end = (SpinUpStatus::Timeout, "nobody came", None);
        let cooldown = std::time::Duration::from_secs(1);
        let (record, given_up) = begun.given_up(id, end, cooldown, at(2)).unwrap();
        assert_eq!(record.end_late(&given_up), None, "nobody is linked");
        let ticket = &given_up.ticket;
        let newborn = Newborn {
            guid: guid(1),
            instance_id: Some("one"),
            agent_type: &ticket.agent_type,
            capabilities: &ticket.capabilities,
            boundaries: &ticket.boundaries,
        };
        let (linked, born) = record.redeem_late(&given_up, &newborn, at(3)).unwrap();
        assert_eq!(linked.end_late(&given_up).as_ref(), Some(&born));
        assert_eq!(linked.end_late(&born), None, "it says so");
    }
}
