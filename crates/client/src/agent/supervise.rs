//! Watches over one job: runs its handler, keeps its lease alive, sees to it that it stops.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::text::without_end;
use loom_protocol::work::{ClaimedItem, Lease, ProgressRequest, limits};
use loom_protocol::{ErrorCode, VerbName};
use tokio::task::{JoinError, JoinHandle};

use super::core::Core;
use super::end::{JobEnd, JobError};
use super::job::{CancelCause, Job, Progress};
use super::resuming;

/// How often progress is sent at the most.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
/// How long it may take to tell what an attempt has used up that did not complete.
/// How long an aborted handler may take to reach its next `.await`.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// Begins what was claimed; gives it back if the agent takes no more by now.
pub(crate) fn begin(core: &Arc<Core>, items: Vec<ClaimedItem>) {
    for job in items.into_iter().filter_map(|claimed| core.admit(claimed)) {
        if let Some(because) = core.notifier.suspended() {
            let not_before = None;
            core.report(
                job,
                JobEnd::GivenBack {
                    because,
                    not_before,
                },
            );
        } else if core.is_running() {
            core.note_begun();
            let lease = job.lease_ref();
            tracing::info!(item = %lease.id, attempt = lease.attempt, "begun");
            core.spawn(supervise(core.clone(), job));
        } else {
            core.report(job, JobEnd::Released);
        }
    }
}

/// Runs a job to its end and reports that.
pub(crate) async fn supervise(core: Arc<Core>, job: Job) {
    // Even the call that makes the future belongs to the handler: it may block or panic.
    let (handle, given) = (core.handler.clone(), job.clone());
    let handler = core.runtime.spawn(async move { handle(given).await });
    let end = tokio::select! {
        end = until_ended(&core, &job, handler) => end,
        never = keep_alive(&core, &job) => match never {},
    };
    // What is under way to have the item again decides under which attempt.
    let _decided = job.resuming().lock().await;
    let lease = job.lease_ref();
    let end = match (job.cancel_order().map(|order| order.cause), end) {
        _ if job.is_settled() => JobEnd::Settled,
        (Some(CancelCause::LeaseLost), _) => {
            tracing::warn!(item = %lease.id, attempt = lease.attempt, "the lease is lost; the result is discarded");
            core.free_untaken(&job);
            return;
        }
        // What failed because it was told to stop has not failed.
        (Some(CancelCause::Shutdown), JobEnd::Failed(_)) => JobEnd::Released,
        (_, end) => end,
    };
    core.report(job.clone(), end);
}

/// Waits for the handler. One that does not obey a cancel within the grace is aborted.
async fn until_ended(core: &Core, job: &Job, handler: JoinHandle<JobEnd>) -> JobEnd {
    let mut handler = AbortOnDrop(handler);
    tokio::select! {
        joined = &mut handler.0 => return end_of(joined),
        () = job.cancelled().cancelled() => {}
    }
    let grace = job
        .cancel_order()
        .and_then(|order| order.grace)
        .unwrap_or(core.plan.cancel_grace);
    loop {
        match tokio::time::timeout(grace, &mut handler.0).await {
            Ok(joined) => return end_of(joined),
            Err(_) if job.is_settled() => {}
            Err(_) => break,
        }
    }
    handler.0.abort();
    if let Ok(joined) = tokio::time::timeout(ABORT_PATIENCE, &mut handler.0).await {
        return end_of(joined);
    }
    tracing::error!(?job, "the handler blocks its thread and can't be stopped");
    stopped_by_force()
}

/// A handler must not outlive the agent that started it.
struct AbortOnDrop(JoinHandle<JobEnd>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn end_of(joined: Result<JobEnd, JoinError>) -> JobEnd {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(end) => end,
        Err(Ok(panic)) => {
            JobEnd::Failed(JobError::recoverable(panic_message(&*panic)).code("panic"))
        }
        Err(Err(_cancelled)) => stopped_by_force(),
    }
}

fn stopped_by_force() -> JobEnd {
    JobEnd::Failed(JobError::recoverable("the handler was stopped by force").code("aborted"))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    match text {
        Some(text) => format!("the handler panicked: {text}"),
        None => "the handler panicked".into(),
    }
}

/// Sends progress when there is some, and otherwise a sign of life in time.
async fn keep_alive(core: &Arc<Core>, job: &Job) -> std::convert::Infallible {
    let every = (job.timeout() / 3).max(PROGRESS_PAUSE);
    let mut pause = every;
    loop {
        let progress = tokio::time::timeout(pause, job.next_progress())
            .await
            .unwrap_or_default();
        pause = if send(core, job, progress).await {
            every
        } else {
            every.min(Duration::from_secs(1))
        };
        tokio::time::sleep(PROGRESS_PAUSE).await;
    }
}

/// Sends one progress; false if that is to be repeated soon.
async fn send(core: &Arc<Core>, job: &Job, progress: Progress) -> bool {
    if job.is_settled() || job.cancel_cause() == Some(CancelCause::LeaseLost) {
        return true;
    }
    let lease = job.lease_ref();
    let request = ProgressRequest {
        id: lease.id,
        guid: core.guid,
        instance_id: core.instance_id.clone(),
        attempt: lease.attempt,
        progress: progress.percent,
        // One that is too long would be refused, and with it the sign of life.
        message: progress
            .message
            .map(|message| without_end(&message, limits::ERROR)),
        usage: progress.usage,
        session: progress.session,
    };
    let patience = core.client.options().request_timeout;
    let answer = core
        .client
        .request_within::<Lease>(VerbName::WorkProgress, &request, patience);
    let Err(error) = answer.await else {
        return true;
    };
    if core.note_dismissed(&error) {
        return true;
    }
    match error.code() {
        Some(ErrorCode::TerminalState) => {
            job.cancel(CancelCause::Cancelled, None);
            true
        }
        _ if error.is_lease_gone() => {
            resuming::lost(core, job, lease);
            true
        }
        _ if core.reregister_on(&error).await => false,
        _ => {
            tracing::debug!(%error, ?job, "progress was not taken");
            !error.is_transient()
        }
    }
}
