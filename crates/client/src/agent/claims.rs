//! Takes work in: one open claim at a time, for as many items as there are free slots.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::work::{ClaimAnswer, ThenClaim};

use super::claim_request::{claim_once, new_claim};
use super::core::Core;
use super::notifications::AgentNotification;
use super::supervise;
use crate::retry::Backoff;

/// How much longer than the claim's own wait an answer may take.
const ANSWER_MARGIN: Duration = Duration::from_secs(3);

/// Claims for as long as the agent lives.
pub(crate) async fn claim(core: Arc<Core>) {
    loop {
        let change = core.change();
        if core.claimable(0) == 0 {
            change.await;
            continue;
        }
        // The semaphore is never closed.
        let Ok(_permit) = core.claim_permit.acquire().await else {
            return;
        };
        let max = core.claimable(0);
        if max == 0 {
            continue;
        }
        let wait = claim_wait(&core);
        let claim = new_claim(max, wait);
        let items = answered(&core, &claim, wait).await;
        if items.items.is_empty() && core.is_idle() && core.claimable(0) > 0 {
            core.notifier.notify(AgentNotification::Idle);
        }
        supervise::begin(&core, items.items);
    }
}

/// A claim that was open when its coordinator died is answered by nobody. So it waits no longer
/// than a heartbeat's interval: that bounds how long an idle agent sleeps through a restart.
fn claim_wait(core: &Core) -> Duration {
    core.plan.claim_wait.unwrap_or_else(|| {
        core.heartbeat_every()
            .clamp(Duration::from_secs(1), Duration::from_secs(30))
    })
}

/// Repeats one claim, under its name, until it is answered.
async fn answered(core: &Core, claim: &ThenClaim, wait: Duration) -> ClaimAnswer {
    let mut backoff = Backoff::of_request();
    loop {
        let claim_again = core.claim_again.notified();
        let error = tokio::select! {
            answer = claim_once(core, claim, wait + ANSWER_MARGIN) => match answer {
                Ok(answer) => return answer,
                Err(error) => error,
            },
            () = claim_again => continue,
        };
        if core.reregister_on(&error).await || error.is_transient() {
            tracing::debug!(%error, "a claim was not answered");
        } else {
            tracing::error!(%error, "a claim was refused");
        }
        let asked_for = error.wire().and_then(|wire| wire.retry_after_ms);
        tokio::time::sleep(backoff.pause(asked_for.map(Duration::from_millis))).await;
        if !core.is_running() {
            // What the claim may have been given goes back when the agent deregisters.
            return ClaimAnswer::default();
        }
    }
}
