//! What follows from a change that has its outcome: who is told, and what is done for a start next.

use std::sync::Arc;

use loom_protocol::event::{Event, SpinUpEvent, SpinUpEventKind, TargetEvent, TargetEventKind};
use loom_protocol::target::{SpinUpOperation, SpinUpStatus, TargetStatus};
use loom_protocol::{ProjectId, SpinUpId, WireError};

use super::Record;
use super::actor::State;
use super::birth_command::BirthCommand;
use super::change::{Changed, Request};
use super::command::Command;

impl State {
    /// What follows for the start, or the agent, that a command was about.
    pub(super) fn birth_settled(
        &mut self,
        request: &Arc<Request>,
        command: &BirthCommand,
        outcome: &Result<Changed, WireError>,
        is_own: bool,
    ) {
        if let BirthCommand::Begin { birth, .. } = command {
            return self.begun(request, birth.operation.operation_id, outcome);
        }
        let changed = match outcome {
            Ok(changed) => changed,
            Err(error) if is_own => return self.not_carried_out(request.clone(), error),
            Err(_) => return,
        };
        let is_news = changed.outcome.changed;
        match command {
            BirthCommand::Begin { .. } => {}
            BirthCommand::Started { id, .. } => {
                if is_news {
                    self.tell_of_start(SpinUpEventKind::Started, changed);
                }
                if self.is_born(*id) {
                    self.settle_birth(*id);
                }
            }
            BirthCommand::BeginAgain { id, .. } => self.begun_again(*id, changed),
            BirthCommand::GiveUp { id, .. } => {
                let mechanism = self.forget_birth(*id).and_then(|running| running.mechanism);
                if let Some(end) = &changed.end {
                    self.tidy_up(end, mechanism);
                    self.tell_of_start(SpinUpEventKind::Failed, changed);
                }
            }
            BirthCommand::Redeem { newborn, .. } | BirthCommand::RedeemLate { newborn, .. } => {
                if let Some(end) = &changed.end {
                    let id = end.operation.operation_id;
                    if is_not_told_as_started(changed, id) {
                        // The agent was quicker than whoever started it.
                        self.tell_of_start(SpinUpEventKind::Started, changed);
                    }
                    self.tell_of_start(SpinUpEventKind::Completed, changed);
                    self.settle_birth(id);
                    self.expect(newborn.guid);
                }
            }
            BirthCommand::Settle { end, .. } => {
                if let Some(guid) = end.operation.agent_guid {
                    self.expect(guid);
                } else if let Some((record, _)) = &changed.now {
                    let mechanism = self.args.births.mechanisms.of(&record.target);
                    self.tidy_up(end, mechanism.ok());
                }
            }
            BirthCommand::Unlink { guid, .. } => {
                if let Some(before) = changed.before.as_ref().filter(|_| is_news)
                    && let Some(agent) = before.agents.iter().find(|agent| agent.guid == *guid)
                {
                    self.tidy_after(before, agent);
                }
            }
        }
    }

    /// Planned → launched, or not recorded.
    fn begun(&mut self, request: &Request, id: SpinUpId, outcome: &Result<Changed, WireError>) {
        let Some(planned) = self.births.planned.remove(&id) else {
            return;
        };
        match outcome {
            Ok(Changed {
                outcome,
                now: Some((record, _)),
                ..
            }) if outcome.changed => {
                let births = record.births.iter();
                if let Some(birth) = births.clone().find(|b| b.operation.operation_id == id) {
                    self.tell_of(SpinUpEventKind::Triggered, record, &birth.operation);
                    self.launch((request.key, record), birth, planned.ticket, planned.permit);
                }
            }
            // By an incarnation before: its ticket is lost with it.
            Ok(_) => self.recover(),
            Err(error) => {
                tracing::debug!(target = request.name, "no agent is started: {error}");
                self.look_later();
            }
        }
    }

    fn begun_again(&mut self, id: SpinUpId, changed: &Changed) {
        let Some(running) = self.forget_birth(id) else {
            return;
        };
        let Some((record, _)) = &changed.now else {
            return;
        };
        let births = record.births.iter();
        let birth = births.clone().find(|b| b.operation.operation_id == id);
        if let (Some(birth), Some(ticket)) = (birth, running.ticket)
            && changed.outcome.changed
        {
            let permit = self.args.births.limit.take_for_one_begun();
            self.launch((running.key, record), birth, ticket, permit);
        }
    }

