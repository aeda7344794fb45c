//! Looking at work, and calling it off. Who may take it, and why not: `explain`.

use futures_util::{StreamExt as _, stream};
use loom_actors::domain::work::{Bodies, Command};
use loom_actors::project::Project;
use loom_actors::work_ledger::{Filter, Header, ReadError, Start};
use loom_protocol::rest::PageInfo;
use loom_protocol::work::{CancelRequest, LeaseRef, ListWorkRequest, WorkItem, WorkStatus, limits};
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, WireError, WorkId};

use super::{Page, READY_WITHIN, Service, page_limit};
use crate::access::Allowed;

/// How many records of a page are read at a time.
const READS_IN_FLIGHT: usize = 32;

impl Service {
    /// One item with its bodies. Without a project every one is looked in; `id` may be its
    /// beginning or the taskId (here and below; see `named`).
    pub async fn get_work(&self, caller: &Allowed, id: &str) -> Result<WorkItem, WireError> {
        let project = caller.project();
        let (project, id) = self.find_item(project, id).await?;
        Ok(project.work.item(id, Bodies::With).await?)
    }

    /// One page of items without their bodies, in the order of their creation or the other way round.
    pub async fn list_work(
        &self,
        caller: &Allowed,
        request: ListWorkRequest,
    ) -> Result<Page<WorkItem>, WireError> {
        let project = self.project_of(caller);
        let limit = page_limit(request.limit)?;
        let start = start(request.order.as_deref(), request.cursor.as_deref())?;
        let mut filter = filter(&request)?;
        let Some(project) = self.active(project)? else {
            return Ok(Page {
                items: Vec::new(),
                info: PageInfo::default(),
            });
        };
        project.work.ready(READY_WITHIN).await?;
        filter.holder = self.holder(&project.id, request.assigned_to.as_deref())?;
        let mut page = project.work.filled_page(&filter, start, limit).await;
        let mut items = read_all(&project, &page.headers).await?;
        let fitting = self.how_many_fit(&items);
        tokio::task::yield_now().await;
        if fitting < items.len() {
            items.truncate(fitting);
            let last = items.last().map(|item| item.id);
            let last = page.headers.iter().find(|header| Some(header.id) == last);
            page.next = last.map(|header| header.created);
        }
        Ok(Page {
            info: PageInfo {
                count: items.len(),
                total: page.total,
                has_more: page.next.is_some(),
                next_cursor: page.next.map(|next| next.to_string()),
                prev_cursor: page.previous.map(|previous| previous.to_string()),
            },
            items,
        })
    }

    /// The agent that `assignedTo` names; a whole guid need not be known (any more).
    pub(super) fn holder(
        &self,
        project: &ProjectId,
        agent: Option<&str>,
    ) -> Result<Option<AgentGuid>, WireError> {
        let Some(agent) = agent else { return Ok(None) };
        match agent.parse() {
            Ok(guid) => Ok(Some(guid)),
            Err(_) => self
                .find_agent(Some(project), agent)
                .map(|(_, guid)| Some(guid)),
        }
    }

    /// Calls an item off. Its agent, if it has one, is told.
    pub async fn cancel(
        &self,
        caller: &Allowed,
        request: CancelRequest,
    ) -> Result<WorkItem, WireError> {
        let project = caller.project();
        for (field, text) in [("reason", &request.reason), ("by", &request.by)] {
            if text.as_ref().is_some_and(|text| text.len() > limits::ERROR) {
                return Err(WireError::new(
                    ErrorCode::TooLarge,
                    format!("{field} has more than {} bytes", limits::ERROR),
                ));
            }
        }
        let (project, id) = self.find_item(project, &request.id).await?;
        let by = request.by.unwrap_or_else(|| "client".into());
        let command = Command::Cancel {
            by,
            reason: request.reason.clone(),
            again: false,
        };
        let applied = project.ledger.apply(id, command).await?;
        if let Some(lease) = &applied.record.lease {
            let (guid, project) = (lease.holder.guid, project.clone());
            let attempt = applied.record.attempt;
            tokio::spawn(async move {
                let lease = LeaseRef { id, attempt };
                if let Err(error) = project.tell_cancelled(guid, lease, request.reason).await {
                    tracing::debug!(%guid, %id, "the agent could not be told of the cancellation: {error}");
                }
            });
        }
        Ok(project
            .work
            .view(&applied.record, applied.revision, Bodies::Without))
    }
}

/// Reads the records of a page; one that has gone meanwhile is left out.
async fn read_all(project: &Project, headers: &[Header]) -> Result<Vec<WorkItem>, WireError> {
    let ids: Vec<WorkId> = headers.iter().map(|header| header.id).collect();
    let mut reads = stream::iter(ids)
        .map(|id| project.work.item(id, Bodies::Without))
        .buffered(READS_IN_FLIGHT);
    let mut items = Vec::with_capacity(headers.len());
    while let Some(read) = reads.next().await {
        match read {
            Ok(item) => {
                items.push(item);
                // What is cached is there at once: a page in one piece would keep the thread.
                if items.len().is_multiple_of(READS_IN_FLIGHT) {
                    tokio::task::yield_now().await;
                }
            }
            Err(ReadError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(items)
}

/// Where a page begins: at a cursor, in an order.
pub(super) fn start(order: Option<&str>, cursor: Option<&str>) -> Result<Start, WireError> {
    let shown = |text: &str| text.chars().take(32).collect::<String>();
    let newest_first = match order {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => {
            return Err(WireError::invalid(format!(
                "order {:?} is neither asc (oldest first) nor desc (newest first)",
                shown(other)
            )));
        }
    };
    let place = cursor.map(|text| {
        text.parse().map_err(|_| {
            WireError::invalid(format!(
                "cursor {:?} is none of ours; take it from the page before",
                shown(text)
            ))
        })
    });
    Ok(Start::of(newest_first, place.transpose()?))
}

/// What a request wants, but for the agent: see [`Service::holder`].
pub(super) fn filter(request: &ListWorkRequest) -> Result<Filter, WireError> {
    let statuses = request
        .status
        .iter()
        .flat_map(|list| list.split(','))
        .map(|name| {
            WorkStatus::parse(name.trim()).ok_or_else(|| {
                let known = WorkStatus::ALL.map(WorkStatus::as_str).join(", ");
                let shown: String = name.chars().take(32).collect();
                WireError::invalid(format!("status {shown:?} is none of {known}"))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Filter {
        statuses,
        capability: request.capability.clone(),
        boundary: request.boundary.clone(),
        holder: None,
        label: request.label.clone(),
        since: request.since,
    })
}
