//! Reports how jobs ended, until somebody has taken note.
//!
//! Completions that are ready together go in one request, which also claims the next items where no
//! other claim is open. While nobody answers, a report is repeated; after a while it is also
//! published durably, so that it counts even if this agent dies before the coordinator is back.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use loom_protocol::VerbName;
use loom_protocol::work::{
    CompleteAnswer, CompleteItem, CompleteRequest, ItemAnswer, ReleaseRequest, StoppedRequest,
    limits,
};
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::Core;
use super::durable::Durable;
use super::ending::{Ending, Report};
use super::job::Job;
use super::{claim_request, ending, supervise};
use crate::error::{ClientError, ErrorKind};
use crate::retry::Backoff;

/// How many completions one request carries at the most.
const PER_REQUEST: usize = limits::COMPLETIONS;
/// How long the coordinator may be away before a report is published as well.
const PUBLISH_AFTER: Duration = Duration::from_secs(3);
/// How long giving back or acknowledging is tried; after that the coordinator's clocks see to it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// Reports for as long as the agent lives.
pub(crate) async fn report(core: Arc<Core>, mut reports: mpsc::Receiver<Report>) {
    let mut ready = Vec::new();
    while reports.recv_many(&mut ready, PER_REQUEST).await > 0 {
        let mut completions = Vec::new();
        for Report { job, ending } in ready.drain(..) {
            match ending {
                Ending::Complete(item) => completions.push((job, *item)),
                other => core.spawn(deliver(core.clone(), job, other)),
            }
        }
        if !completions.is_empty() {
            complete(&core, completions).await;
        }
    }
}

/// Reports completions, in as few requests as the payload limit allows.
async fn complete(core: &Arc<Core>, completions: Vec<(Job, CompleteItem)>) {
    let mut rest = vec![completions];
    while let Some(mut batch) = rest.pop() {
        // Where another claim is open already, the next items come by that. The permit is held until
        // they are begun, so that no other claim counts their slots as free.
        let permit = core.claim_permit.try_acquire().ok();
        match complete_at_once(core, &batch, permit.is_some()).await {
            Err(error) if error.kind() == ErrorKind::TooLarge && batch.len() > 1 => {
                let second = batch.split_off(batch.len() / 2);
                rest.extend([second, batch]);
            }
            Err(error) if !error.is_transient() && batch.len() > 1 => {
                rest.extend(batch.into_iter().rev().map(|one| vec![one]));
            }
            Err(error) => {
                for (job, _) in batch {
                    not_taken(core, job, &error);
                }
            }
            Ok(answer) => {
                let (items, claimed) = match answer {
                    CompleteAnswer::Many { items, claimed } => (items, claimed),
                    CompleteAnswer::One { item, claimed } => {
                        (vec![ItemAnswer::Done(*item)], claimed)
                    }
                };
                let mut answers = items.into_iter();
                for (job, _) in batch {
                    match answers.next().map(Result::from) {
                        Some(Ok(_)) | None => core.free(job.lease_ref(), &core.counts.completed),
                        Some(Err(wire)) => not_taken(core, job, &wire.into()),
                    }
                }
                supervise::begin(core, claimed.unwrap_or_default());
            }
        }
    }
}

async fn complete_at_once(
    core: &Core,
    batch: &[(Job, CompleteItem)],
    and_claim: bool,
) -> Result<CompleteAnswer<IgnoredAny>, ClientError> {
    let then_claim = Some(core.claimable(batch.len()))
        .filter(|max| and_claim && *max > 0)
        .map(|max| claim_request::new_claim(max, Duration::ZERO));
    let request = CompleteRequest {
        guid: core.guid,
        instance_id: core.instance_id.clone(),
        id: None,
        attempt: None,
        result: None,
        usage: None,
        session: None,
        evidence: None,
        items: Some(batch.iter().map(|(_, item)| item.clone()).collect()),
        then_claim,
    };
    let payload = core.client.encode(&request)?;
    let durable = Durable::Completions(batch);
    let message = answered(core, VerbName::WorkComplete, payload, durable, None).await?;
    core.client.decode(&message)
}