    /// Tells what became of a target itself.
    pub(super) fn tell_of_target(&self, changed: &Changed, command: &Command) {
        let outcome = &changed.outcome;
        let (target, is) = (&outcome.target, outcome.target.status);
        let kind = match outcome.before {
            _ if outcome.removed => TargetEventKind::Removed,
            None => TargetEventKind::Registered,
            // What its starts come to is told as theirs.
            Some(was)
                if was == is
                    && matches!(command, Command::Birth { .. } | Command::Checked { .. }) =>
            {
                return;
            }
            Some(was) if is == TargetStatus::Disabled && was != is => TargetEventKind::Disabled,
            Some(_) => TargetEventKind::Updated,
        };
        self.args.events.emit(Event::Target(Box::new(TargetEvent {
            kind,
            timestamp: self.args.clock.now(),
            project_id: self.args.project.to_string(),
            target_id: target.id,
            target_name: target.name.clone(),
            previous_status: outcome.before,
            new_status: (!outcome.removed).then_some(is),
            previous_health: None,
            new_health: None,
            error: None,
        })));
    }

    fn tell_of_start(&self, kind: SpinUpEventKind, changed: &Changed) {
        if let (Some((record, _)), Some(operation)) = (&changed.now, &changed.outcome.operation) {
            self.tell_of(kind, record, operation);
        }
    }

    fn tell_of(&self, kind: SpinUpEventKind, record: &Record, operation: &SpinUpOperation) {
        let need = operation.need.as_ref();
        let took = operation
            .ended_at
            .map(|ended_at| ended_at.since(operation.started_at));
        let is_over = matches!(kind, SpinUpEventKind::Completed | SpinUpEventKind::Failed);
        let took = took.filter(|_| is_over);
        log_start(&self.args.project, kind, record, operation);
        self.args.events.emit(Event::SpinUp(Box::new(SpinUpEvent {
            kind,
            timestamp: self.args.clock.now(),
            project_id: self.args.project.to_string(),
            operation_id: operation.operation_id,
            target_id: operation.target_id,
            target_name: operation.target_name.clone(),
            agent_type: record.target.agent_type.clone(),
            capability: need.map(|need| need.capability.clone()),
            boundary: need.map(|need| need.boundary.clone()),
            work_id: operation.work_item_id,
            agent_guid: operation.agent_guid.filter(|_| is_over),
            duration_ms: took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            error_message: operation.error.clone().filter(|_| is_over),
        })));
    }
}

/// Whether an operation was decided before its mechanism had said that it began.
fn is_not_told_as_started(changed: &Changed, id: SpinUpId) -> bool {
    let before = changed.before.iter().flat_map(|record| &record.births);
    let mut pending = before.filter(|birth| birth.operation.status == SpinUpStatus::Pending);
    pending.any(|birth| birth.operation.operation_id == id)
}

/// The same for whoever reads the log of the coordinator.
fn log_start(
    project: &ProjectId,
    kind: SpinUpEventKind,
    record: &Record,
    operation: &SpinUpOperation,
) {
    let (id, target) = (operation.operation_id, &operation.target_name);
    match kind {
        SpinUpEventKind::Triggered => {
            tracing::info!(%project, %target, operation = %id, "an agent is being started");
        }
        SpinUpEventKind::Started => {
            tracing::debug!(%project, %target, operation = %id, "an agent was started and has not registered yet");
        }
        SpinUpEventKind::Completed => {
            let guid = operation.agent_guid.map(|guid| guid.to_string());
            tracing::info!(%project, %target, operation = %id, agent = guid, "an agent that was started has registered");
        }
        SpinUpEventKind::Failed => {
            let error = operation.error.as_deref().unwrap_or("nobody said why");
            let rests = record.cools_until.map(|until| until.to_string());
            tracing::warn!(
                %project, %target, operation = %id, rests_until = rests,
                "no agent came of a start: {error}; see `loom spin-up show {id}`"
            );
        }
    }
}
