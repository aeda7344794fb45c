//! What follows when a start is decided, or its agent has gone: nothing of it is to live, and nothing to be kept.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::SpinUpId;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::mechanism::{Found, Mechanism, Stopped};
use super::messages::GivenUp;

/// The pause before the second look; doubles up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);
/// For how long.
const FOR: Duration = Duration::from_hours(1);

/// How long what is ended has between TERM and KILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long its end may take in all before the operation is decided all the same.
const END_WITHIN: Duration = Duration::from_secs(40);

/// Ends what was started. Why it is given up, with what its end has shown, and whether something of it may live still.
pub(super) async fn end_now(
    mechanism: &dyn Mechanism,
    id: SpinUpId,
    reference: Option<Value>,
    mut why: GivenUp,
) -> (GivenUp, bool) {
    let ended = timeout(END_WITHIN, mechanism.stop(id, reference.as_ref(), GRACE)).await;
    let (problem, said) = match ended {
        Ok(Ok(Stopped::Ended { output })) => (None, output),
        Ok(Ok(Stopped::NotPossible { .. })) => (None, None),
        Ok(Err(why)) => (Some(why), None),
        Err(_elapsed) => (Some(format!("it did not end within {END_WITHIN:?}")), None),
    };
    why.output = why.output.or(said);
    if let Some(problem) = &problem {
        let also = format!("; what was started could not be ended: {problem}");
        why.error.push_str(&also);
    }
    (why, problem.is_some())
}

/// Removes what is kept of a start once nothing of it lives. Ends nothing.
pub(super) async fn tidy(mechanism: Arc<dyn Mechanism>, id: SpinUpId, reference: Option<Value>) {
    let no_time = (Duration::ZERO, Duration::ZERO);
    tidy_after_agent(mechanism, id, reference, || true, no_time).await;
}

/// Removes what is kept of an agent that has left its target. It ends by itself; what goes on after `patience` is ended,
/// unless it `is_there`: it has registered anew and works, as an agent of nobody's.
pub(super) async fn tidy_after_agent(
    mechanism: Arc<dyn Mechanism>,
    id: SpinUpId,
    reference: Option<Value>,
    is_there: impl Fn() -> bool + Send,
    (patience, grace): (Duration, Duration),
) {
    let (left, mut pause) = (Instant::now(), FIRST);
    while left.elapsed() < patience + FOR {
        let is_over = match mechanism.find(id, reference.as_ref()).await {
            Ok(Found::Running(_) | Found::Waiting { .. })
                if left.elapsed() >= patience && !is_there() =>
            {
                tracing::info!(%id, "an agent has gone and its process goes on: it is ended");
                mechanism.stop(id, reference.as_ref(), grace).await.is_ok()
            }
            Ok(Found::Running(_) | Found::Waiting { .. }) | Err(_) => false,
            Ok(_) => true,
        };
        if is_over {
            return mechanism.forget(id).await;
        }
        sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}

/// Ends what could not be ended at first, and removes what is kept of it; not once its agent `is_born` all the same.
pub(super) async fn end_and_tidy(
    mechanism: Arc<dyn Mechanism>,
    id: SpinUpId,
    reference: Option<Value>,
    is_born: impl Fn() -> bool + Send,
    grace: Duration,
) {
    let until = Instant::now() + FOR;
    let mut pause = FIRST;
    while Instant::now() < until {
        sleep(pause).await;
        pause = LONGEST.min(pause * 2);
        if is_born() {
            return;
        }
        match mechanism.stop(id, reference.as_ref(), grace).await {
            Ok(_) => return mechanism.forget(id).await,
            Err(why) => tracing::debug!(%id, "what was started is not ended yet: {why}"),
        }
    }
    tracing::warn!(%id, "what was started by a start that was given up could not be ended; look for it by LOOM_SPIN_UP_ID");
}
