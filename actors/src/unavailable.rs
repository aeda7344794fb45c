//! What a client is told where the supervision has no actor for it.

use std::time::Duration;

use loom_protocol::{ErrorCode, WireError};
use loom_supervision::{CallError, StartError};

/// An actor is back soon, or its project says why not.
const CALL_AGAIN: Duration = Duration::from_millis(500);
/// A project takes longer.
const START_AGAIN: Duration = Duration::from_secs(1);

/// The request did not reach its actor, or was not answered.
pub(crate) fn not_reached(error: &CallError) -> WireError {
    WireError::unavailable(error.to_string(), CALL_AGAIN)
}

/// The project does not run.
pub(crate) fn not_started(error: &StartError) -> WireError {
    match error {
        StartError::Invalid { .. } => WireError::new(ErrorCode::Internal, error.to_string()),
        _ => WireError::unavailable(error.to_string(), START_AGAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_that_starts_is_unavailable_for_a_moment_and_a_contradiction_is_a_defect() {
        let wire = not_reached(&CallError::Down {
            actor: "b".into(),
            why: None,
        });
        assert_eq!(wire.code, ErrorCode::Unavailable);
        assert!(wire.retry_after_ms.is_some());
        assert_eq!(wire.message, "b is being started; try again in a moment");
        let invalid = StartError::Invalid {
            tree: "p".into(),
            problem: "twice".into(),
        };
        assert_eq!(not_started(&invalid).code, ErrorCode::Internal);
        assert_eq!(
            not_started(&StartError::ShuttingDown).code,
            ErrorCode::Unavailable
        );
    }
}
