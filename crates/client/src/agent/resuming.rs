//! What becomes of a job whose lease was taken back, most likely because the agent was away: its item is claimed
//! again by name (`resume`), and the handler goes on under the new attempt.
//!
//! | answer | then |
//! |---|---|
//! | the item | the job goes on under the new attempt |
//! | not the item: somebody else has had it, or it has ended | the handler is told to stop, what it comes to is discarded |
//! | none, or `unavailable` | nothing: whoever said that the lease is lost says it again |
//! | a refusal (a coordinator that knows no `resume`) | as where somebody else has it |
//!
//! While the claim is under way a handler that ends waits for it: what it came to is reported under the attempt that
//! counts. Where nobody answers it is reported under the old one, and counts as long as nobody has had the item since.

use std::sync::Arc;

use loom_protocol::work::{ClaimedItem, LeaseRef, ThenClaim};

use super::claim_request::claim_once;
use super::core::Core;
use super::job::{CancelCause, Job};
use crate::error::ClientError;

/// A lease is said to be lost. May be called again and again.
pub(crate) fn lost(core: &Arc<Core>, job: &Job, lease: LeaseRef) {
    let goes_on = core.plan.resumes && core.is_running() && job.cancel_cause().is_none();
    if goes_on {
        core.spawn(resume(core.clone(), job.clone(), lease));
    } else {
        job.cancel(CancelCause::LeaseLost, None);
    }
}

async fn resume(core: Arc<Core>, job: Job, lease: LeaseRef) {
    let Ok(_one_at_a_time) = job.resuming().try_lock() else {
        return;
    };
    // A report under way decides by its own answer.
    if job.lease_ref() != lease || job.is_reporting() || job.is_settled() {
        return;
    }
    match claimed_again(&core, lease).await {
        Ok(Some(claimed)) => {
            tracing::warn!(
                item = %lease.id, attempt = claimed.lease.attempt, before = lease.attempt,
                "the lease was lost, and the item is claimed again"
            );
            core.renew(&job, claimed.lease);
        }
        Ok(None) => job.cancel(CancelCause::LeaseLost, None),
        Err(error) if core.reregister_on(&error).await || error.is_transient() => {
            tracing::debug!(%error, item = %lease.id, "whether an item can be had again is not known yet");
        }
        Err(error) => {
            tracing::debug!(%error, item = %lease.id, "an item cannot be had again");
            job.cancel(CancelCause::LeaseLost, None);
        }
    }
}

async fn claimed_again(core: &Core, lease: LeaseRef) -> Result<Option<ClaimedItem>, ClientError> {
    let claim = ThenClaim {
        // Asked again after a lost answer it is the same claim.
        claim_id: Some(format!("resume-{}-{}", lease.id, lease.attempt)),
        capabilities: None,
        max: Some(0),
        wait_ms: None,
        start: true,
        resume: Some(vec![lease]),
    };
    let timeout = core.client.options().request_timeout;
    let answer = claim_once(core, &claim, timeout).await?;
    let mut items = answer.items.into_iter();
    Ok(items.find(|claimed| claimed.work_item.id == lease.id))
}
