//! Doing the same with many: which agents and which items a filter names, and handing work over to others.

use std::time::Duration;

use loom_actors::agent_registry::AgentFilter;
use loom_actors::work_ledger::ReadError;
use loom_protocol::agent::ListAgentsRequest;
use loom_protocol::batch::{AgentBatchFilter, WorkBatchFilter};
use loom_protocol::work::{LeaseRef, ListWorkRequest, Reason, WorkStatus, limits};
use loom_protocol::{AgentGuid, ErrorCode, WireError, WorkId};

use super::Service;
use super::items::filter;
use crate::access::Allowed;

/// How many one filtered request takes; more are left for the next one, and the answer says so.
pub const MOST_FILTERED: usize = 10_000;
/// Which items a filter means that names no status: those that have not ended.
const UNFINISHED: &str = "pending,assigned,in-progress";

/// Refuses a request about many things that names neither a filter nor all of them, or both: a filter that was
/// forgotten, or whose values are all null, does not mean everything.
///
/// # Errors
/// `invalid-request`; nothing is to be done.
pub fn check_scope(has_filter: bool, all: bool, fields: &str) -> Result<(), WireError> {
    match (has_filter, all) {
        (true, false) | (false, true) => Ok(()),
        (true, true) => Err(WireError::invalid(format!(
            "all: true stands beside a filter ({fields}); write one of them (nothing was done)"
        ))),
        (false, false) => Err(WireError::invalid(format!(
            "the filter is empty: write {fields}, or all: true where everything is meant (nothing was done)"
        ))),
    }
}

/// What a filter of a batch has to say of itself.
pub trait BatchFilter: Default + PartialEq {
    /// The names of its fields, for a refusal.
    const FIELDS: &'static str;

    /// Whether it names nothing, and so means everything.
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl BatchFilter for AgentBatchFilter {
    const FIELDS: &'static str = "status, idleTimeMs, agentType, boundary or capability";
}

impl BatchFilter for WorkBatchFilter {
    const FIELDS: &'static str = "status, boundary, capability, label, minPriority or assignedTo";
}

/// What a filter names.
#[derive(Debug, Clone)]
pub struct Named<Id> {
    /// The ids, at most `MOST_FILTERED`.
    pub ids: Vec<Id>,
    /// Whether there are more.
    pub has_more: bool,
}

impl<Id> Named<Id> {
    const NOTHING: Self = Self {
        ids: Vec::new(),
        has_more: false,
    };
}

/// How an item was taken from one agent for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reassigned {
    /// It was held, and is pending again.
    TakenBack,
    /// Nobody held it.
    Waits,
}

impl Service {
    /// The agents that a filter names.
    pub fn agents_named(
        &self,
        caller: &Allowed,
        wanted: &AgentBatchFilter,
    ) -> Result<Named<AgentGuid>, WireError> {
        let project = self.project_of(caller);
        let filter = AgentFilter::of(&ListAgentsRequest {
            agent_type: wanted.agent_type.clone(),
            status: wanted.status.clone(),
            capability: wanted.capability.clone(),
            boundary: wanted.boundary.clone(),
            ..ListAgentsRequest::default()
        })?;
        let Some(project) = self.active(project)? else {
            return Ok(Named::NOTHING);
        };
        let idle_since = wanted
            .idle_time_ms
            .map(|idle| self.now().before(Duration::from_millis(idle)));
        let mut named = Named::NOTHING;
        let mut cursor = None;
        loop {
            let page = project
                .agents
                .find(&filter, cursor.as_deref(), limits::PAGE)?;
            for agent in page.agents {
                let idle = idle_since.is_none_or(|since| {
                    agent.current_task_count == 0 && agent.last_activity <= since
                });
                if !idle {
                    continue;
                }
                if named.ids.len() == MOST_FILTERED {
                    named.has_more = true;
                    return Ok(named);
                }
                named.ids.push(agent.guid);
            }
            cursor = page.info.next_cursor;
            if cursor.is_none() {
                return Ok(named);
            }
        }
    }

    /// The items that a filter names; without a status those that have not ended.
    pub fn work_named(
        &self,
        caller: &Allowed,
        wanted: &WorkBatchFilter,
    ) -> Result<Named<WorkId>, WireError> {
        let project = self.project_of(caller);
        let mut filter = filter(&ListWorkRequest {
            status: Some(wanted.status.clone().unwrap_or_else(|| UNFINISHED.into())),
            capability: wanted.capability.clone(),
            boundary: wanted.boundary.clone(),
            label: wanted.label.clone(),
            ..ListWorkRequest::default()
        })?;
        let least = wanted.min_priority.unwrap_or_default();
        let Some(project) = self.active(project)? else {
            return Ok(Named::NOTHING);
        };
        if !project.work.is_loaded() {
            return Err(ReadError::NotLoaded(project.id.clone()).into());
        }
        filter.holder = self.holder(&project.id, wanted.assigned_to.as_deref())?;
        let mut named = Named::NOTHING;
        let mut after = 0;
        loop {
            let page = project.work.page(&filter, after, limits::PAGE);
            for header in page.headers.iter().filter(|h| h.priority >= least) {
                if named.ids.len() == MOST_FILTERED {
                    named.has_more = true;
                    return Ok(named);
                }
                named.ids.push(header.id);
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(named),
            }
        }
    }

    /// Takes an item from its agent, which is told to stop it, and puts it back for another one: as a release does,
    /// it costs no attempt, and the same agent is not offered it for a while.
    pub async fn reassign(
        &self,
        caller: &Allowed,
        id: &str,
        reason: Option<String>,
    ) -> Result<Reassigned, WireError> {
        let project = caller.project();
        let (project, id) = self.find_item(project, id).await?;
        let header = project.work.header(id);
        let status = header.as_ref().map(|header| header.status);
        if status.is_some_and(WorkStatus::is_terminal) {
            let status = status.map_or("gone", WorkStatus::as_str);
            return Err(WireError::new(
                ErrorCode::TerminalState,
                format!("work item {id} is {status}; it cannot be given to another agent"),
            ));
        }
        let Some((guid, lease)) = project.work.lease(id) else {
            return Ok(Reassigned::Waits);
        };
        let attempt = lease.attempt;
        let revoked = project
            .revoke_leases(guid, Reason::Released, |held| {
                held.id == id && held.attempt == attempt
            })
            .await?;
        if revoked.is_empty() {
            let message = format!("work item {id} changed hands just now; look at it again");
            return Err(WireError::unavailable(message, super::RETRY_AFTER));
        }
        let lease = LeaseRef { id, attempt };
        if let Err(error) = project.tell_cancelled(guid, lease, reason).await {
            tracing::debug!(%guid, %id, "the agent could not be told that its item goes to another one: {error}");
        }
        Ok(Reassigned::TakenBack)
    }
}
