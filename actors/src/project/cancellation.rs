//! An agent is told that its item was called off, and the item is told when the agent was reached.
//!
//! `cancel.deliveredAt` is the first moment at which the agent is known to have been reached: an
//! answer that says so was made for it (a heartbeat's, with the order or with the lease among the lost
//! ones; the refusal of a write), or it said itself that it has stopped. That the order was published
//! proves nothing: nobody may have listened.

use loom_protocol::AgentGuid;
use loom_protocol::WireError;
use loom_protocol::agent::{Directive, DirectiveKind};
use loom_protocol::work::{LeaseRef, WorkStatus};

use super::Project;
use crate::domain::work::{Command, Fence, Refusal};
use crate::work_ledger::LedgerError;

impl Project {
    /// Tells the agent that held an item that it was called off: at once by a message, and in the
    /// answers to its heartbeats until it obeys.
    pub async fn tell_cancelled(
        &self,
        guid: AgentGuid,
        lease: LeaseRef,
        reason: Option<String>,
    ) -> Result<(), WireError> {
        let directive = Directive::cancel(lease, reason);
        self.registry.add_directive(guid, directive).await
    }

    /// The answer to a heartbeat carries these orders. Each is noted once, in the background.
    pub fn record_directives_delivered(&self, guid: AgentGuid, orders: &[Directive]) {
        if !orders.iter().any(|o| o.kind == DirectiveKind::Cancel) {
            return;
        }
        if let Some(entry) = self.agents.get(guid) {
            for lease in entry.carried_first(orders) {
                self.mark_cancel_delivered(guid, lease);
            }
        }
    }

    /// A write is refused to an agent: where its item was called off, it knows that now.
    pub fn refused(&self, guid: AgentGuid, lease: LeaseRef, error: &LedgerError) {
        if matches!(error, LedgerError::Refused(Refusal::Stale { .. })) {
            self.mark_cancel_delivered(guid, lease);
        }
    }

    /// Notes in the background that an agent knows that a lease is no longer valid, if that is so
    /// because somebody called the item off. Where it cannot be noted just now, the next answer will.
    pub fn mark_cancel_delivered(&self, guid: AgentGuid, lease: LeaseRef) {
        let header = self.work.header(lease.id);
        if header.is_none_or(|header| header.status != WorkStatus::Cancelled) {
            return;
        }
        let mark_cancel_delivered = Command::CancelDelivered(Fence {
            guid,
            attempt: Some(lease.attempt),
            reported_at: self.clock.now(),
        });
        let (ledger, agents, id) = (self.ledger.clone(), self.agents.clone(), lease.id);
        tokio::spawn(async move {
            if let Err(error) = ledger.apply(id, mark_cancel_delivered).await {
                tracing::debug!(%guid, %id, "that the agent knows of the cancellation was not noted: {error}");
                if let Some(entry) = agents.get(guid) {
                    entry.not_noted(lease);
                }
            }
        });
    }
}
