//! Lines of output on their way to the logs subject: best effort, and in few messages.

use std::sync::Arc;

use bytes::BytesMut;
use loom_protocol::names;
use loom_protocol::work::LeaseRef;
use tokio::sync::mpsc;

use super::core::Core;
use super::job::LogLine;

/// How many lines may wait.
pub(crate) const CAPACITY: usize = 1024;
/// How many bytes one message carries at the most, unless a single line is longer.
const PER_MESSAGE: usize = 32 * 1024;

/// Publishes lines for as long as the agent lives; lines of one job that wait together go together.
pub(crate) async fn publish(core: Arc<Core>, mut lines: mpsc::Receiver<LogLine>) {
    let mut ready = Vec::new();
    while lines.recv_many(&mut ready, CAPACITY).await > 0 {
        let mut message: Option<(LeaseRef, BytesMut)> = None;
        for LogLine { lease, line } in ready.drain(..) {
            let fits = message
                .as_ref()
                .is_some_and(|(of, text)| *of == lease && text.len() + line.len() < PER_MESSAGE);
            if !fits {
                send(&core, message.take()).await;
            }
            let (_, text) = message.get_or_insert_with(|| (lease, BytesMut::new()));
            if !text.is_empty() {
                text.extend_from_slice(b"\n");
            }
            text.extend_from_slice(&line);
        }
        send(&core, message).await;
    }
}

async fn send(core: &Core, message: Option<(LeaseRef, BytesMut)>) {
    let Some((lease, text)) = message else {
        return;
    };
    // Without a connection they would pile up in front of it.
    if core.client.is_connected() {
        let subject = names::logs(core.client.project(), lease.id, lease.attempt);
        if let Err(error) = core.client.nats().publish(subject, text.freeze()).await {
            tracing::debug!(%error, "lines of output were not sent");
        }
    }
}
