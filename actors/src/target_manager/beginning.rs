//! A start on its way into its target's record: because somebody is missing, or because a person asks.

use loom_protocol::target::{BirthTicket, SpinUpOperation, SpinUpStatus};
use loom_protocol::{SpinUpId, WireError, WorkId};

use super::actor::{Job, State};
use super::birth_command::BirthCommand;
use super::change::Request;
use super::command::{Command, not_found};
use super::directory::Known;
use super::key::TargetKey;
use super::messages::Reply;
use super::terms::StartPermit;
use super::trigger::Trigger;
use super::under_way::Planned;
use super::{ASK_AGAIN, Record};
use crate::domain::targets::{Birth, Need, TicketTerms, digest_of};

/// A start that is to be recorded.
struct NewStart {
    id: SpinUpId,
    need: Option<Need>,
    work_item: Option<WorkId>,
    is_asked_for: bool,
}

impl State {
    /// A place for one start more, of this project and of all.
    pub(super) fn room_for_one(&self) -> Option<StartPermit> {
        let births = &self.args.births;
        let under_way = self.args.directory.undecided() + self.births.planned.len();
        let most = usize::try_from(births.settings.max_concurrent).unwrap_or(usize::MAX);
        (under_way < most).then(|| births.limit.take()).flatten()
    }

    pub(super) fn begin_for(
        &mut self,
        known: &Known,
        key: TargetKey,
        need: &Need,
        permit: StartPermit,
    ) {
        let work_item = self.args.work.oldest_ready(need);
        let start = NewStart {
            id: SpinUpId::generate(),
            need: Some(need.clone()),
            work_item,
            is_asked_for: false,
        };
        self.begin((key, &known.record), start, permit, None);
    }

    /// (none) → planned: the start is on its way into its target's record.
    fn begin(
        &mut self,
        (key, record): (TargetKey, &Record),
        start: NewStart,
        permit: StartPermit,
        reply: Option<Reply>,
    ) {
        let (target, now) = (&record.target, self.args.clock.now());
        let ticket = BirthTicket::generate();
        let need = start.need.as_ref().map(Into::into);
        let terms = TicketTerms::of(target, need.as_ref(), digest_of(&ticket));
        let timeout = self.args.births.settings.birth_timeout.of(target.mechanism);
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
            ticket: terms,
            reference: None,
            until: now.after(timeout),
        };
        let command = BirthCommand::Begin {
            birth: birth.into(),
            is_group_paused: self.group_paused_until(target, now).is_some(),
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
        let planned = Planned {
            key,
            need: start.need,
            profile: target.into(),
            ticket,
            permit,
        };
        self.births.planned.insert(start.id, planned);
        let job = Job {
            request: request.into(),
            reply,
        };
        if let Err(rejected) = self.writer.push(key, job) {
            self.births.planned.remove(&start.id);
            if let Some(reply) = rejected.request.reply {
                let text = format!("target {} starts no agent: {}", target.name, rejected.why);
                let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
            } else {
                self.look_later();
            }
        }
    }

    /// A person asks for an agent.
    pub(super) fn trigger(&mut self, trigger: &Trigger, reply: Reply) {
        let name = &trigger.target.name;
        if let Err(refusal) = self.may_write(name) {
            let _ = reply.send(Err(refusal));
            return;
        }
        let key = TargetKey::of(name);
        let known = key.and_then(|key| Some((key, self.args.directory.known(key)?)));
        let same = known.filter(|(_, known)| known.record.target.id == trigger.target.id);
        let Some((key, known)) = same else {
            let _ = reply.send(Err(not_found(name)));
            return;
        };
        if self.births.planned.contains_key(&trigger.operation) {
            let text = format!("target {name} is about to start that agent; ask again in a moment");
            let _ = reply.send(Err(WireError::unavailable(text, ASK_AGAIN)));
            return;
        }
        let is_begun = self.args.directory.operation(trigger.operation).is_some();
        // Sent once more because its actor has died: the same start, which the record knows.
        let permit = if is_begun {
            Some(self.args.births.limit.take_for_one_begun())
        } else {
            self.room_for_one()
        };
        let Some(permit) = permit else {
            let most = self.args.births.settings.max_concurrent;
            let text = format!(
                "target {name} starts no agent now: as many starts are under way as may be at once ({most} of a project, targets.max_concurrent; four times as many of all); try again in a moment"
            );
            let _ = reply.send(Err(WireError::overloaded(text, ASK_AGAIN)));
            return;
        };
        let start = NewStart {
            id: trigger.operation,
            need: trigger.need.clone(),
            work_item: trigger.work_item,
            is_asked_for: true,
        };
        self.begin((key, &known.record), start, permit, Some(reply));
    }
}
