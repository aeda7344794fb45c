//! What a crash has left: each start that is not decided is gone on with, where the record says that it stands.
//!
//! | the bucket has | then |
//! |---|---|
//! | its end, and the record has it still | it leaves the record, with that end |
//! | a start without a reference | its mechanism is asked: it runs: its reference is recorded; surely not begun: begun again with a new ticket; it cannot say: it stands until its time is over |
//! | a start with a reference | its mechanism is asked: it runs: watched on, with the full time; it has ended: given up, with its output |
//! | an agent that the registry does not have, or that is offline | it has the time to come back |
//!
//! What this incarnation has begun and the bucket does not have any more, because it was destroyed, is ended.

use std::collections::HashSet;

use loom_protocol::SpinUpId;

use super::actor::State;
use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::Command;
use super::directory::Known;
use super::key::TargetKey;
use super::launching::Beginning;
use super::under_way::Phase;
use super::{Record, Reference};
use crate::domain::targets::Birth;

impl State {
    /// The bucket has been read: takes over what it says.
    pub(super) fn recover(&mut self) {
        let all = self.args.directory.all_known();
        let records = all.iter().map(|(_, known)| &known.record);
        let recorded: HashSet<SpinUpId> = records
            .flat_map(|record| {
                let births = record
                    .births
                    .iter()
                    .map(|birth| birth.operation.operation_id);
                births.chain(record.agents.iter().map(|agent| agent.operation_id))
            })
            .collect();
        let running = self.births.running.iter();
        // Of one that is born only the reference is waited for.
        let unborn = running.filter(|(_, running)| running.phase != Phase::Born);
        let unrecorded: Vec<SpinUpId> = unborn
            .map(|(id, _)| *id)
            .filter(|id| !recorded.contains(id))
            .collect();
        for id in unrecorded {
            self.end_unrecorded(id);
        }
        for (key, Known { record, .. }) in &all {
            for birth in &record.births {
                self.take_over(*key, record, birth);
            }
            for agent in &record.agents {
                self.expect_again(agent.guid);
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
