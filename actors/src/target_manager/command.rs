//! What is asked of one target, and what follows from the record that is there. Pure.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::target::{SpinUpOperation, Target, TargetStatus, TargetUpdates};
use loom_protocol::{ErrorCode, TargetId, Timestamp, WireError};

use super::birth_command::{BirthCommand, BirthDecision};
use super::{Ended, Record};
use crate::domain::targets::{BY_CONFIG, Checkup, Definition};

/// Something to be done to the target of a name.
#[derive(Debug, Clone)]
pub enum Command {
    /// (none) → registered. Its id tells a repeated request from another one.
    Register(Box<Target>),
    /// (none) → registered, or changed to what the configuration file says, if the file's it is.
    Define {
        /// What the file says.
        definition: Box<Definition>,
        /// The id that it gets where there is none yet.
        id: TargetId,
    },
    /// Some fields are changed.
    Update {
        /// Which target.
        id: TargetId,
        /// How.
        updates: Box<TargetUpdates>,
    },
    /// Switched on or off.
    Switch {
        /// Which target.
        id: TargetId,
        /// Whether it may start agents.
        on: bool,
    },
    /// registered → (none)
    Remove {
        /// As it was known when this was asked for.
        known: Box<Target>,
        /// Whether this was sent before: then it may be gone already.
        is_repeated: bool,
    },
    /// It was looked at.
    Checked {
        /// Which target.
        id: TargetId,
        /// What was seen.
        checkup: Box<Checkup>,
    },
    /// Something about the starts of its agents, and the agents.
    Birth {
        /// Which target.
        id: TargetId,
        /// What.
        command: BirthCommand,
    },
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The target, with its secrets: as it is now, or was before it was removed.
    pub target: Target,
    /// How it was before; `None` where it was not there.
    pub before: Option<TargetStatus>,
    /// Whether something was written.
    pub changed: bool,
    /// Whether it is gone.
    pub removed: bool,
    /// The start that it was about, as it is now.
    pub operation: Option<Box<SpinUpOperation>>,
}

/// What follows.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// It is so already.
    Already(Box<Target>),
    /// The same, of a start.
    AlreadyBorn(Box<Target>, Option<Box<SpinUpOperation>>),
    /// This is to be written.
    Write(Box<Record>),
    /// The same about a start: first its end, if it is decided by that.
    WriteBirth {
        record: Box<Record>,
        end: Option<Box<Ended>>,
        operation: Option<Box<SpinUpOperation>>,
    },
    /// Only this end of a start is to be written.
    WriteEnd(Box<Target>, Box<Ended>),
    /// It is to be removed.
    Remove(Box<Target>),
    /// It is gone already.
    Gone(Box<Target>),
}

