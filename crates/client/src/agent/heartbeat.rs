//! The sign of life, and what its answer asks for.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::VerbName;
use loom_protocol::agent::{AgentStatus, DirectiveKind, HeartbeatAnswer, HeartbeatRequest};
use tokio::time::Instant;

use super::core::Core;
use super::job::Job;
use super::{directives, resuming};

/// How soon a heartbeat that got no answer is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Beats for as long as the agent lives.
pub(crate) async fn beat(core: Arc<Core>) {
    let mut answered = true;
    loop {
        let pause = if answered {
            core.heartbeat_every()
        } else {
            core.heartbeat_every().min(REPEAT_AFTER)
        };
        tokio::select! {
            () = tokio::time::sleep_until(Instant::now() + pause) => {}
            () = core.beat_now.notified() => {}
        }
        match beat_once(&core).await {
            Ok(answer) => {
                if !answered {
                    // Whoever answers now may know nothing of a claim that is open.
                    core.claim_again.notify_waiters();
                }
                answered = true;
                core.note_epoch(answer.epoch);
                obey(&core, &answer);
            }
            Err(error) => {
                answered = core.reregister_on(&error).await;
                if !answered {
                    tracing::debug!(%error, "a heartbeat was not answered");
                }
            }
        }
    }
}

async fn beat_once(core: &Core) -> Result<HeartbeatAnswer, crate::ClientError> {
    let holding: Vec<_> = core
        .jobs()
        .iter()
        .filter(|job| !job.is_settled())
        .map(Job::lease_ref)
        .collect();
    let suspended = core.notifier.suspended().filter(|_| core.is_running());
    let request = HeartbeatRequest {
        guid: core.guid,
        instance_id: core.instance_id.clone(),
        status: Some(match suspended {
            Some(_) => AgentStatus::Busy,
            None if core.is_running() => AgentStatus::Online,
            None => AgentStatus::Draining,
        }),
        status_reason: suspended,
        current_task_count: u32::try_from(holding.len()).ok(),
        holding: Some(holding),
    };
    let payload = core.client.encode(&request)?;
    let timeout = core.client.options().request_timeout;
    let message = core
        .client
        .call_once(VerbName::AgentsHeartbeat.as_str(), payload, timeout)
        .await?;
    core.client.decode(&message)
}

fn obey(core: &Arc<Core>, answer: &HeartbeatAnswer) {
    for lost in &answer.lost {
        // A report under way decides by its own answer.
        if let Some(job) = core.job(*lost).filter(|job| !job.is_reporting()) {
            resuming::lost(core, &job, *lost);
        }
    }
    let told_to_pause = |kind| matches!(kind, DirectiveKind::Pause);
    if !answer.directives.iter().any(|d| told_to_pause(d.kind)) {
        // An order to pause is repeated while it stands.
        core.set_paused(None);
    }
    for directive in &answer.directives {
        directives::obey(core, directive);
    }
}
