//! The queue as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loom_actors::domain::work::Command;
use loom_actors::nats::error::{Resource, StoreError};
use loom_actors::work_dispatcher::ensure_stream;
use loom_actors::work_ledger::{Filter, Operation};
use loom_protocol::work::{PurgeAnswer, PurgeRequest, QueueInfo, WorkStatus};
use loom_protocol::{WireError, names};

use super::{READY_WITHIN, Service, check_scope};
use crate::access::Allowed;

/// How long a request waits until it is known whether the store is the right one.
const STORE_KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// How many items are cancelled together.
const PURGE_BATCH: usize = 512;

impl Service {
    /// What waits, by capability, and what is published and not taken over yet.
    pub async fn queue_info(&self, caller: &Allowed) -> Result<QueueInfo, WireError> {
        let project = self.project_of(caller);
        let stream = names::work_stream(project);
        let Some(project) = self.active(project)? else {
            return Ok(QueueInfo {
                stream,
                messages: 0,
                pending: BTreeMap::new(),
                oldest_pending: None,
            });
        };
        project.work.ready(READY_WITHIN).await?;
        let projects = self.projects();
        let terms = projects.terms();
        let known = project
            .work
            .guard()
            .settled_within(STORE_KNOWN_WITHIN)
            .await;
        known?;
        let opened = ensure_stream(&terms.nats.jetstream, &project.id, terms.replicas).await?;
        let info = opened.get_info().await.map_err(|error| {
            let resource = Resource::stream(stream.as_str());
            StoreError::unknown("asking for the state of", &resource, error)
        })?;
        let mut pending = BTreeMap::new();
        for (needs, count) in project.work.pending_by_needs() {
            *pending.entry(needs.capability.to_string()).or_default() += count;
        }
        Ok(QueueInfo {
            stream,
            messages: info.state.messages,
            pending,
            oldest_pending: project.work.oldest_pending(),
        })
    }

    /// Cancels what is pending and matches, or all that is pending. What is submitted meanwhile stays.
    pub async fn purge(
        &self,
        caller: &Allowed,
        request: PurgeRequest,
    ) -> Result<PurgeAnswer, WireError> {
        let project = self.project_of(caller);
        let named = [&request.capability, &request.boundary, &request.label];
        let has_filter = named.into_iter().any(Option::is_some);
        check_scope(has_filter, request.all, "capability, boundary or label")?;
        let filter = Filter {
            statuses: vec![WorkStatus::Pending],
            capability: request.capability,
            boundary: request.boundary,
            holder: None,
            label: request.label,
            since: None,
        };
        let Some(project) = self.active(project)? else {
            return Ok(PurgeAnswer { purged: 0 });
        };
        project.work.ready(READY_WITHIN).await?;
        let command = Arc::new(Command::Cancel {
            by: "queue.purge".into(),
            reason: None,
            again: false,
        });
        let (mut purged, mut after) = (0, 0);
        loop {
            let page = project.work.page(&filter, after, PURGE_BATCH);
            let operations = page
                .headers
                .iter()
                .map(|header| Operation::Apply(header.id, command.clone()))
                .collect();
            for outcome in project.ledger.carry_out(operations).await? {
                match outcome {
                    Ok(_) => purged += 1,
                    Err(loom_actors::work_ledger::LedgerError::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(PurgeAnswer { purged }),
            }
        }
    }
}
