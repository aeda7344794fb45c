//! What is done to a target's births, and what follows from the record that is there. Pure.
//!
//! ```text
//! Begin ─► Started ─► Redeem | GiveUp        BeginAgain: Pending stays Pending, under another ticket
//! GiveUp ─► RedeemLate ─► EndLate            Settle: the end was written before a crash, and leaves the record now
//! ```

use std::time::Duration;

use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_protocol::{AgentGuid, ErrorCode, SpinUpId, Timestamp, WireError};

use super::{Ended, Record, Reference};
use crate::domain::targets::{
    Birth, OwnedNewborn, TargetProfile, TargetRule, TicketDigest, TicketRefusal,
};

/// Something to be done to the births of a target.
#[derive(Debug, Clone)]
pub enum BirthCommand {
    /// (none) → Pending: a start is decided.
    Begin {
        /// The start.
        birth: Box<Birth<Reference>>,
        /// Whether the group of its target is paused.
        is_group_paused: bool,
        /// Whether a person asks, who waits neither for health nor for the end of a rest.
        is_asked_for: bool,
    },
    /// Pending → InProgress: the mechanism says by what the start is found again.
    Started {
        /// Which start.
        id: SpinUpId,
        /// By what.
        reference: Reference,
    },
    /// Pending → Pending: it surely never began; it is begun again with another ticket.
    BeginAgain {
        /// Which start.
        id: SpinUpId,
        /// The digest of the new ticket.
        digest: TicketDigest,
    },
    /// Pending, InProgress → Failed or Timeout.
    GiveUp {
        /// Which start.
        id: SpinUpId,
        /// Failed or Timeout.
        status: SpinUpStatus,
        /// Why.
        error: String,
        /// The end of what it said, without secrets.
        output: Option<String>,
        /// How long the target rests after its first failure.
        cooldown: Duration,
    },
    /// Pending, InProgress → Success: the agent registers.
    Redeem {
        /// Its ticket.
        digest: TicketDigest,
        /// The agent.
        newborn: OwnedNewborn,
    },
    /// Failed, Timeout → Success: the agent of a start that was given up registers after all. The link is written; the end
    /// follows from it.
    RedeemLate {
        /// That start.
        given_up: Box<Ended>,
        /// The agent.
        newborn: OwnedNewborn,
    },
    /// The agent of a late birth is linked: the end of its start says so.
    EndLate {
        /// The end.
        end: Box<Ended>,
    },
    /// The end of a start was written, and a crash kept it in the record: it leaves.
    Settle {
        /// The end.
        end: Box<Ended>,
        /// How long the target rests after its first failure.
        cooldown: Duration,
    },
    /// An agent is gone.
    Unlink {
        /// Which.
        guid: AgentGuid,
        /// By which start it was born: born by another one since, it stays.
        born_by: SpinUpId,
    },
}

/// What follows.
#[derive(Debug, PartialEq)]
pub(super) enum BirthDecision {
    /// It is so already, or there is nothing to be done; the operation, where one is meant.
    Already(Option<Box<SpinUpOperation>>),
    /// This is to be written; the end first, where the operation is decided by it.
    Write {
        record: Box<Record>,
        end: Option<Box<Ended>>,
        operation: Option<Box<SpinUpOperation>>,
    },
    /// This end is to be written, and the record stays as it is.
    WriteEnd(Box<Ended>),
}

impl BirthDecision {
    fn changed(record: Record, id: SpinUpId) -> Self {
        let births = record.births.iter();
        let operation = births
            .map(|birth| &birth.operation)
            .find(|operation| operation.operation_id == id);
        Self::Write {
            operation: operation.cloned().map(Box::new),
            record: record.into(),
            end: None,
        }
    }

    fn decided((record, end): (Record, Ended)) -> Self {
        Self::Write {
            operation: Some(end.operation.clone().into()),
            record: record.into(),
            end: Some(end.into()),
        }
    }
}

