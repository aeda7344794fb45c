//! Starts on their way into the records of their targets: because somebody is missing, because a person asks, or once more
//! because one that is recorded never began.

use std::collections::HashMap;

use loom_protocol::target::{BirthTicket, SpinUpOperation, SpinUpStatus};
use loom_protocol::{SpinUpId, WireError, WorkId};

use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::{Command, not_found};
use super::directory::{Known, TargetDirectory};
use super::env::Env;
use super::key::TargetKey;
use super::messages::Reply;
use super::places::PlacesTaken;
use super::queue::{ChangeQueue, Job};
use super::running::Running;
use super::terms::StartPermit;
use super::trigger::Trigger;
use super::{ASK_AGAIN, Record};
use crate::domain::targets::{Birth, Need, TicketTerms, digest_of};

/// A start that is on its way to the bucket.
pub(super) struct Planned {
    key: TargetKey,
    /// What its agent will be; `None`: it is in its record already, and counted there.
    terms: Option<TicketTerms>,
    pub ticket: BirthTicket,
    pub permit: StartPermit,
}

/// A start that is to be recorded.
struct NewStart {
    id: SpinUpId,
    need: Option<Need>,
    work_item: Option<WorkId>,
    is_asked_for: bool,
}

/// Those that are decided here, and not known to be recorded.
#[derive(Default)]
pub(super) struct Plans(HashMap<SpinUpId, Planned>);

impl Plans {
    /// Whether a start is on its way.
    pub fn contains(&self, id: SpinUpId) -> bool {
        self.0.contains_key(&id)
    }

    /// The target of each that is on its way, and not in that target's record yet.
    pub fn targets(&self, directory: &TargetDirectory) -> Vec<TargetKey> {
        let planned = self.not_recorded(directory);
        planned.map(|planned| planned.key).collect()
    }

    /// How many agents are on their way that may take what is needed, and are in no record yet.
    pub fn count_serving(&self, directory: &TargetDirectory, need: &Need) -> usize {
        let planned = self.not_recorded(directory);
        let serving = planned.filter(|planned| {
            let terms = planned.terms.as_ref();
            terms.is_some_and(|terms| terms.serves(need))
        });
        serving.count()
    }

    /// What is recorded is counted there, also before it is known here.
    fn not_recorded(&self, directory: &TargetDirectory) -> impl Iterator<Item = &Planned> {
        let planned = self.0.iter();
        let planned = planned.filter(move |(id, _)| !directory.is_under_way(**id));
        planned.map(|(_, planned)| planned)
    }

    /// A place for one start more, of this project and of all.
    pub fn room_for_one(&self, env: &Env) -> Option<StartPermit> {
        let births = &env.args.births;
        let since = env.now().before(births.place_for());
        let taken = env.args.directory.count_begun_since(since) + self.0.len();
        let has_room = taken < births.most_of_a_project();
        has_room.then(|| births.limit.take()).flatten()
    }

    /// One more for this need is begun. Whether it is on its way: a record takes so many at once.
    pub fn begin_for(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        (key, known): (TargetKey, &Known),
        need: &Need,
        permit: StartPermit,
    ) -> bool {
        let work_item = env.args.work.oldest_ready(need);
        let start = NewStart {
            id: SpinUpId::generate(),
            need: Some(need.clone()),
            work_item,
            is_asked_for: false,
        };
        self.begin(env, queue, (key, &known.record), &start, permit, None)
    }

