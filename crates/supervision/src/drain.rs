//! Ends the actors of a tree.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorStatus};
use tokio::time::{Instant, timeout_at};

use super::spec::{ChildSpec, TreeSpec};

/// How long an actor that is asked to stop may go on with the message it is at, where no deadline was given.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a killed actor may take to be gone; longer only when it blocks its thread.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Drains and stops the actors of `spec` in its drain order. Returns the names of those that did not finish.
///
/// Each actor may use an equal share of what is left until `deadline`, so that one that hangs leaves the others time.
/// Its handle says "stopped" as soon as it has ended; until then it still answers the ones drained before it.
pub(super) async fn drain_in_order(spec: &TreeSpec, deadline: Instant) -> Vec<Arc<str>> {
    let order = spec.draining();
    let mut unfinished = Vec::new();
    for (position, index) in order.iter().enumerate() {
        let child = &spec.children[*index];
        let now = Instant::now();
        let left = u32::try_from(order.len() - position).unwrap_or(u32::MAX);
        let until = now + deadline.saturating_duration_since(now) / left;
        if !drain(child, until).await {
            tracing::warn!(tree = %spec.name, actor = %child.name, "did not finish what was in flight by its deadline");
            unfinished.push(Arc::clone(&child.name));
        }
        child.control.presentation().stopped();
    }
    unfinished
}

/// Stops the actors of `spec`, the last started first, without draining.
pub(super) async fn stop_in_reverse(spec: &TreeSpec) {
    let cells = spec.children.iter().rev().filter_map(|c| c.control.last());
    for cell in cells.filter(|cell| cell.get_status() != ActorStatus::Stopped) {
        stop(&cell, Instant::now() + STOP_GRACE).await;
    }
}

/// Makes sure that an incarnation has ended. `false`: it is killed and still there when `within` is over.
pub(super) async fn ended(cell: &ActorCell, within: Duration) -> bool {
    cell.kill_and_wait(Some(within)).await.is_ok()
}

/// Whether the actor finished its work and ended by itself.
async fn drain(child: &ChildSpec, until: Instant) -> bool {
    let cell = child.control.last();
    let cell = cell.filter(|cell| cell.get_status() != ActorStatus::Stopped);
    let Some(cell) = cell else {
        return child.drain.is_none();
    };
    let drained = match &child.drain {
        None => true,
        Some(request) => match request(&cell) {
            Some(answer) => matches!(timeout_at(until, answer).await, Ok(Ok(()))),
            None => false,
        },
    };
    stop(&cell, until).await && drained
}

/// Stops gracefully until the deadline, then kills. Whether the first was enough.
async fn stop(cell: &ActorCell, until: Instant) -> bool {
    cell.stop(None);
    let grace = until.saturating_duration_since(Instant::now());
    // One look at the least: an idle actor ends well after a deadline too.
    let grace = grace.max(Duration::from_millis(10));
    if cell.wait(Some(grace)).await.is_ok() {
        return true;
    }
    let _ = cell.kill_and_wait(Some(KILL_GRACE)).await;
    false
}
