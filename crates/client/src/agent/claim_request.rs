//! One request for work: made, and asked once.

use std::time::Duration;

use loom_protocol::VerbName;
use loom_protocol::work::{ClaimAnswer, ClaimRequest, ThenClaim};
use uuid::Uuid;

use super::core::Core;
use crate::error::ClientError;

/// A claim with a name of its own, by which a lost answer can be asked for again.
pub(crate) fn new_claim(max: u32, wait: Duration) -> ThenClaim {
    ThenClaim {
        claim_id: Some(Uuid::new_v4().to_string()),
        capabilities: None,
        max: Some(max),
        wait_ms: u64::try_from(wait.as_millis()).ok(),
        start: true,
        resume: None,
    }
}

/// Asks once.
///
/// # Errors
/// No answer within `timeout`, or a refusal.
pub(crate) async fn claim_once(
    core: &Core,
    claim: &ThenClaim,
    timeout: Duration,
) -> Result<ClaimAnswer, ClientError> {
    let request = ClaimRequest {
        guid: core.guid,
        instance_id: core.instance_id.clone(),
        claim: claim.clone(),
    };
    let payload = core.client.encode(&request)?;
    let message = core
        .client
        .call_once(VerbName::WorkClaim.as_str(), payload, timeout)
        .await?;
    core.client.decode(&message)
}