impl Command {
    /// Decides on the record that is there.
    pub(super) fn decide(
        &self,
        name: &str,
        present: Option<&Arc<Record>>,
        now: Timestamp,
    ) -> Result<Decision, WireError> {
        let there = |id: TargetId| {
            let same = present.filter(|record| record.target.id == id);
            same.ok_or_else(|| not_found(name))
        };
        let or_already = |next: Option<Record>, there: &Record| match next {
            Some(next) => Decision::Write(next.into()),
            None => Decision::Already(there.target.clone().into()),
        };
        match (self, present) {
            (Self::Register(target), None) => {
                Ok(Decision::Write(Record::new((**target).clone()).into()))
            }
            (Self::Register(target), Some(there)) if there.target.id == target.id => {
                Ok(Decision::Already(there.target.clone().into()))
            }
            (Self::Register(_), Some(there)) => Err(already_there(&there.target)),
            (Self::Define { definition, id }, None) => {
                let new = definition.target.clone();
                let target = new.into_target(*id, BY_CONFIG.into(), now);
                Ok(Decision::Write(Record::new(target).into()))
            }
            (Self::Define { .. }, Some(there)) if !Definition::owns(&there.target) => {
                Err(already_there(&there.target))
            }
            (Self::Define { definition, .. }, Some(there)) => {
                Ok(or_already(there.redefined(definition, now)?, there))
            }
            (Self::Update { id, updates }, _) => {
                let there = there(*id)?;
                Ok(or_already(there.updated(updates, now)?, there))
            }
            (Self::Switch { id, on }, _) => {
                let there = there(*id)?;
                Ok(or_already(there.switched(*on, now), there))
            }
            (Self::Remove { known, is_repeated }, _) => match there(known.id) {
                Ok(there) => {
                    let removable = there.check_removable();
                    removable
                        .map_err(|in_use| WireError::invalid(format!("{name}: the {in_use}")))?;
                    Ok(Decision::Remove(there.target.clone().into()))
                }
                Err(_) if *is_repeated => Ok(Decision::Gone(known.clone())),
                Err(error) => Err(error),
            },
            (Self::Checked { id, checkup }, _) => {
                let there = there(*id)?;
                Ok(or_already(there.checked(checkup), there))
            }
            (Self::Birth { id, command }, _) => {
                let there = there(*id)?;
                Ok(match command.decide(there, now)? {
                    BirthDecision::Already(operation) => {
                        Decision::AlreadyBorn(there.target.clone().into(), operation)
                    }
                    BirthDecision::WriteEnd(end) => {
                        Decision::WriteEnd(there.target.clone().into(), end)
                    }
                    BirthDecision::Write {
                        record,
                        end,
                        operation,
                    } => Decision::WriteBirth {
                        record,
                        end,
                        operation,
                    },
                })
            }
        }
    }
}

/// There is no target of this name, or no longer the one that was meant.
pub(super) fn not_found(name: &str) -> WireError {
    WireError::new(
        ErrorCode::NotFound,
        format!("there is no target {name}, or another one of that name; see `loom targets list`"),
    )
}

fn already_there(there: &Target) -> WireError {
    let text = format!(
        "there is a target {} already ({}, registered by {}), and a name is there once, in whatever case; choose another name, or update that one",
        there.name, there.id, there.registered_by
    );
    WireError::new(ErrorCode::AlreadyExists, text)
        .with_details(serde_json::json!({ "targetId": there.id }))
}

/// The record is changed by others all the time.
pub(super) fn contended(name: &str) -> WireError {
    let text = format!("target {name} is being changed by others all the time; try again");
    WireError::unavailable(text, Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use loom_protocol::target::RegisterTarget;
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn target(name: &str) -> Target {
        let fields: Value = json!({
            "name": name, "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
        });
        let request: RegisterTarget = serde_json::from_value(fields).unwrap();
        let new = request.check().unwrap();
        new.into_target(TargetId::generate(), "a test".into(), NOW)
    }

    fn code(decision: Result<Decision, WireError>) -> ErrorCode {
        decision.expect_err("it is refused").code
    }

    #[test]
    fn a_name_is_registered_once_and_a_repeated_request_is_no_second_one() {
        let command = Command::Register(target("here").into());
        let Ok(Decision::Write(record)) = command.decide("here", None, NOW) else {
            panic!("it is registered");
        };
        let present = Arc::new(*record);
        let again = command.decide("here", Some(&present), NOW).unwrap();
        assert_eq!(again, Decision::Already(present.target.clone().into()));
        let other = Command::Register(target("HERE").into());
        assert_eq!(
            code(other.decide("HERE", Some(&present), NOW)),
            ErrorCode::AlreadyExists
        );
    }

    #[test]
    fn what_is_asked_of_one_that_is_gone_does_not_hit_its_successor() {
        let (gone, successor) = (target("here"), Arc::new(Record::new(target("here"))));
        let remove = |is_repeated| Command::Remove {
            known: gone.clone().into(),
            is_repeated,
        };
        for present in [None, Some(&successor)] {
            let switch = Command::Switch {
                id: gone.id,
                on: false,
            };
            assert_eq!(
                code(switch.decide("here", present, NOW)),
                ErrorCode::NotFound
            );
            assert_eq!(
                code(remove(false).decide("here", present, NOW)),
                ErrorCode::NotFound
            );
            let repeated = remove(true).decide("here", present, NOW).unwrap();
            assert_eq!(repeated, Decision::Gone(gone.clone().into()));
        }
    }
}
