//! An agent's life as pure values: how a request or a bare entry becomes an [`Agent`], and its
//! status transitions, one verb each.
//!
//! | verb | from → to |
//! |---|---|
//! | [`register`] | nothing, or any → as [`on_heartbeat`] says |
//! | [`on_heartbeat`] | any → what a sign of life makes of it |
//! | [`mark_offline`] | any → offline |
//! | [`on_offline_announced`] | any → offline |
//! | [`request_scale_in`] | alive → draining |
//! | [`pause`], [`resume`] | takes work → paused, and back |
//! | [`quarantine`], [`release_from_quarantine`] | any → quarantined, and back |

mod own;
mod put;
mod rest;
mod runs;

use std::time::Duration;

use loom_protocol::agent::{Agent, AgentStatus, MAX_CONCURRENT_TASKS, RegisterRequest};
use loom_protocol::text::without_end;
use loom_protocol::token::{check_label, check_name, check_token};
use loom_protocol::{AgentGuid, DEFAULT_VISIBILITY, ErrorCode, ProjectId, Timestamp, WireError};
use serde_json::Value;

pub use rest::{
    MAX_PAUSE, effective_status, pause, pause_end, quarantine, release_from_quarantine, resume,
};

pub use own::{OwnEntry, Verdict, read_own, with_verdict};
pub use put::{AgentPut, Seen, Unreadable, guid_of_key, merge, project_of, read_put};
pub use runs::{
    MAX_REPLACED, RunVerdict, admit, has_registered, may_register, replaced_by, run_verdict,
};

/// The boundary of everything that names none.
pub const DEFAULT_BOUNDARY: &str = "default";
/// How many capabilities, and how many boundaries, an agent may have.
pub const MAX_TOKENS: usize = 64;
/// The shortest heartbeat interval, in milliseconds.
pub const MIN_HEARTBEAT_MS: u64 = 100;
/// The longest heartbeat interval, in milliseconds: a day.
pub const MAX_HEARTBEAT_MS: u64 = 24 * 3600 * 1000;
/// The longest `metadata` may be as JSON, in bytes.
pub const MAX_METADATA: usize = 16 * 1024;
/// The longest that free texts (hostname, username, …) may be, in bytes.
pub const MAX_TEXT: usize = 256;
/// The longest reason of an agent for taking no more, in bytes.
pub const MAX_REASON: usize = 512;

/// What a registration is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The project.
    pub project: &'a ProjectId,
    /// How often an agent beats that names no interval of its own.
    pub heartbeat_every: Duration,
    /// The time of day.
    pub now: Timestamp,
}

/// The target from which an agent was born, where it is the same run of it: another one was not.
fn target_of(known: Option<&Agent>, run: Option<&str>) -> Option<String> {
    let same = known.filter(|known| run.is_some() && known.instance_id.as_deref() == run)?;
    same.target_id.clone()
}

