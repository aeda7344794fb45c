//! Reports by JetStream publish: they count even if nobody is there to answer.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use loom_protocol::work::{CompleteItem, CompletedReport, ErrorReport, FailRequest};
use loom_protocol::{Encoding, names};
use serde::Serialize;

use super::core::Core;
use super::job::Job;

/// What is published if no answer comes; written only then.
#[derive(Clone, Copy)]
pub(crate) enum Durable<'a> {
    /// Nothing: clocks of the coordinator see to it.
    Nothing,
    /// For `loom.{p}.work.completed`.
    Completions(&'a [(Job, CompleteItem)]),
    /// For `loom.{p}.work.errors`.
    Failure(&'a Job, &'a FailRequest),
}

impl Durable<'_> {
    /// Publishes what the stream doesn't have yet.
    pub(crate) async fn publish(self, core: &Core) {
        match self {
            Self::Nothing => {}
            Self::Completions(completions) => {
                for (job, item) in completions {
                    publish_once(core, job, || completed(core, job, item)).await;
                }
            }
            Self::Failure(job, request) => {
                publish_once(core, job, || failed(core, job, request)).await;
            }
        }
    }
}

async fn publish_once(core: &Core, job: &Job, publication: impl FnOnce() -> Publication) {
    if !job.is_published() && core.client.is_connected() && publication().publish(core).await {
        job.set_published();
        core.changed.notify_waiters();
    }
}

fn completed(core: &Core, job: &Job, item: &CompleteItem) -> Publication {
    let report = CompletedReport {
        work_item_id: item.id,
        task_id: Some(job.item().task_id.clone()),
        agent_guid: core.guid,
        instance_id: core.instance_id.clone(),
        attempt: Some(item.attempt),
        result: item.result.clone(),
        usage: item.usage.clone(),
        session: item.session.clone(),
        evidence: item.evidence.clone(),
    };
    Publication::new(
        names::work_completed(core.client.project()),
        core,
        job,
        &report,
    )
}

fn failed(core: &Core, job: &Job, request: &FailRequest) -> Publication {
    let report = ErrorReport {
        work_item_id: request.id,
        task_id: Some(job.item().task_id.clone()),
        agent_guid: core.guid,
        instance_id: core.instance_id.clone(),
        attempt: Some(request.attempt),
        error: request.error.clone(),
        reason: request.reason,
        usage: request.usage.clone(),
        session: request.session.clone(),
        evidence: request.evidence.clone(),
    };
    Publication::new(
        names::work_errors(core.client.project()),
        core,
        job,
        &report,
    )
}

/// A report to be published. Publishing it twice counts once: its id is that of this run, this lease, and
/// nobody else's, so that a message which the stream has already is an earlier try of ours.
struct Publication {
    subject: String,
    message_id: String,
    payload: Bytes,
}

impl Publication {
    fn new(subject: String, core: &Core, job: &Job, report: &impl Serialize) -> Self {
        let lease = job.lease_ref();
        Self {
            subject,
            message_id: names::report_id(lease.id, lease.attempt, core.instance_id.as_deref()),
            // What can't be written was refused before it came here.
            payload: Encoding::Json.encode(report).unwrap_or_default().into(),
        }
    }

    /// Publishes it; true once the work stream has it.
    async fn publish(&self, core: &Core) -> bool {
        if self.payload.is_empty() {
            return false;
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, self.message_id.as_str());
        let published = async {
            let stream = core.client.jetstream();
            let ack = stream
                .publish_with_headers(self.subject.clone(), headers, self.payload.clone())
                .await?;
            ack.await
        };
        let expected = names::work_stream(core.client.project());
        match published.await {
            // A stream of somebody else's over our subjects: the coordinator will not read it there.
            Ok(ack) if ack.stream != expected => {
                tracing::warn!(
                    report = self.message_id,
                    stream = ack.stream,
                    expected,
                    "the report went into another stream than the coordinator reads; it is published again later"
                );
                false
            }
            Ok(_) => {
                tracing::info!(
                    report = self.message_id,
                    "the coordinator is away; the report is in the stream"
                );
                true
            }
            Err(error) => {
                tracing::debug!(report = self.message_id, %error, "the report could not be published");
                false
            }
        }
    }
}
