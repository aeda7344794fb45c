//! What a crash has left: each start that is not decided is gone on with, where the record says that it stands.
//!
//! | the bucket has | then |
//! |---|---|
//! | its end, and the record has it still | it leaves the record, with that end |
//! | a start without a reference | its mechanism is asked: it runs: its reference is recorded; surely not begun: begun again with a new ticket; it cannot say: it stands until its time is over |
//! | a start with a reference | its mechanism is asked: it runs: watched on, with the full time; it has ended: given up, with its output |
//! | an agent that the registry does not have, or that is offline | it has the time to come back |

use super::actor::State;
use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::Command;
use super::directory::Known;
use super::key::TargetKey;
use super::launching::Beginning;
use super::{Record, Reference};
use crate::domain::targets::Birth;

impl State {
    /// The bucket has been read: takes over what it says.
    pub(super) fn recover(&mut self) {
        let all = self.args.directory.all_known();
        let is_recorded = |id| {
            let births = all.iter().flat_map(|(_, known)| &known.record.births);
            births
                .into_iter()
                .any(|birth| birth.operation.operation_id == id)
        };
        let running: Vec<_> = self.births.running.keys().copied().collect();
        for id in running.into_iter().filter(|id| !is_recorded(*id)) {
            // The bucket was destroyed, or another owner has decided it.
            self.forget_birth(id);
        }
        for (key, Known { record, .. }) in &all {
            for birth in &record.births {
                self.take_over(*key, record, birth);
            }
            for agent in &record.agents {
                self.expect(agent.guid);
            }
        }
        self.targets_changed();
    }

    fn take_over(&mut self, key: TargetKey, record: &Record, birth: &Birth<Reference>) {
        let id = birth.operation.operation_id;
        if self.births.running.contains_key(&id) || self.births.planned.contains_key(&id) {
            return;
        }
        if let Some(end) = self.args.directory.end_of(id) {
            let request = Request {
                key,
                name: record.target.name.clone(),
                command: Command::Birth {
                    id: record.target.id,
                    command: BirthCommand::Settle {
                        end: Box::new((*end).clone()),
                        cooldown: self.args.births.settings.cooldown,
                    },
                },
            };
            return self.order(request.into());
        }
        let permit = self.args.births.limit.take_for_one_begun();
        let beginning = Beginning::Recorded(birth.reference.clone());
        self.run(key, &record.target, birth, permit, beginning);
    }
}
