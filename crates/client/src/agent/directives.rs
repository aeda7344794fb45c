//! Orders from the coordinator.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use loom_protocol::agent::{Directive, DirectiveKind, ShutdownNotice};
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::work::{LeaseRef, StoppedRequest, WorkItem};
use loom_protocol::{Encoding, VerbName, names};

use super::core::Core;
use super::job::CancelCause;
use crate::client::header;
use crate::error::{ClientError, ErrorKind};

/// Listens to both subjects that orders come by. The subscriptions outlive reconnects.
pub(crate) async fn listen(core: Arc<Core>) -> Result<(), ClientError> {
    let subscribe = async |subject: String| {
        let subscribed = core.client.nats().subscribe(subject).await;
        subscribed.map_err(|e| ClientError::new(ErrorKind::Disconnected, e.to_string()))
    };
    let project = core.client.project();
    let mut directives = subscribe(names::directive(project, core.guid)).await?;
    let mut notices = subscribe(names::agent_shutdown(project, core.guid)).await?;
    loop {
        let message = tokio::select! {
            message = directives.next() => message,
            message = notices.next() => message,
        };
        let Some(message) = message else {
            return Ok(());
        };
        let encoding = Encoding::from_content_type(header(&message, CONTENT_TYPE));
        if let Ok(directive) = encoding.decode::<Directive>(&message.payload) {
            obey(&core, &directive);
        } else if let Ok(notice) = encoding.decode::<ShutdownNotice>(&message.payload) {
            if is_for_another_run(&core, notice.instance_id.as_ref()) {
                continue;
            }
            let grace = Duration::from_millis(notice.grace_period_ms);
            let grace = if notice.graceful {
                grace
            } else {
                Duration::ZERO
            };
            core.shut_down(&notice.reason, grace);
        } else {
            tracing::warn!(subject = %message.subject, "an order that can't be read is passed over");
        }
    }
}

/// Whether an order was given to another run of the agent.
fn is_for_another_run(core: &Core, run: Option<&String>) -> bool {
    run.is_some() && run != core.instance_id.as_ref()
}

/// Does what a directive says, if it is for this run. Each may come several times.
pub(crate) fn obey(core: &Arc<Core>, directive: &Directive) {
    if is_for_another_run(core, directive.instance_id.as_ref()) {
        tracing::debug!(
            ?directive,
            "an order to another run of this agent is passed over"
        );
        return;
    }
    let reason = directive.reason.as_deref().unwrap_or("no reason given");
    let grace = directive.grace_ms.map(Duration::from_millis);
    match directive.kind {
        DirectiveKind::Cancel => cancel(core, directive, grace),
        DirectiveKind::Shutdown => {
            let because = format!("told to shut down: {reason}");
            core.shut_down(&because, grace.unwrap_or(core.plan.grace));
        }
        DirectiveKind::Pause => core.set_paused(Some(reason)),
        DirectiveKind::Resume => {
            core.set_paused(None);
            // Said by a coordinator that has just come up, it also means that open claims are lost.
            core.claim_again.notify_waiters();
        }
        DirectiveKind::Register => {
            let registering = core.clone();
            core.spawn(async move {
                let core = registering;
                match core.register().await {
                    Ok(()) => core.claim_again.notify_waiters(),
                    Err(error) => tracing::error!(%error, "registering again was refused"),
                }
            });
        }
        DirectiveKind::Unknown => {
            tracing::debug!(?directive, "an order of a later version is passed over");
        }
    }
}

fn cancel(core: &Arc<Core>, directive: &Directive, grace: Option<Duration>) {
    let Some(id) = directive.work_item_id else {
        return;
    };
    let meant = |lease: LeaseRef| {
        lease.id == id
            && directive
                .attempt
                .is_none_or(|attempt| attempt == lease.attempt)
    };
    let mut found = false;
    for job in core.jobs().iter().filter(|job| meant(job.lease_ref())) {
        job.cancel(CancelCause::Cancelled, grace);
        found = true;
    }
    if let (false, Some(attempt)) = (found, directive.attempt) {
        // Nothing to stop: say so, or the order will be repeated.
        let stopping = core.clone();
        core.spawn(async move {
            let core = stopping;
            let request = StoppedRequest {
                id,
                guid: core.guid,
                instance_id: core.instance_id.clone(),
                attempt,
                result: None,
                usage: None,
                session: None,
            };
            let answer = core
                .client
                .request::<WorkItem>(VerbName::WorkStopped, &request);
            if let Err(error) = answer.await
                && !core.note_dismissed(&error)
            {
                tracing::debug!(%error, item = %id, "stopping was not acknowledged");
            }
        });
    }
}
