//! From an agent's report to what the ledger takes: limits and defaults.

use loom_protocol::text::{without_end, without_middle};
use loom_protocol::work::{Reason, ReportedError, ReportedResult, WorkResult, limits};
use loom_protocol::{Body, ErrorCode, Timestamp, WireError};

use super::command::FailureReport;
use crate::domain::retry::Backoff;

/// Checks the size of a result and fills in when it was finished.
pub fn accept_result(result: ReportedResult, now: Timestamp) -> Result<WorkResult, WireError> {
    let body = |body: &Option<Body>| body.as_ref().map_or(0, Body::len);
    let size = result.summary.as_ref().map_or(0, String::len)
        + body(&result.output)
        + body(&result.artifacts);
    if size > limits::RESULT {
        return Err(WireError::new(
            ErrorCode::TooLarge,
            format!(
                "the result has {size} bytes; at most {} are allowed: store it elsewhere and report where. The lease stays yours",
                limits::RESULT
            ),
        ));
    }
    Ok(WorkResult {
        summary: result.summary,
        output: result.output,
        artifacts: result.artifacts,
        completed_at: result.completed_at.unwrap_or(now),
    })
}

/// Cuts an error to its limit and fills in what it leaves out. It spends the attempt, unless it is a
/// usage limit.
pub fn accept_failure(
    error: ReportedError,
    reason: Option<Reason>,
    backoff: Backoff,
    now: Timestamp,
) -> FailureReport {
    let message = if error.message.trim().is_empty() {
        "the agent gave no message".into()
    } else {
        without_middle(&error.message, limits::ERROR)
    };
    let reason = reason.unwrap_or(Reason::AgentError);
    FailureReport {
        message,
        code: error.code.map(|code| without_end(&code, limits::ERROR)),
        recoverable: error.recoverable.unwrap_or(true),
        occurred_at: error.occurred_at.unwrap_or(now),
        reason,
        spends_attempt: !reason.pauses(),
        not_before: None,
        backoff,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn long_errors_are_cut_and_long_results_refused() {
        let long = format!("first {} last", "ü".repeat(limits::RESULT));
        let error = ReportedError {
            message: long.clone(),
            ..ReportedError::default()
        };
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5), 0.0);
        let report = accept_failure(error, None, backoff, Timestamp::default());
        assert!(report.message.len() <= limits::ERROR);
        assert!(report.message.starts_with("first") && report.message.ends_with("last"));
        assert!(report.message.contains("bytes left out"));
        let result = ReportedResult {
            summary: Some(long),
            ..ReportedResult::default()
        };
        let refused = accept_result(result, Timestamp::default()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
    }
}