/// A completion that was refused: the lease is gone, or the result can't be taken as it is.
fn not_taken(core: &Arc<Core>, job: Job, error: &ClientError) {
    let lease = job.lease_ref();
    if error.is_lease_gone() || error.is_transient() {
        tracing::warn!(item = %lease.id, attempt = lease.attempt, %error, "a result was not taken");
        core.free_untaken(&job);
        return;
    }
    let instead = ending::refused(&job, error);
    core.spawn(deliver(core.clone(), job, instead));
}

/// Reports an end by itself.
async fn deliver(core: Arc<Core>, job: Job, ending: Ending) {
    let lease = job.lease_ref();
    let (count, outcome) = match ending {
        Ending::Complete(item) => return complete(&core, vec![(job, *item)]).await,
        Ending::Settled => return core.free(lease, &core.counts.settled),
        Ending::Fail(mut request) => {
            request.instance_id.clone_from(&core.instance_id);
            let durable = Durable::Failure(&job, &request);
            let sent = send(&core, VerbName::WorkFail, request.as_ref(), durable, None).await;
            (&core.counts.failed, sent)
        }
        Ending::Release(release) => {
            let request = ReleaseRequest {
                id: lease.id,
                guid: core.guid,
                instance_id: core.instance_id.clone(),
                attempt: lease.attempt,
                reason: release.reason,
                message: release.message,
                not_before: release.not_before,
                pause_until: release.pause_until,
                usage: release.told.usage,
                session: release.told.session,
            };
            let limit = Some(GIVE_UP_AFTER);
            let sent = send(
                &core,
                VerbName::WorkRelease,
                &request,
                Durable::Nothing,
                limit,
            )
            .await;
            (&core.counts.returned, sent)
        }
        Ending::Stopped(result, told) => {
            let request = StoppedRequest {
                id: lease.id,
                guid: core.guid,
                instance_id: core.instance_id.clone(),
                attempt: lease.attempt,
                result,
                usage: told.usage,
                session: told.session,
            };
            let limit = Some(GIVE_UP_AFTER);
            let sent = send(
                &core,
                VerbName::WorkStopped,
                &request,
                Durable::Nothing,
                limit,
            )
            .await;
            (&core.counts.cancelled, sent)
        }
    };
    match outcome {
        Ok(()) => core.free(lease, count),
        Err(error) => {
            tracing::warn!(item = %lease.id, attempt = lease.attempt, %error, "an end was not taken");
            core.free_untaken(&job);
        }
    }
}

async fn send(
    core: &Core,
    verb: VerbName,
    request: &impl Serialize,
    durable: Durable<'_>,
    give_up_after: Option<Duration>,
) -> Result<(), ClientError> {
    let payload = core.client.encode(request)?;
    answered(core, verb, payload, durable, give_up_after).await?;
    Ok(())
}

/// Sends a report until it is answered other than transiently, publishing it when that takes long.
async fn answered(
    core: &Core,
    verb: VerbName,
    payload: Bytes,
    durable: Durable<'_>,
    give_up_after: Option<Duration>,
) -> Result<Message, ClientError> {
    let started = Instant::now();
    let mut backoff = Backoff::of_request();
    loop {
        let timeout = core.client.options().request_timeout;
        let error = match core
            .client
            .call_once(verb.as_str(), payload.clone(), timeout)
            .await
        {
            Err(error) if core.reregister_on(&error).await || error.is_transient() => error,
            settled => return settled,
        };
        tracing::debug!(%verb, %error, "a report is repeated");
        if started.elapsed() > PUBLISH_AFTER || !core.is_running() {
            durable.publish(core).await;
        }
        if give_up_after.is_some_and(|limit| started.elapsed() > limit) {
            return Err(error);
        }
        let asked_for = error.wire().and_then(|wire| wire.retry_after_ms);
        tokio::time::sleep(backoff.pause(asked_for.map(Duration::from_millis))).await;
    }
}
