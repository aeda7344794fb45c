//! What an actor loads after its start: a task that tries until it has it, and tells the actor and its supervisor.
//!
//! | step | who hears of it |
//! |---|---|
//! | begun in `pre_start`, by a task that ends with the actor | nobody: the actor is *loading* when `pre_start` has ended |
//! | a try fails | the supervisor, which logs each reason once and shows it to callers; the next try follows after 100 ms, then twice as long each time up to 5 s |
//! | a try has it | the actor, by a message; it takes it over and calls [`Loading::finish`]: it is up |
//! | a try panics | the actor, by the same message as [`Defect`]: it is to end with it, which is a crash |
//!
//! Requests wait in the handle meanwhile. What reaches the actor is what it tells itself, and the request to drain,
//! which it can answer at once: nothing is under way.

use std::fmt::Display;
use std::time::Duration;

use ractor::{ActorCell, ActorRef, Message};
use tokio_util::task::AbortOnDropHandle;

use super::messages::TreeMsg;

/// The pause after the first try that failed.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Something is loaded. Ends when it is dropped.
#[derive(Debug)]
pub struct Loading {
    actor: ActorCell,
    _task: AbortOnDropHandle<()>,
}

/// A defect of ours was met while something was loaded: what it said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("loading met a defect: {0}; please report this")]
pub struct Defect(String);

impl Loading {
    /// Has `load` tried until it succeeds; then the actor is sent what `ended` makes of it.
    pub fn begin<M, T, E, F>(
        actor: &ActorRef<M>,
        mut load: impl FnMut() -> F + Send + 'static,
        ended: impl FnOnce(Result<T, Defect>) -> M + Send + 'static,
    ) -> Self
    where
        M: Message,
        T: Send + 'static,
        E: Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (cell, to) = (actor.get_cell(), actor.clone());
        let task = tokio::spawn(async move {
            let mut pause = AGAIN_FIRST;
            let loaded = loop {
                match AbortOnDropHandle::new(tokio::spawn(load())).await {
                    Ok(Ok(loaded)) => break Ok(loaded),
                    Ok(Err(error)) => {
                        let (id, why) = (to.get_id(), error.to_string().into());
                        tell_supervisor(&to, TreeMsg::NotLoaded { id, why });
                    }
                    Err(defect) => break Err(Defect(defect.to_string())),
                }
                tokio::time::sleep(pause).await;
                pause = AGAIN_MAX.min(pause * 2);
            };
            let _ = to.cast(ended(loaded));
        });
        Self {
            actor: cell,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The actor has taken over what was loaded: it is up. To be called in `handle`.
    pub fn finish(self) {
        let id = self.actor.get_id();
        tell_supervisor(&self.actor, TreeMsg::Loaded { id });
    }
}

/// An actor that runs by itself has none.
fn tell_supervisor(actor: &ActorCell, message: TreeMsg) {
    if let Some(supervisor) = actor.try_get_supervisor() {
        let _ = supervisor.send_message(message);
    }
}