impl BirthCommand {
    /// Decides on the record that is there.
    pub(super) fn decide(
        &self,
        record: &Record,
        now: Timestamp,
    ) -> Result<BirthDecision, WireError> {
        let or_already = |next: Option<BirthDecision>, id: SpinUpId| {
            next.unwrap_or_else(|| BirthDecision::Already(operation_in(record, id)))
        };
        match self {
            Self::Begin {
                birth,
                is_group_paused,
                is_asked_for,
            } => {
                let id = birth.operation.operation_id;
                if let Some(begun) = operation_in(record, id) {
                    return Ok(BirthDecision::Already(Some(begun)));
                }
                let next = record.begin((**birth).clone(), *is_group_paused, *is_asked_for, now);
                let next = next.map_err(|rule| not_started(record, &birth.operation, rule))?;
                Ok(BirthDecision::changed(next, id))
            }
            Self::Started { id, reference } => {
                let is_known = |birth: &Birth<Reference>| {
                    birth.operation.operation_id == *id
                        && birth.reference.as_ref() == Some(reference)
                };
                let next = (!record.births.iter().any(is_known))
                    .then(|| record.started(*id, reference.clone(), now))
                    .flatten();
                Ok(or_already(
                    next.map(|next| BirthDecision::changed(next, *id)),
                    *id,
                ))
            }
            Self::BeginAgain { id, digest } => {
                let next = record.begin_again(*id, *digest, now);
                Ok(or_already(
                    next.map(|next| BirthDecision::changed(next, *id)),
                    *id,
                ))
            }
            Self::GiveUp {
                id,
                status,
                error,
                output,
                cooldown,
            } => {
                let end = (*status, error.as_str(), output.clone());
                let next = record.given_up(*id, end, *cooldown, now);
                Ok(or_already(next.map(BirthDecision::decided), *id))
            }
            Self::Redeem { digest, newborn } => {
                let next = record.redeem(digest, &newborn.view(), now);
                let next = next.map_err(|refusal| refused(&refusal))?;
                Ok(match next {
                    Some(next) => BirthDecision::decided(next),
                    None => BirthDecision::Already(None),
                })
            }
            Self::RedeemLate { given_up, newborn } => {
                let digest = &given_up.ticket.digest;
                if record.agents.iter().any(|a| a.ticket.digest == *digest) {
                    // It was born late already: the same birth again, or another agent's.
                    let again = record.redeem(digest, &newborn.view(), now);
                    again.map_err(|refusal| refused(&refusal))?;
                    return Ok(BirthDecision::Already(None));
                }
                let next = record.redeem_late(given_up, &newborn.view(), now);
                let (next, end) = next.map_err(|refusal| refused(&refusal))?;
                Ok(BirthDecision::Write {
                    record: next.into(),
                    end: None,
                    operation: Some(end.operation.into()),
                })
            }
            Self::EndLate { end } => Ok(BirthDecision::WriteEnd(end.clone())),
            Self::Settle { end, cooldown } => Ok(record.settled(end, *cooldown, now).map_or(
                BirthDecision::Already(None),
                |record| BirthDecision::Write {
                    record: record.into(),
                    end: None,
                    operation: Some(end.operation.clone().into()),
                },
            )),
            Self::Unlink { guid, born_by } => {
                let mut agents = record.agents.iter();
                let is_it = agents.any(|a| a.guid == *guid && a.operation_id == *born_by);
                Ok(is_it.then(|| record.unlink(*guid, now)).flatten().map_or(
                    BirthDecision::Already(None),
                    |record| BirthDecision::Write {
                        record: record.into(),
                        end: None,
                        operation: None,
                    },
                ))
            }
        }
    }
}

fn operation_in(record: &Record, id: SpinUpId) -> Option<Box<SpinUpOperation>> {
    let births = record.births.iter();
    let mut operations = births.map(|birth| &birth.operation);
    let operation = operations.find(|operation| operation.operation_id == id);
    operation.cloned().map(Box::new)
}

/// No agent is started, and why: 409, with the rule for programs.
fn not_started(record: &Record, operation: &SpinUpOperation, rule: TargetRule) -> WireError {
    let target = &record.target;
    let condition = record.condition(rule == TargetRule::Paused);
    let need = operation.need.as_ref();
    let sentence = need.map_or_else(
        || rule.sentence_about(&condition),
        |need| rule.sentence(&TargetProfile::from(target), &condition, &need.into()),
    );
    let text = format!(
        "target {} starts no agent: {sentence}; see `loom targets show {}`",
        target.name, target.name
    );
    WireError::new(ErrorCode::TerminalState, text)
        .with_details(serde_json::json!({ "targetId": target.id, "rule": rule.as_str() }))
}

/// An agent may not register with its ticket: it is to end, which the details say to programs.
pub(super) fn refused(refusal: &TicketRefusal) -> WireError {
    let text = format!("the agent is not registered: {refusal}; it is to end");
    WireError::new(ErrorCode::Forbidden, text)
        .with_details(serde_json::json!({ "ticket": "refused" }))
}

#[cfg(test)]
mod tests {
    use loom_protocol::TargetId;
    use loom_protocol::target::RegisterTarget;
    use serde_json::json;

    use super::*;
    use crate::domain::targets::{LinkedAgent, TicketTerms};

    const NOW: Timestamp = Timestamp::from_millis(1000);

    #[test]
    fn an_agent_that_was_born_by_another_start_since_keeps_its_place() {
        let request: RegisterTarget = serde_json::from_value(json!({
            "name": "t", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
        }))
        .unwrap();
        let new = request.check().unwrap();
        let target = new.into_target(TargetId::generate(), "a test".into(), NOW);
        let ticket = TicketTerms::of(&target, None, [7; 32]);
        let mut record = Record::new(target);
        let (guid, born_by) = (AgentGuid::generate(), SpinUpId::generate());
        record.agents.push(LinkedAgent {
            guid,
            instance_id: None,
            operation_id: born_by,
            ticket,
            reference: None,
            born_at: NOW,
        });
        let unlink = |born_by| BirthCommand::Unlink { guid, born_by }.decide(&record, NOW);
        let by_another = unlink(SpinUpId::generate()).unwrap();
        assert_eq!(by_another, BirthDecision::Already(None));
        let Ok(BirthDecision::Write { record, .. }) = unlink(born_by) else {
            panic!("it leaves");
        };
        assert!(record.agents.is_empty());
    }
}
