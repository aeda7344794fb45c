//! What listeners, and whoever reads the log, are told of a change that is stored.

use loom_protocol::event::{Event, SpinUpEvent, SpinUpEventKind, TargetEvent, TargetEventKind};
use loom_protocol::target::{HealthStatus, SpinUpOperation, SpinUpStatus, Target, TargetStatus};
use loom_protocol::{ProjectId, SpinUpId};

use super::Record;
use super::change::Changed;
use super::command::Command;
use super::env::Env;
use crate::spin_up_meters;

/// Tells what became of a target itself.
pub(super) fn tell_of_target(env: &Env, changed: &Changed, command: &Command) {
    let outcome = &changed.outcome;
    let (target, is) = (&outcome.target, outcome.target.status);
    let kind = match outcome.before {
        _ if outcome.removed => TargetEventKind::Removed,
        None => TargetEventKind::Registered,
        // What its starts come to is told as theirs.
        Some(was)
            if was == is && matches!(command, Command::Birth { .. } | Command::Checked { .. }) =>
        {
            return;
        }
        Some(was) if is == TargetStatus::Disabled && was != is => TargetEventKind::Disabled,
        Some(_) => TargetEventKind::Updated,
    };
    env.args.events.emit(Event::Target(Box::new(TargetEvent {
        kind,
        timestamp: env.now(),
        project_id: env.args.project.to_string(),
        target_id: target.id,
        target_name: target.name.clone(),
        previous_status: outcome.before,
        new_status: (!outcome.removed).then_some(is),
        previous_health: None,
        new_health: None,
        error: None,
    })));
}

/// Tells what became of a start, as a change has stored it.
pub(super) fn tell_of_start(env: &Env, kind: SpinUpEventKind, changed: &Changed) {
    if let (Some((record, _)), Some(operation)) = (&changed.now, &changed.outcome.operation) {
        tell_of(env, kind, record, operation);
    }
}

/// Tells what became of a start, and counts its end.
pub(super) fn tell_of(
    env: &Env,
    kind: SpinUpEventKind,
    record: &Record,
    operation: &SpinUpOperation,
) {
    let need = operation.need.as_ref();
    let took = operation
        .ended_at
        .map(|ended_at| ended_at.since(operation.started_at));
    let is_over = matches!(kind, SpinUpEventKind::Completed | SpinUpEventKind::Failed);
    let took = took.filter(|_| is_over);
    log_start(&env.args.project, kind, record, operation);
    if is_over {
        spin_up_meters::ended(&env.args.project, operation);
    }
    env.args.events.emit(Event::SpinUp(Box::new(SpinUpEvent {
        kind,
        timestamp: env.now(),
        project_id: env.args.project.to_string(),
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

/// Tells that the health of a target is another one.
pub(super) fn tell_of_health(env: &Env, before: HealthStatus, target: &Target) {
    let is = target.health_status;
    let error = target.last_error.clone();
    env.args.events.emit(Event::Target(Box::new(TargetEvent {
        kind: TargetEventKind::HealthChanged,
        timestamp: env.now(),
        project_id: env.args.project.to_string(),
        target_id: target.id,
        target_name: target.name.clone(),
        previous_status: None,
        new_status: Some(target.status),
        previous_health: Some(before),
        new_health: Some(is),
        error: error.filter(|_| is == HealthStatus::Unhealthy),
    })));
}

/// Whether an operation was decided before its mechanism had said that it began.
pub(super) fn is_not_told_as_started(changed: &Changed, id: SpinUpId) -> bool {
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
