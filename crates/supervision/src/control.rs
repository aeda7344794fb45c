//! A child of any actor type, as its supervisor sees it: how to make one, and what became of the last one.

use std::sync::Arc;

use parking_lot::Mutex;
use ractor::concurrency::JoinHandle;
use ractor::{
    Actor, ActorCell, ActorId, ActorRuntime, Message, RpcReplyPort, SpawnErr, SupervisionEvent,
};
use tokio::sync::oneshot;

use super::handle::{ActorHandle, Presentation};

/// An incarnation whose `pre_start` may still be running.
pub(super) struct Spawned {
    /// Known before `pre_start` has ended, so that an early end can be told apart and a late start be killed.
    pub(super) cell: ActorCell,
    /// Ends with `pre_start`.
    pub(super) started: JoinHandle<Result<JoinHandle<()>, SpawnErr>>,
}

/// An incarnation that nobody knows yet: ends with the attempt that made it, unless it was released.
pub(super) struct KillOnDrop {
    cell: ActorCell,
    released: bool,
}

impl KillOnDrop {
    pub(super) fn new(cell: ActorCell) -> Self {
        Self {
            cell,
            released: false,
        }
    }

    pub(super) fn cell(&self) -> &ActorCell {
        &self.cell
    }

    pub(super) fn release(&mut self) {
        self.released = true;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.released {
            self.cell.kill();
        }
    }
}

/// What a supervisor needs of a child, without its types.
pub(super) trait Control: Send + Sync {
    /// Begins a new incarnation, linked to `supervisor` when its `pre_start` has ended well.
    fn spawn(&self, supervisor: ActorCell) -> Result<Spawned, SpawnErr>;
    /// The last incarnation that was begun, dead or alive.
    fn last(&self) -> Option<ActorCell>;
    /// The handle.
    fn presentation(&self) -> &dyn Presentation;
}

/// [`Control`] of actors of type `A`.
pub(super) struct ActorControl<A: Actor, F> {
    handle: ActorHandle<A::Msg>,
    make: F,
    last: Mutex<Option<ActorCell>>,
}

impl<A: Actor, F: Fn() -> (A, A::Arguments)> ActorControl<A, F> {
    pub(super) fn new(handle: ActorHandle<A::Msg>, make: F) -> Self {
        Self {
            handle,
            make,
            last: Mutex::new(None),
        }
    }
}

impl<A, F> Control for ActorControl<A, F>
where
    A: Actor,
    F: Fn() -> (A, A::Arguments) + Send + Sync,
{
    fn spawn(&self, supervisor: ActorCell) -> Result<Spawned, SpawnErr> {
        let (actor, arguments) = (self.make)();
        // No name: ractor's names are process-global, and nobody looks this actor up.
        let (actor, started) =
            ActorRuntime::spawn_linked_instant(None, actor, arguments, supervisor)?;
        let cell = actor.get_cell();
        *self.last.lock() = Some(cell.clone());
        Ok(Spawned { cell, started })
    }

    fn last(&self) -> Option<ActorCell> {
        self.last.lock().clone()
    }

    fn presentation(&self) -> &dyn Presentation {
        &self.handle
    }
}

/// Asks an incarnation to finish what is in flight; resolves when it has, or when it has died. `None`: not sent.
pub(super) type DrainRequest =
    Arc<dyn Fn(&ActorCell) -> Option<oneshot::Receiver<()>> + Send + Sync>;

/// A [`DrainRequest`] that sends what `make` gives.
pub(super) fn drain_request<M: Message>(
    make: impl Fn(RpcReplyPort<()>) -> M + Send + Sync + 'static,
) -> DrainRequest {
    Arc::new(move |cell| {
        let (port, drained) = oneshot::channel();
        cell.send_message(make(port.into())).ok().map(|()| drained)
    })
}

/// Whose end an event tells, and why it ended.
pub(super) fn end_of(event: SupervisionEvent) -> Option<(ActorId, String)> {
    match event {
        SupervisionEvent::ActorFailed(cell, error) => Some((cell.get_id(), error.to_string())),
        SupervisionEvent::ActorTerminated(cell, _state, reason) => {
            let reason = match reason.as_deref() {
                Some("killed") => "it was killed".to_owned(),
                Some("actor_task_cancelled") => "its task was cancelled".to_owned(),
                Some(reason) => format!("it stopped by itself: {reason}"),
                None => "it stopped by itself".to_owned(),
            };
            Some((cell.get_id(), reason))
        }
        _ => None,
    }
}

/// Why a start failed. ractor's own text calls every failure a panic.
pub(super) fn why_not_started(error: &SpawnErr) -> String {
    match error {
        SpawnErr::StartupFailed(error) => format!("it could not start: {error}"),
        other => format!("it could not start: {other}"),
    }
}
