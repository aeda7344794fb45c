//! The orders that the registry gives to agents, as everybody else asks for them.

use std::time::Duration;

use loom_protocol::agent::{Agent, Directive, ShutdownRequest};
use loom_protocol::event::ShutdownReason;
use loom_protocol::{AgentGuid, ErrorCode, WireError};
use tokio::time::Instant;

use super::handle::AgentRegistryHandle;
use super::messages::{Msg, ShutdownCommand};
use crate::domain::agent::MAX_TEXT;

/// The longest that an agent may be given to end, in milliseconds: a day.
const MAX_GRACE_MS: u64 = 24 * 3_600_000;

impl AgentRegistryHandle {
    /// Tells an agent to end: published once, and repeated by every heartbeat answer until it is
    /// gone. It takes no work from now on. Of the request everything but the guid counts; without
    /// a grace period it gets `idle_grace`, and none at all where `graceful` is false.
    pub async fn shutdown(
        &self,
        guid: AgentGuid,
        request: ShutdownRequest,
    ) -> Result<Agent, WireError> {
        let order = self.order_to_end(request, ShutdownReason::Manual)?;
        self.ask(|reply| Msg::Shutdown {
            guid,
            order: order.clone(),
            reply,
        })
        .await
    }

    /// As [`AgentRegistryHandle::shutdown`], of one that has had nothing to do for too long, and that is offered nothing
    /// until `before`. Whether it is told: not where it has something to do by now, or where that time is over.
    pub async fn send_home_idle(
        &self,
        guid: AgentGuid,
        reason: &str,
        before: Instant,
    ) -> Result<bool, WireError> {
        let order = self.order_to_end(because(reason, true), ShutdownReason::IdleTimeout)?;
        self.ask(|reply| Msg::SendHome {
            guid,
            order: order.clone(),
            before,
            reply,
        })
        .await
    }

    /// Tells an agent to end at once that was told before, for the same cause. `not-registered` for one that has gone.
    pub async fn insist_on_end(&self, guid: AgentGuid, reason: &str) -> Result<Agent, WireError> {
        let cause = self.directory.get(guid).and_then(|entry| entry.end_cause());
        let cause = cause.unwrap_or(ShutdownReason::Manual);
        let order = self.order_to_end(because(reason, false), cause)?;
        self.ask(|reply| Msg::Shutdown {
            guid,
            order: order.clone(),
            reply,
        })
        .await
    }

    fn order_to_end(
        &self,
        request: ShutdownRequest,
        cause: ShutdownReason,
    ) -> Result<ShutdownCommand, WireError> {
        let graceful = request.graceful.unwrap_or(true);
        let default_grace = if graceful {
            self.default_grace
        } else {
            Duration::ZERO
        };
        let reason = request
            .reason
            .unwrap_or_else(|| "ordered by an operator".to_owned());
        if reason.len() > MAX_TEXT {
            let message = format!(
                "reason has {} bytes; at most {MAX_TEXT} are allowed",
                reason.len()
            );
            return Err(WireError::new(ErrorCode::TooLarge, message));
        }
        if let Some(millis) = request.grace_period_ms
            && millis > MAX_GRACE_MS
        {
            return Err(WireError::invalid(format!(
                "gracePeriodMs is {millis}; write a whole number from 0 to {MAX_GRACE_MS}"
            )));
        }
        Ok(ShutdownCommand {
            graceful,
            grace: request
                .grace_period_ms
                .map_or(default_grace, Duration::from_millis),
            reason,
            cause,
        })
    }

    /// Gives an order: published once, and repeated by every heartbeat answer until it is
    /// cleared. Of two about the same (kind, item, attempt) the later one counts.
    pub async fn add_directive(
        &self,
        guid: AgentGuid,
        directive: Directive,
    ) -> Result<(), WireError> {
        self.ask(|reply| Msg::AddDirective {
            guid,
            directive: directive.clone(),
            reply,
        })
        .await
    }

    /// Takes back the order about the same kind, item and attempt.
    pub async fn clear_directive(
        &self,
        guid: AgentGuid,
        directive: Directive,
    ) -> Result<(), WireError> {
        self.ask(|reply| Msg::ClearDirective {
            guid,
            directive: directive.clone(),
            reply,
        })
        .await
    }
}

/// A request to end for this reason, with the usual grace or none.
fn because(reason: &str, graceful: bool) -> ShutdownRequest {
    ShutdownRequest {
        guid: String::new(),
        graceful: Some(graceful),
        grace_period_ms: None,
        reason: Some(reason.to_owned()),
    }
}