/// Nothing, or any → online (or as [`on_heartbeat`] says): the agent that a registration makes. A known
/// guid keeps its `registeredAt` and everything that is the coordinator's; what the agent says
/// about itself is taken anew, whole.
///
/// A run whose place another one has taken is refused.
///
/// `leaving`: it was told to end and this is still the run that was told.
pub fn register(
    request: &RegisterRequest,
    guid: AgentGuid,
    known: Option<&Agent>,
    leaving: bool,
    terms: &Terms<'_>,
) -> Result<Agent, WireError> {
    let run = request.instance_id.as_deref();
    if let Some(known) = known {
        may_register(known, run)?;
    }
    let metadata = request.metadata.as_ref();
    let agent_type = if request.agent_type.is_empty() {
        type_in(metadata).unwrap_or_default()
    } else {
        request.agent_type.clone()
    };
    let boundaries = match &request.boundaries {
        Some(boundaries) if !boundaries.is_empty() => boundaries.clone(),
        _ => boundaries_in(metadata).unwrap_or_else(default_boundaries),
    };
    let status = on_heartbeat(
        known.map_or(AgentStatus::Offline, |known| {
            effective_status(known, terms.now)
        }),
        Some(AgentStatus::Online),
        leaving,
    );
    let former = replaced_by(known, run, terms.now);
    let agent = Agent {
        guid,
        handle: request.handle.clone(),
        agent_type,
        status,
        status_reason: None,
        capabilities: without_repeats(&request.capabilities),
        boundaries: without_repeats(&boundaries),
        hostname: request.hostname.clone().filter(|text| !text.is_empty()),
        project_id: terms.project.to_string(),
        username: request.username.clone().filter(|text| !text.is_empty()),
        visibility: request
            .visibility
            .clone()
            .or_else(|| request.scope.clone())
            .filter(|word| !word.is_empty() && word != DEFAULT_VISIBILITY),
        current_task_count: known.map_or(0, |known| known.current_task_count),
        max_concurrent_tasks: request.max_concurrent_tasks.unwrap_or(1),
        heartbeat_interval_ms: Some(
            request
                .heartbeat_interval_ms
                .unwrap_or_else(|| millis(terms.heartbeat_every)),
        ),
        spindown_after_idle_ms: request.spindown_after_idle_ms.filter(|ms| *ms != 0),
        last_heartbeat: terms.now,
        last_activity: known.map_or(terms.now, |known| known.last_activity),
        registered_at: known.map_or(terms.now, |known| known.registered_at),
        limit_group: request.limit_group.clone(),
        paused_until: known.and_then(|known| known.paused_until),
        pause_reason: known.and_then(|known| known.pause_reason.clone()),
        quarantine: known.and_then(|known| known.quarantine.clone()),
        target_id: target_of(known, run),
        instance_id: request.instance_id.clone(),
        replaced_runs: former.replaced,
        earlier_runs: former.earlier,
        metadata: request.metadata.clone(),
    };
    check(&agent)?;
    check_limit_group(agent.limit_group.as_ref())?;
    if let Some(run) = run {
        check_token("instanceId", run)?;
    }
    Ok(agent)
}

/// Any → what a sign of life makes of it. `said`: what the agent says of itself; only `online`,
/// `busy` and `draining` are its to say. `leaving`: it was told to end and has not yet.
///
/// A pause and a quarantine outlast whatever the agent says, and so does the order to end.
pub const fn on_heartbeat(
    current: AgentStatus,
    said: Option<AgentStatus>,
    leaving: bool,
) -> AgentStatus {
    use AgentStatus::{Busy, Draining, Offline, Online, Paused, Quarantined, Unknown};
    match (current, said) {
        (Paused | Quarantined, _) => current,
        _ if leaving => Draining,
        (_, Some(said @ (Online | Busy | Draining))) => said,
        (Offline | Unknown, _) => Online,
        (Online | Busy | Draining, _) => current,
    }
}

/// Why an agent takes no more just now, after a heartbeat that says this status and this reason: only with
/// `busy`, and cut where it is long. One that says no status leaves it as it was.
pub fn reason_heard(
    current: Option<&str>,
    said: Option<AgentStatus>,
    reason: Option<&str>,
) -> Option<String> {
    match said {
        None => current.map(str::to_owned),
        Some(AgentStatus::Busy) => reason
            .map(str::trim)
            .filter(|reason| !reason.is_empty())
            .map(|reason| without_end(reason, MAX_REASON)),
        Some(_) => None,
    }
}

/// Any → offline: it was silent for too long. `None` if it is offline already.
pub fn mark_offline(agent: &Agent) -> Option<Agent> {
    offline(agent)
}

/// Any → offline: it put `status: offline` into its own entry, and is believed. `None` if it is
/// offline already.
pub fn on_offline_announced(agent: &Agent) -> Option<Agent> {
    offline(agent)
}

/// Online, busy → draining: it was told to end and may finish what it has. `None` if it takes
/// no work anyway.
pub fn request_scale_in(agent: &Agent) -> Option<Agent> {
    matches!(agent.status, AgentStatus::Online | AgentStatus::Busy)
        .then(|| with_status(agent, AgentStatus::Draining))
}

/// The agent with another status; the callers are the verbs of this module and of the registry.
pub fn with_status(agent: &Agent, status: AgentStatus) -> Agent {
    Agent {
        status,
        ..agent.clone()
    }
}

fn offline(agent: &Agent) -> Option<Agent> {
    (agent.status != AgentStatus::Offline).then(|| with_status(agent, AgentStatus::Offline))
}

