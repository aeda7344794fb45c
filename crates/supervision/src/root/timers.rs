//! What the root is told later.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::super::messages::RootMsg;

/// How soon after it was given up a tree is tried again because somebody calls it, at the earliest.
const PARKED_CALL_PAUSE: Duration = Duration::from_secs(1);

/// Over after `pause`, or sooner when somebody calls.
pub(super) async fn parked_pause(pause: Duration, wanted: Arc<Notify>) {
    let called = async {
        tokio::time::sleep(PARKED_CALL_PAUSE).await;
        wanted.notified().await;
    };
    let _ = tokio::time::timeout(pause, called).await;
}

/// Sends `message` after `delay`, unless what is returned is dropped before.
pub(super) fn send_later(
    root: &ActorRef<RootMsg>,
    delay: Duration,
    message: RootMsg,
) -> AbortOnDropHandle<()> {
    send_after(root, tokio::time::sleep(delay), message)
}

/// Sends `message` when `pause` is over, unless what is returned is dropped before.
pub(super) fn send_after(
    root: &ActorRef<RootMsg>,
    pause: impl Future<Output = ()> + Send + 'static,
    message: RootMsg,
) -> AbortOnDropHandle<()> {
    let root = root.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        pause.await;
        let _ = root.cast(message);
    }))
}
