//! The life of an agent: register, work, drain, deregister.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::VerbName;
use loom_protocol::agent::{DeregisterAnswer, DeregisterRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::{Core, Phase};
use super::ending::Report;
use super::job::{CancelCause, LogLine};
use super::{AgentReport, claims, directives, heartbeat, logs, reports};
use crate::error::ClientError;

/// How long the last reports and the deregistration may take.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(3);

/// What the parts of an agent listen to.
pub(crate) struct Inboxes {
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) logs: mpsc::Receiver<LogLine>,
}

/// Lives until told to end, or until as many items as wanted are done.
///
/// # Errors
/// A registration that is refused for good, or that another run of the agent has registered since.
pub(crate) async fn live(core: Arc<Core>, inboxes: Inboxes) -> Result<AgentReport, ClientError> {
    let _end_with_me = core.ended.clone().drop_guard();
    let listening = directives::listen(core.clone());
    core.spawn(async move {
        if let Err(error) = listening.await {
            tracing::error!(%error, "orders can't be listened to");
        }
    });
    let mut phase = core.phase.subscribe();
    tokio::select! {
        registered = core.register() => registered?,
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return Ok(core.summary()),
    }
    core.spawn(reports::report(core.clone(), inboxes.reports));
    core.spawn(logs::publish(core.clone(), inboxes.logs));
    core.spawn(heartbeat::beat(core.clone()));
    core.spawn(claims::claim(core.clone()));

    work(&core).await;
    drain(&core).await;
    stop(&core).await;
    if let Some(error) = core.dismissed() {
        return Err(error.clone());
    }
    deregister(&core).await;
    Ok(core.summary())
}

/// Works until told otherwise or until nothing is left of the quota.
async fn work(core: &Core) {
    while core.is_running() {
        let change = core.change();
        if core.quota_left() == 0 && core.is_idle() {
            core.shut_down("as many items as wanted are done", DEREGISTER_WITHIN);
            return;
        }
        change.await;
    }
}

/// Draining: waits for what is running, at the most until the grace is over.
async fn drain(core: &Core) {
    loop {
        let change = core.change();
        let until = match *core.phase.borrow() {
            Phase::Draining { until, .. } => until,
            Phase::Running | Phase::Stopping { .. } => return,
        };
        if core.is_delivered() {
            return;
        }
        if Instant::now() >= until {
            core.shut_down("the grace is over", Duration::ZERO);
            return;
        }
        let _ = tokio::time::timeout_at(until, change).await;
    }
}

/// Stopping: tells every handler to stop, and waits until what they had is given back.
async fn stop(core: &Core) {
    let until = Instant::now() + core.plan.cancel_grace + DEREGISTER_WITHIN;
    while !core.is_delivered() && Instant::now() < until {
        for job in core.jobs() {
            job.cancel(CancelCause::Shutdown, None);
        }
        let _ = tokio::time::timeout_at(until, core.change()).await;
    }
}

/// Waits a moment for the answers to reports that were published as well. A coordinator that is back has perhaps read
/// them, and says so when they are repeated.
async fn until_answered(core: &Core) {
    let until = Instant::now() + DEREGISTER_WITHIN;
    loop {
        let change = core.change();
        let is_waited_for = core.jobs().iter().any(super::Job::is_published);
        if !is_waited_for || !core.client.is_connected() || Instant::now() >= until {
            return;
        }
        let _ = tokio::time::timeout_at(until, change).await;
    }
}

/// Deregisters, which gives back whatever is still held, except where a report was published and
/// waits to be read: giving that item back would have it done twice.
async fn deregister(core: &Core) {
    until_answered(core).await;
    if core.jobs().iter().any(super::Job::is_published) {
        tracing::info!("reports wait in the stream; the agent goes without deregistering");
        return;
    }
    let request = DeregisterRequest {
        guid: core.guid.to_string(),
        instance_id: core.instance_id.clone(),
    };
    if !core.client.is_connected() {
        return;
    }
    let deregistered = core.client.request_within::<DeregisterAnswer>(
        VerbName::AgentsDeregister,
        &request,
        DEREGISTER_WITHIN,
    );
    if let Err(error) = deregistered.await {
        tracing::debug!(%error, "deregistering was not answered");
    }
    let _ = tokio::time::timeout(DEREGISTER_WITHIN, core.client.flush()).await;
}
