//! Giving work to an agent: a claim, by itself or after a completion.

use loom_actors::domain::room::Room;
use std::time::Duration;

use loom_actors::domain::work::{Bodies, Command, feedback};
use loom_actors::project::Project;
use loom_actors::work_dispatcher::{Admission, Claim};
use loom_actors::work_ledger::Applied;
use loom_protocol::token::{check_label, check_token};
use loom_protocol::work::{ClaimAnswer, ClaimRequest, ClaimedItem, ThenClaim, WorkItem, limits};
use loom_protocol::{AgentGuid, WireError, WorkId};
use tokio::time::Instant;

use super::Service;
use crate::access::Allowed;

impl Service {
    /// Gives an agent what it may take, highest priority first; waits for the first if asked to.
    /// `admission` is given back before the wait.
    pub async fn claim(
        &self,
        caller: &Allowed,
        request: ClaimRequest,
        admission: &Admission,
    ) -> Result<ClaimAnswer, WireError> {
        let (guid, run) = (request.guid, request.instance_id);
        let project = self.admit(caller, guid, run.as_deref()).await?;
        let order = claim_order(guid, run, request.claim, admission)?;
        let items = self.claim_in(&project, order).await?;
        Ok(ClaimAnswer { items })
    }

    async fn claim_in(
        &self,
        project: &Project,
        order: Claim,
    ) -> Result<Vec<ClaimedItem>, WireError> {
        let given = project.dispatcher.claim(order).await?;
        let mut items = Vec::with_capacity(given.len());
        for applied in given {
            let lease = self.lease_of(project, &applied.record);
            if let Some(work_item) = self.to_be_given(project, &applied).await {
                items.push(ClaimedItem { work_item, lease });
            }
        }
        Ok(items)
    }

    /// The item as its agent gets it: where an answer cannot carry it, without its earlier errors and checks; where
    /// it cannot carry that either (the server's limit has been lowered since it was taken in), it has
    /// failed, and the slot is free.
    async fn to_be_given(&self, project: &Project, applied: &Applied) -> Option<WorkItem> {
        let (record, room) = (
            &applied.record,
            Room::of(self.projects().terms().nats.max_payload()),
        );
        let mut item = project.work.view(record, applied.revision, Bodies::With);
        item.feedback = feedback(record);
        if room.can_be_given(record, &item).is_ok() {
            return Some(item);
        }
        item.errors.clear();
        item.evidence.clear();
        item.feedback.clear();
        let size = room.can_be_given(record, &item).err();
        let Some(size) = size else {
            return Some(item);
        };
        let most = room.record();
        let why = format!(
            "no agent can be given it: it takes {size} bytes in an answer, and max_payload of the nats-server leaves {most}"
        );
        tracing::error!(id = %record.id, size, "{why}");
        let attempt = record.attempt;
        let given_up = Command::GiveUpForSize { attempt, why };
        if let Err(error) = project.ledger.apply(record.id, given_up).await {
            tracing::warn!(id = %record.id, "it could not be failed: {error}");
        }
        None
    }

    /// The completion is recorded whatever becomes of the claim, so a failed claim gives nothing.
    pub(super) async fn then_claim(
        &self,
        project: &Project,
        order: Option<Claim>,
    ) -> Option<Vec<ClaimedItem>> {
        let order = order?;
        let guid = order.guid;
        let claimed = self.claim_in(project, order).await;
        Some(claimed.unwrap_or_else(|error| {
            tracing::debug!(%guid, "thenClaim gave nothing: {error}");
            Vec::new()
        }))
    }
}

pub(super) fn claim_order(
    guid: AgentGuid,
    instance_id: Option<String>,
    claim: ThenClaim,
    admission: &Admission,
) -> Result<Claim, WireError> {
    let resume = claim.resume.unwrap_or_default();
    if resume.len() > limits::CLAIM_MAX as usize {
        return Err(WireError::invalid(format!(
            "resume names {} leases; name at most {}",
            resume.len(),
            limits::CLAIM_MAX
        )));
    }
    let named = u32::try_from(resume.len()).unwrap_or(limits::CLAIM_MAX);
    let is_offered_more = claim.max != Some(0) || resume.is_empty();
    let max = claim.max.filter(|_| is_offered_more);
    let max = max.unwrap_or(named.max(1));
    if !(1..=limits::CLAIM_MAX).contains(&max) {
        return Err(WireError::invalid(format!(
            "max is {max}; write a number from 1 to {}",
            limits::CLAIM_MAX
        )));
    }
    let wait_ms = claim.wait_ms.unwrap_or(0);
    if wait_ms > limits::CLAIM_WAIT_MS {
        return Err(WireError::invalid(format!(
            "waitMs is {wait_ms}; write a number from 0 to {}",
            limits::CLAIM_WAIT_MS
        )));
    }
    for capability in claim.capabilities.iter().flatten() {
        check_label("capability", capability)?;
    }
    if let Some(claim_id) = &claim.claim_id {
        check_token("claimId", claim_id)?;
    }
    Ok(Claim {
        guid,
        instance_id,
        claim_id: claim
            .claim_id
            .unwrap_or_else(|| WorkId::generate().to_string()),
        // What asks for no capability is offered nothing.
        capabilities: claim
            .capabilities
            .filter(|_| is_offered_more)
            .or_else(|| (!is_offered_more).then(Vec::new)),
        max: max as usize,
        wait_until: (wait_ms > 0).then(|| Instant::now() + Duration::from_millis(wait_ms)),
        start: claim.start,
        resume,
        admission: admission.clone(),
    })
}
