//! Agents: coming, staying, going, being looked at.

use std::collections::HashSet;
use std::time::Duration;

use loom_actors::agent_registry::AgentFilter;
use loom_actors::domain;
use loom_actors::project::Project;
use loom_actors::work_ledger::LeaseInfo;
use loom_protocol::agent::{
    Agent, DeregisterAnswer, DeregisterRequest, Directive, DirectiveKind, HeartbeatAnswer,
    HeartbeatRequest, ListAgentsRequest, RegisterAnswer, RegisterRequest, ShutdownRequest,
};
use loom_protocol::rest::{PageInfo, UnreadablePage};
use loom_protocol::work::{LeaseRef, Reason, StoppedRequest};
use loom_protocol::{AgentGuid, ErrorCode, PROTOCOL_VERSION, ProjectId, WireError};
use serde_json::json;
use tokio::time::Instant;

use super::{Page, Service, page_limit};
use crate::access::Allowed;

/// A lease younger than this may be unknown to its agent: the claim's answer is on its way.
const HOLDING_GRACE: Duration = Duration::from_secs(5);
/// Between a project and its cursor, in a cursor over all projects.
const CURSOR_MARK: char = '/';

impl Service {
    /// Takes an agent in, or renews it; a known guid keeps its leases and is told them. One that was started from a target
    /// is born by its ticket.
    pub async fn register(
        &self,
        caller: &Allowed,
        request: RegisterRequest,
    ) -> Result<RegisterAnswer, WireError> {
        let project = self.project_of(caller);
        let projects = self.projects();
        let terms = projects.terms();
        if projects.get(project).is_none() {
            // A registration that is refused makes no project.
            let measure = domain::agent::Terms {
                project,
                heartbeat_every: terms.agents.heartbeat_every,
                now: terms.clock.now(),
            };
            let guid = request.guid.unwrap_or_else(AgentGuid::generate);
            domain::agent::register(&request, guid, None, false, &measure)?;
        }
        if request.ticket.is_some() && self.active(project)?.is_none() {
            return Err(no_such_ticket(project));
        }
        let project = self.activate(project).await?;
        let mut agent = project.register(request).await?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let interval = agent
            .heartbeat_interval_ms
            .unwrap_or(millis(terms.agents.heartbeat_every));
        agent.heartbeat_interval_ms = Some(interval);
        Ok(RegisterAnswer {
            stale_after_ms: millis(terms.agents.stale_after).max(interval.saturating_mul(3)),
            leases: leases_of(&project, agent.guid),
            agent,
            protocol: PROTOCOL_VERSION,
            features: super::FEATURES.map(str::to_owned).to_vec(),
            epoch: terms.epoch,
        })
    }

