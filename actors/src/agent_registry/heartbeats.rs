//! Listens to heartbeats that are published instead of requested.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use loom_protocol::agent::{AgentStatus, HeartbeatRequest};
use loom_protocol::{AgentGuid, Encoding, names};
use ractor::ActorRef;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::AgentRegistryArgs;
use super::messages::Msg;

/// How many heartbeats may wait in the mailbox.
const MAX_WAITING: usize = 1024;
/// The pause before subscribing again.
const PAUSE: Duration = Duration::from_millis(500);

/// What may stand in a published heartbeat; the guid may be left to the subject.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeartbeatBody {
    guid: Option<AgentGuid>,
    instance_id: Option<String>,
    status: Option<AgentStatus>,
    status_reason: Option<String>,
    current_task_count: Option<u32>,
}

/// Applies what changes only numbers right here, so that a flood of heartbeats does not fill the
/// mailbox; passes the rest on. Ends only with the actor.
pub(super) async fn listen(me: ActorRef<Msg>, args: Arc<AgentRegistryArgs>) {
    let subject = names::all_heartbeats(&args.project);
    let room = Arc::new(Semaphore::new(MAX_WAITING));
    loop {
        match args.client.subscribe(subject.clone()).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    if let Some(marker) = args.arrivals.heard(&message.subject) {
                        let _ = me.send_message(Msg::Marker(marker));
                        continue;
                    }
                    let Some(heartbeat) = read(&message) else {
                        tracing::debug!(subject = %message.subject, "an unreadable heartbeat is passed over");
                        continue;
                    };
                    let now = args.clock.now();
                    if args.directory.beat(&heartbeat, now).is_some() {
                        continue;
                    }
                    // Of one that finds no room only the sign of life counts; another one follows it.
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        let (guid, run) = (heartbeat.guid, heartbeat.instance_id.as_deref());
                        let entry = args.directory.get(guid);
                        if entry.is_some_and(|entry| entry.admit(run).is_ok()) {
                            args.directory.touch(guid, now);
                        }
                        continue;
                    };
                    let told = me.send_message(Msg::PublishedHeartbeat {
                        heartbeat,
                        _permit: permit,
                    });
                    if told.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot subscribe to heartbeats; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The guid in the subject is who speaks; another one in the payload is a mistake.
fn read(message: &async_nats::Message) -> Option<HeartbeatRequest> {
    let guid: AgentGuid = message.subject.rsplit('.').next()?.parse().ok()?;
    let content_type = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get_last(loom_protocol::codec::CONTENT_TYPE))
        .map(async_nats::HeaderValue::as_str);
    let encoding = Encoding::from_content_type(content_type);
    let heard: HeartbeatBody = encoding.decode_request(&message.payload).ok()?;
    if heard.guid.is_some_and(|said| said != guid) {
        return None;
    }
    Some(HeartbeatRequest {
        guid,
        instance_id: heard.instance_id,
        status: heard.status,
        status_reason: heard.status_reason,
        current_task_count: heard.current_task_count,
        holding: None,
    })
}
