//! A late birth is two writes: the link, then the end that follows from it. A ticket is used once all the same, however long
//! the store refuses the second one, and whatever has waited meanwhile.
//!
//! | in between | then |
//! |---|---|
//! | the agent is to be unlinked | the end is written before its link goes |
//! | another agent asks with the same ticket, by what was known of the start before | it is judged by what is known now |

use std::borrow::Cow;

use super::birth_command::BirthCommand;
use super::command::Command;
use super::directory::TargetDirectory;
use super::{Ended, Record};

/// A command, with what is known of its start at this moment: since it was given, another agent may have been born by the
/// same ticket, and have gone.
pub(super) fn as_it_stands<'c>(
    directory: &TargetDirectory,
    command: &'c Command,
) -> Cow<'c, Command> {
    if let Command::Birth { id, command: birth } = command
        && let BirthCommand::RedeemLate { given_up, newborn } = birth
        && let Some(end) = directory.end_of(given_up.operation.operation_id)
    {
        let command = BirthCommand::RedeemLate {
            given_up: Box::new((*end).clone()),
            newborn: newborn.clone(),
        };
        return Cow::Owned(Command::Birth { id: *id, command });
    }
    Cow::Borrowed(command)
}

/// The end that is written before the link goes from which it follows. `record`: with that link.
pub(super) fn end_before_unlinking(
    directory: &TargetDirectory,
    record: &Record,
    command: &Command,
) -> Option<Box<Ended>> {
    let Command::Birth { command, .. } = command else {
        return None;
    };
    let BirthCommand::Unlink { born_by, .. } = command else {
        return None;
    };
    directory.end_to_come(record, *born_by).map(Box::new)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use loom_protocol::target::{RegisterTarget, SpinUpStatus};
    use loom_protocol::{AgentGuid, ProjectId, SpinUpId, TargetId, Timestamp};
    use serde_json::json;

    use super::super::command::Decision;
    use super::super::key::TargetKey;
    use super::*;
    use crate::domain::targets::{Birth, OwnedNewborn, TicketTerms};

    const NOW: Timestamp = Timestamp::from_millis(1000);

    /// A target whose only start was given up, and what is known of it.
    struct Given {
        directory: TargetDirectory,
        record: Arc<Record>,
        end: Arc<Ended>,
    }

    fn given_up() -> Given {
        let request: RegisterTarget = serde_json::from_value(json!({
            "name": "t", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
        }))
        .unwrap();
        let new = request.check().unwrap();
        let target = new.into_target(TargetId::generate(), "a test".into(), NOW);
        let id = SpinUpId::generate();
        let operation = json!({
            "operationId": id, "targetId": target.id, "targetName": "t", "mechanism": "local",
            "status": "pending", "startedAt": NOW,
        });
        let birth = Birth {
            operation: serde_json::from_value(operation).unwrap(),
            ticket: TicketTerms::of(&target, None, [7; 32]),
            reference: None,
            place: None,
            begun_again_at: None,
        };
        let begun = Record::new(target).begin(birth, false, false, NOW).unwrap();
        let end = (SpinUpStatus::Timeout, "nobody came", None);
        let (record, end) = begun.given_up(id, end, Duration::ZERO, NOW).unwrap();
        let directory = TargetDirectory::new(ProjectId::new("p").unwrap());
        let given = Given {
            record: record.into(),
            end: end.into(),
            directory,
        };
        given.directory.apply_end(given.end.clone());
        let record = given.record.clone();
        given.knows(record, 1)
    }

    impl Given {
        fn knows(mut self, record: Arc<Record>, revision: u64) -> Self {
            let key = TargetKey::of("t").unwrap();
            self.directory.apply(key, &record, revision);
            self.record = record;
            self
        }

        fn birth(&self, command: BirthCommand) -> Command {
            let id = self.record.target.id;
            Command::Birth { id, command }
        }

        fn redeem(&self, guid: AgentGuid) -> Command {
            let ticket = &self.end.ticket;
            self.birth(BirthCommand::RedeemLate {
                given_up: Box::new((*self.end).clone()),
                newborn: OwnedNewborn {
                    guid,
                    instance_id: Some("one".into()),
                    agent_type: ticket.agent_type.clone(),
                    capabilities: ticket.capabilities.clone(),
                    boundaries: ticket.boundaries.clone(),
                },
            })
        }

        fn decided(&self, command: &Command) -> Option<Arc<Record>> {
            let command = as_it_stands(&self.directory, command);
            match command.decide("t", Some(&self.record), NOW).ok()? {
                Decision::WriteBirth { record, .. } => Some((*record).into()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_link_of_a_late_birth_does_not_go_before_the_end_that_follows_from_it_is_written() {
        let guid = AgentGuid::generate();
        let given = given_up();
        let linked = given.decided(&given.redeem(guid)).expect("it is born");
        let given = given.knows(linked, 2);
        let born_by = given.end.operation.operation_id;
        let unlink = given.birth(BirthCommand::Unlink { guid, born_by });
        let (directory, record) = (&given.directory, &*given.record);
        let end = end_before_unlinking(directory, record, &unlink).expect("by its link");
        assert_eq!(end.operation.agent_guid, Some(guid));
        assert_eq!(end.operation.status, SpinUpStatus::Success);
        // Known here, and refused by the store.
        directory.apply_end_to_come(Arc::new((*end).clone()));
        let again = end_before_unlinking(directory, record, &unlink);
        assert_eq!(again.as_ref(), Some(&end));
        directory.apply_end((*end).into());
        assert_eq!(end_before_unlinking(directory, record, &unlink), None);
    }

    #[test]
    fn a_ticket_that_was_used_while_another_agent_waited_with_it_is_not_used_again() {
        let (first, second) = (AgentGuid::generate(), AgentGuid::generate());
        let given = given_up();
        let waits = given.redeem(second);
        let linked = given.decided(&given.redeem(first)).expect("it is born");
        let end = linked.end_late(&given.end).expect("by its link");
        given.directory.apply_end(end.into());
        let gone = linked.unlink(first, NOW).expect("it goes");
        let given = given.knows(gone.into(), 2);
        assert_eq!(given.decided(&waits), None, "two births of one ticket");
    }
}