    /// A sign of life; what `holding` does not name goes back, what it names in vain is lost.
    pub async fn heartbeat(
        &self,
        caller: &Allowed,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatAnswer, WireError> {
        let guid = request.guid;
        let run = request.instance_id.as_deref();
        let project = self.admit(caller, guid, run).await?;
        let holding = request.holding.clone();
        let beaten = project.registry.heartbeat(request).await;
        let mut directives = project.heard(guid, beaten)?;
        let mut lost = Vec::new();
        if let Some(holding) = holding {
            let holding: HashSet<LeaseRef> = holding.into_iter().collect();
            let ours: HashSet<LeaseRef> = leases_of(&project, guid).into_iter().collect();
            lost.extend(holding.difference(&ours).copied());
            self.note_obeyed(&project, guid, &holding, &mut directives)
                .await;
            self.take_back_unnamed(&project, guid, &holding).await?;
        }
        project.record_directives_delivered(guid, &directives);
        for lease in &lost {
            project.mark_cancel_delivered(guid, *lease);
        }
        Ok(HeartbeatAnswer {
            ok: true,
            lost,
            directives,
            epoch: self.projects().terms().epoch,
        })
    }

    /// The agent lives and does not have them: the answer to its claim was lost, as with a
    /// coordinator that crashed. That costs no attempt.
    async fn take_back_unnamed(
        &self,
        project: &Project,
        guid: AgentGuid,
        holding: &HashSet<LeaseRef>,
    ) -> Result<(), WireError> {
        let given_before = self.now().before(HOLDING_GRACE);
        // While we or NATS stood still, the answer and heartbeats from before it waited together.
        let is_known = |since: Instant| since.elapsed() >= HOLDING_GRACE;
        if !is_known(project.barrier.grace().since()) {
            return Ok(());
        }
        project
            .revoke_leases(guid, Reason::NotStarted, |lease| {
                lease.assigned_at < given_before
                    && is_known(lease.last_seen_at)
                    && !holding.contains(&named(lease))
            })
            .await
            .map(drop)
    }

    /// An order to stop what the agent does not hold (any more) was obeyed, though nobody said so.
    async fn note_obeyed(
        &self,
        project: &Project,
        guid: AgentGuid,
        holding: &HashSet<LeaseRef>,
        orders: &mut Vec<Directive>,
    ) {
        let obeyed = orders.extract_if(.., |order| {
            let named = order.work_item_id.zip(order.attempt);
            order.kind == DirectiveKind::Cancel
                && named.is_some_and(|(id, attempt)| !holding.contains(&LeaseRef { id, attempt }))
        });
        for order in obeyed {
            let Some((id, attempt)) = order.work_item_id.zip(order.attempt) else {
                continue;
            };
            let stopped = StoppedRequest {
                id,
                guid,
                instance_id: None,
                attempt,
                result: None,
                usage: None,
                session: None,
            };
            if let Err(error) = self.stopped_in(project, stopped).await {
                tracing::debug!(%guid, %id, "the end of a cancelled item was not noted: {error}");
            }
        }
    }

    /// Lets an agent go; its leases go back at once.
    pub async fn deregister(
        &self,
        caller: &Allowed,
        request: DeregisterRequest,
    ) -> Result<DeregisterAnswer, WireError> {
        let guid: AgentGuid = request
            .guid
            .parse()
            .map_err(|error| WireError::invalid(format!("guid {error}")))?;
        let run = request.instance_id.as_deref();
        let project = self.admit(caller, guid, run).await?;
        let released = project.deregister(guid).await?;
        Ok(DeregisterAnswer {
            ok: true,
            guid,
            released,
        })
    }

    /// One page of agents; without a project, of all.
    pub fn list_agents(
        &self,
        caller: &Allowed,
        request: &ListAgentsRequest,
    ) -> Result<Page<Agent>, WireError> {
        let project = caller.project();
        let limit = page_limit(request.limit)?;
        let filter = AgentFilter::of(request)?;
        if let Some(project) = project {
            let Some(project) = self.active(project)? else {
                return Ok(Page {
                    items: Vec::new(),
                    info: PageInfo::default(),
                });
            };
            let found = project
                .agents
                .find(&filter, request.cursor.as_deref(), limit)?;
            return Ok(Page {
                items: found.agents,
                info: found.info,
            });
        }
        self.list_agents_of_all(&filter, request.cursor.as_deref(), limit)
    }

    /// Entries that cannot be taken for agents, each with the reason: those of the project's own
    /// bucket, and of the bucket of all projects; without a project, of all. An entry that names
    /// no project counts to the default one.
    pub fn list_unreadable(
        &self,
        caller: &Allowed,
        limit: Option<usize>,
    ) -> Result<UnreadablePage, WireError> {
        let project = caller.project();
        let limit = page_limit(limit)?;
        let projects = self.projects();
        let mut page = UnreadablePage {
            unreadable: Vec::new(),
            count: 0,
            total: 0,
        };
        for project in self.readable(project)? {
            let room = limit - page.unreadable.len();
            page.total += project.agents.quarantined();
            page.unreadable.extend(project.agents.unreadable(room));
        }
        let shared = &projects.terms().shared_agents;
        let room = limit - page.unreadable.len();
        let (entries, total) = shared.unreadable(project, self.default_project(), room);
        page.unreadable.extend(entries);
        page.total += total;
        page.count = page.unreadable.len();
        Ok(page)
    }

    fn list_agents_of_all(
        &self,
        filter: &AgentFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Agent>, WireError> {
        let (from, mut inner) = match cursor.map(|cursor| cursor.split_once(CURSOR_MARK)) {
            None => (None, None),
            Some(Some((project, inner))) => {
                (Some(project), (!inner.is_empty()).then(|| inner.to_owned()))
            }
            Some(None) => {
                let text = "cursor is none of ours; take it from the page before";
                return Err(WireError::invalid(text));
            }
        };
        let mut page = Page {
            items: Vec::new(),
            info: PageInfo::default(),
        };
        for project in self.projects().all_readable()? {
            if from.is_some_and(|from| project.id.as_str() < from) {
                page.info.total += project.agents.find(filter, None, 1)?.info.total;
                continue;
            }
            let room = limit - page.items.len();
            let found = project
                .agents
                .find(filter, inner.take().as_deref(), room.max(1))?;
            page.info.total += found.info.total;
            if page.info.next_cursor.is_some() {
                continue;
            }
            if room == 0 {
                if !found.agents.is_empty() {
                    page.info.next_cursor = Some(format!("{}{CURSOR_MARK}", project.id));
                }
                continue;
            }
            page.items.extend(found.agents);
            page.info.next_cursor = found
                .info
                .next_cursor
                .map(|next| format!("{}{CURSOR_MARK}{next}", project.id));
        }
        page.info.count = page.items.len();
        page.info.has_more = page.info.next_cursor.is_some();
        Ok(page)
    }

    /// One agent. Without a project every one is looked in; `guid` may be its beginning or the
    /// handle (here and below; see `named`).
    pub fn get_agent(&self, caller: &Allowed, guid: &str) -> Result<Agent, WireError> {
        let project = caller.project();
        let (project, guid) = self.find_agent(project, guid)?;
        project
            .agents
            .snapshot(guid)
            .ok_or_else(|| no_agent(&guid.to_string()))
    }

    /// Orders an agent to end.
    pub async fn shutdown_agent(
        &self,
        caller: &Allowed,
        request: ShutdownRequest,
    ) -> Result<Agent, WireError> {
        let project = caller.project();
        let (project, guid) = self.find_agent(project, &request.guid)?;
        let outcome = project.registry.shutdown(guid, request).await;
        outcome.map_err(|error| match error.code {
            ErrorCode::NotRegistered => no_agent(&guid.to_string()),
            _ => error,
        })
    }
}

/// A project that nobody has made has started no agent.
fn no_such_ticket(project: &ProjectId) -> WireError {
    let text = format!(
        "the agent is not registered: there is no project {project}, so no start of an agent is known by this ticket; it is to end"
    );
    WireError::new(ErrorCode::Forbidden, text).with_details(json!({ "ticket": "refused" }))
}

fn no_agent(guid: &str) -> WireError {
    WireError::new(
        ErrorCode::NotFound,
        format!("there is no agent {guid}; see `loom agents list`"),
    )
}

fn leases_of(project: &Project, guid: AgentGuid) -> Vec<LeaseRef> {
    project.work.leases_of(guid).iter().map(named).collect()
}

const fn named(lease: &LeaseInfo) -> LeaseRef {
    LeaseRef {
        id: lease.id,
        attempt: lease.attempt,
    }
}