    /// A person asks for an agent.
    pub fn trigger(&mut self, env: &Env, queue: &mut ChangeQueue, trigger: &Trigger, reply: Reply) {
        match self.permitted(env, trigger) {
            Ok((key, known, permit)) => {
                let start = NewStart {
                    id: trigger.operation,
                    need: trigger.need.clone(),
                    work_item: trigger.work_item,
                    is_asked_for: true,
                };
                self.begin(
                    env,
                    queue,
                    (key, &known.record),
                    &start,
                    permit,
                    Some(reply),
                );
            }
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }

    fn permitted(
        &self,
        env: &Env,
        trigger: &Trigger,
    ) -> Result<(TargetKey, Known, StartPermit), WireError> {
        let (name, directory) = (&trigger.target.name, &env.args.directory);
        env.may_write(name)?;
        let key = TargetKey::of(name);
        let known = key.and_then(|key| Some((key, directory.known(key)?)));
        let same = known.filter(|(_, known)| known.record.target.id == trigger.target.id);
        let (key, known) = same.ok_or_else(|| not_found(name))?;
        if self.contains(trigger.operation) {
            let text = format!("target {name} is about to start that agent; ask again in a moment");
            return Err(WireError::unavailable(text, ASK_AGAIN));
        }
        let births = &env.args.births;
        let is_begun = directory.operation(trigger.operation).is_some();
        // Sent once more because its actor has died: the same start, which the record knows.
        let permit = if is_begun {
            Some(births.limit.take_for_one_begun())
        } else {
            self.room_for_one(env)
        };
        let permit = permit.ok_or_else(|| {
            let taken = PlacesTaken::now(births, directory, env.now());
            let text = format!("target {name} starts no agent now: {taken}; try again in a moment");
            WireError::overloaded(text, ASK_AGAIN)
        })?;
        Ok((key, known, permit))
    }

    /// (none) → planned: the start is on its way into its target's record, or it is not and whoever asked is told so.
    fn begin(
        &mut self,
        env: &Env,
        queue: &mut ChangeQueue,
        (key, record): (TargetKey, &Record),
        start: &NewStart,
        permit: StartPermit,
        reply: Option<Reply>,
    ) -> bool {
        let (target, now) = (&record.target, env.now());
        let ticket = BirthTicket::generate();
        let need = start.need.as_ref().map(Into::into);
        let terms = TicketTerms::of(target, need.as_ref(), digest_of(&ticket));
        let begins_at = env.args.births.mechanisms.of(target).ok();
        let birth = Birth {
            operation: SpinUpOperation {
                operation_id: start.id,
                target_id: target.id,
                target_name: target.name.clone(),
                mechanism: target.mechanism,
                status: SpinUpStatus::Pending,
                need,
                work_item_id: start.work_item,
                agent_guid: None,
                error: None,
                output: None,
                started_at: now,
                ended_at: None,
            },
            ticket: terms.clone(),
            reference: None,
            place: begins_at.and_then(|mechanism| mechanism.place()),
            begun_again_at: None,
        };
        let command = BirthCommand::Begin {
            birth: birth.into(),
            is_group_paused: env.group_paused_until(target, now).is_some(),
            is_asked_for: start.is_asked_for,
        };
        let request = Request {
            key,
            name: target.name.clone(),
            command: Command::Birth {
                id: target.id,
                command,
            },
        };
        let request = request.into();
        if let Err((reply, why)) = queue.push(Job { request, reply }) {
            if let Some(reply) = reply {
                let text = format!("target {} starts no agent: {why}", target.name);
                let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
            }
            return false;
        }
        let planned = Planned {
            key,
            terms: Some(terms),
            ticket,
            permit,
        };
        self.0.insert(start.id, planned);
        true
    }

    /// A start that is recorded and never began is on its way into its record once more, under this ticket.
    pub fn begin_again(
        &mut self,
        queue: &mut ChangeQueue,
        (id, running): (SpinUpId, &Running),
        permit: StartPermit,
        ticket: BirthTicket,
    ) {
        let digest = digest_of(&ticket);
        let command = BirthCommand::BeginAgain { id, digest };
        queue.order(running.request(command).into());
        let planned = Planned {
            key: running.key,
            terms: None,
            ticket,
            permit,
        };
        self.0.insert(id, planned);
    }

    /// Planned → (none): it is recorded, or is not.
    pub fn settle(&mut self, id: SpinUpId) -> Option<Planned> {
        self.0.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use loom_protocol::ProjectId;
    use loom_protocol::target::RegisterTarget;
    use loom_protocol::{TargetId, Timestamp};
    use serde_json::json;

    use super::super::terms::BirthTerms;
    use super::*;

    #[test]
    fn a_start_that_a_person_asks_for_without_a_need_is_expected_where_its_agent_will_work() {
        let request: RegisterTarget = serde_json::from_value(json!({
            "name": "t", "agentType": "codex", "capabilities": ["c"],
            "mechanism": "local", "command": "run",
        }))
        .unwrap();
        let id = TargetId::generate();
        let target = request.check().unwrap();
        let target = target.into_target(id, "a test".into(), Timestamp::from_millis(0));
        let ticket = BirthTicket::generate();
        let planned = Planned {
            key: TargetKey::of("t").unwrap(),
            terms: Some(TicketTerms::of(&target, None, digest_of(&ticket))),
            ticket,
            permit: BirthTerms::of_nobody().limit.take_for_one_begun(),
        };
        let plans = Plans(HashMap::from([(SpinUpId::generate(), planned)]));
        let directory = TargetDirectory::new(ProjectId::new("p").unwrap());
        for (boundary, expected) in [("default", 1), ("elsewhere", 0)] {
            let need = Need {
                capability: "c".into(),
                boundary: boundary.into(),
                required_agent_type: None,
            };
            assert_eq!(
                plans.count_serving(&directory, &need),
                expected,
                "{boundary}"
            );
        }
    }
}
