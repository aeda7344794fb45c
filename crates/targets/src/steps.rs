//! The steps of a start. A coordinator may be killed between any two of them, and tests do that.

use std::fmt;
use std::sync::Arc;

/// A step of a start that is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Something is to be started, written down or sent for the first time. `kubernetes` tells it twice: before the Job and
    /// before its Secret.
    Begin,
    /// The process is to be forked, the script or the request to be sent.
    Launch,
    /// It was launched; the reference is to be written down or the answer to be read.
    Record,
    /// All is done; the reference is to be handed to the caller.
    Answer,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Begin, Self::Launch, Self::Record, Self::Answer];
}

/// Is told each [`Step`] before it is done; by default nobody is. Cheap to clone.
#[derive(Clone, Default)]
pub struct StepHook(Option<Arc<dyn Fn(Step) + Send + Sync>>);

impl StepHook {
    /// Tells `hook`, which may not wait.
    pub fn new(hook: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn tell(&self, step: Step) {
        tracing::trace!(?step, "a start goes on");
        if let Some(hook) = &self.0 {
            hook(step);
        }
    }
}

impl fmt::Debug for StepHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepHook")
    }
}