/// Whether another agent would be matched otherwise, or shown otherwise, than this one; times and
/// counts do not matter.
pub fn differs(one: &Agent, other: &Agent) -> bool {
    let timeless = |agent: &Agent| Agent {
        last_heartbeat: Timestamp::default(),
        last_activity: Timestamp::default(),
        current_task_count: 0,
        replaced_runs: runs::timeless(agent),
        ..agent.clone()
    };
    timeless(one) != timeless(other)
}

/// The rules of a registration by request.
fn check(agent: &Agent) -> Result<(), WireError> {
    check_name("handle", &agent.handle)?;
    check_token("agentType", &agent.agent_type)?;
    if agent.capabilities.is_empty() {
        return Err(WireError::invalid(
            "capabilities is empty; name at least one thing that the agent can do",
        ));
    }
    check_bounds(agent)
}

/// The rules that every entry keeps, whoever wrote it.
fn check_bounds(agent: &Agent) -> Result<(), WireError> {
    check_labels("capability", &agent.capabilities)?;
    check_labels("boundary", &agent.boundaries)?;
    within(
        "maxConcurrentTasks",
        agent.max_concurrent_tasks.into(),
        1,
        MAX_CONCURRENT_TASKS.into(),
    )?;
    if let Some(interval) = agent.heartbeat_interval_ms {
        within(
            "heartbeatIntervalMs",
            interval,
            MIN_HEARTBEAT_MS,
            MAX_HEARTBEAT_MS,
        )?;
    }
    let texts = [
        ("hostname", &agent.hostname),
        ("username", &agent.username),
        ("visibility", &agent.visibility),
        ("limitGroup", &agent.limit_group),
        ("instanceId", &agent.instance_id),
    ];
    for (field, text) in texts {
        let length = text.as_ref().map_or(0, String::len);
        if length > MAX_TEXT {
            return Err(too_large(field, length, MAX_TEXT));
        }
    }
    let length = agent
        .metadata
        .as_ref()
        .map_or(0, |metadata| metadata.to_string().len());
    if length > MAX_METADATA {
        return Err(too_large("metadata", length, MAX_METADATA));
    }
    Ok(())
}

/// Of what an agent says now; an entry that was stored is read all the same.
fn check_limit_group(group: Option<&String>) -> Result<(), WireError> {
    if let Some(group) = group {
        check_token("limitGroup", group)?;
    }
    Ok(())
}

fn check_labels(field: &'static str, tokens: &[String]) -> Result<(), WireError> {
    if tokens.len() > MAX_TOKENS {
        let message = format!(
            "the agent names {} times a {field}; at most {MAX_TOKENS} are allowed",
            tokens.len()
        );
        return Err(WireError::invalid(message));
    }
    for token in tokens {
        check_label(field, token)?;
    }
    Ok(())
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), WireError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(WireError::invalid(format!(
        "{field} is {value}; write {least} to {most}"
    )))
}

fn too_large(field: &str, length: usize, most: usize) -> WireError {
    WireError::new(
        ErrorCode::TooLarge,
        format!("{field} has {length} bytes; at most {most} are allowed"),
    )
}

fn type_in(metadata: Option<&Value>) -> Option<String> {
    metadata?.get("agentType")?.as_str().map(str::to_owned)
}

fn boundaries_in(metadata: Option<&Value>) -> Option<Vec<String>> {
    let list = metadata?.get("boundaries")?.as_array()?;
    let boundaries: Vec<String> = list
        .iter()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect();
    (!boundaries.is_empty()).then_some(boundaries)
}

fn default_boundaries() -> Vec<String> {
    vec![DEFAULT_BOUNDARY.to_owned()]
}

fn without_repeats(tokens: &[String]) -> Vec<String> {
    let mut effective_status: Vec<String> = Vec::with_capacity(tokens.len().min(MAX_TOKENS + 1));
    for token in tokens {
        // One over the limit is enough for the check to refuse; the rest is not compared.
        if effective_status.len() <= MAX_TOKENS && !effective_status.contains(token) {
            effective_status.push(token.clone());
        }
    }
    effective_status
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod put_tests;
#[cfg(test)]
mod tests;
