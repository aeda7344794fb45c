//! Notes what is asked and answered, from many tasks on one clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom_protocol::work::LeaseRef;
use loom_protocol::{ErrorCode, WireError};
use parking_lot::Mutex;

use super::History;
use super::operation::{Action, Answer, Moment, Operation, Outcome};

/// Writes a history down. Cheap to clone; all clones write the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    began: Instant,
    history: Arc<Mutex<History>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty history that begins now.
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            history: Arc::default(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        Moment::new(self.began.elapsed())
    }

    /// Call it before sending. Dropped without an answer, the operation's outcome is unknown.
    #[must_use = "tell the answer, or the outcome counts as unknown"]
    pub fn begin(&self, action: Action) -> Open {
        self.begin_as(action, None)
    }

    /// As [`Recorder::begin`], for a request that says which run of its agent it comes from.
    #[must_use = "tell the answer, or the outcome counts as unknown"]
    pub fn begin_as(&self, action: Action, run: Option<&str>) -> Open {
        let mut history = self.history.lock();
        let number = history.operations.len();
        // Under the lock, so that the order of the operations is the order of their times.
        let sent = self.now();
        history.operations.push(Operation {
            number,
            sent,
            action,
            run: run.map(str::to_owned),
            answer: None,
        });
        Open {
            recorder: self.clone(),
            number,
        }
    }

    /// Something is broken on purpose from now until the guard was dropped, and `settles` longer.
    pub fn disturb(&self, settles: Duration) -> Disturbance {
        Disturbance {
            recorder: self.clone(),
            from: self.now(),
            settles,
        }
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// How many operations were recorded so far.
    pub fn len(&self) -> usize {
        self.history.lock().operations.len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An operation that was sent and is not answered yet.
#[derive(Debug)]
pub struct Open {
    recorder: Recorder,
    number: usize,
}

impl Open {
    /// It was done.
    pub fn accepted(self) {
        self.answer(Outcome::Accepted);
    }

    /// The claim was given these; none where its wait was over.
    pub fn given(self, leases: Vec<LeaseRef>) {
        self.answer(Outcome::Given(leases));
    }

    /// It was answered with an error. One that may hide an effect leaves the outcome unknown.
    pub fn refused(self, error: &WireError) {
        if !error.code.is_transient() && error.code != ErrorCode::Internal {
            self.answer(Outcome::Refused(error.code));
        }
    }

    /// It was done or refused, as the answer says.
    pub fn answered<T>(self, answer: &Result<T, WireError>) {
        match answer {
            Ok(_) => self.accepted(),
            Err(error) => self.refused(error),
        }
    }

    fn answer(self, outcome: Outcome) {
        let mut history = self.recorder.history.lock();
        let at = self.recorder.now();
        if let Some(operation) = history.operations.get_mut(self.number) {
            operation.answer = Some(Answer { at, outcome });
        }
    }
}

/// Something is broken while this lives; see [`Recorder::disturb`].
#[derive(Debug)]
pub struct Disturbance {
    recorder: Recorder,
    from: Moment,
    settles: Duration,
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        let mut history = self.recorder.history.lock();
        let now = self.recorder.now().since_begin();
        let until = Moment::new(now + self.settles);
        history.disturbances.push((self.from, until));
    }
}
