//! The end of an attempt as its program has told it. Pure.

use std::time::Duration;

use loom_client::{JobEnd, JobError, JobResult};
use loom_protocol::work::ReportedResult;
use loom_protocol::{ErrorCode, WireError};

use super::message::{Complete, Fail};

/// What a program has told.
#[derive(Debug, Clone)]
pub enum Told {
    /// It is done.
    Completed(ReportedResult),
    /// It failed.
    Failed(JobError),
}

impl From<Complete> for Told {
    fn from(done: Complete) -> Self {
        Self::Completed(ReportedResult {
            summary: done.summary,
            output: done.output,
            artifacts: done.artifacts,
            completed_at: None,
        })
    }
}

impl From<Fail> for Told {
    fn from(failed: Fail) -> Self {
        let error = if failed.permanent {
            JobError::permanent(failed.message)
        } else {
            JobError::recoverable(failed.message)
        };
        let error = match failed.code {
            Some(code) => error.code(code),
            None => error,
        };
        Self::Failed(match failed.retry_after_ms {
            Some(pause) => error.retry_after(Duration::from_millis(pause)),
            None => error,
        })
    }
}

/// What is known of the end of an attempt.
#[derive(Debug, Default)]
pub struct End {
    told: Option<Told>,
    is_closed: bool,
}

impl End {
    /// Notes an end; the first one counts.
    ///
    /// # Errors
    /// The attempt is over, or has ended otherwise.
    pub fn tell(&mut self, end: Told) -> Result<(), WireError> {
        match (&self.told, end) {
            _ if self.is_closed => Err(WireError::new(
                ErrorCode::StaleLease,
                "this attempt is over, and its end is decided",
            )),
            (None, end) => {
                self.told = Some(end);
                Ok(())
            }
            (Some(Told::Completed(_)), Told::Completed(_))
            | (Some(Told::Failed(_)), Told::Failed(_)) => Ok(()),
            (Some(before), _) => {
                let before = match before {
                    Told::Completed(_) => "done",
                    Told::Failed(_) => "failed",
                };
                Err(WireError::new(
                    ErrorCode::TerminalState,
                    format!(
                        "this attempt is reported as {before} already; the first report counts"
                    ),
                ))
            }
        }
    }

    /// Whether an end was told.
    pub const fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// What the attempt came to, where `judged` is what its program came to by its exit. `is_last`: nothing more is taken.
    pub fn over(&mut self, judged: JobEnd, is_last: bool) -> JobEnd {
        self.is_closed |= is_last;
        match (&self.told, judged) {
            (None, judged) => judged,
            // It may well have failed because of that.
            (Some(Told::Failed(_)), JobEnd::LimitReached(until)) => JobEnd::LimitReached(until),
            (Some(Told::Completed(result)), _) => {
                JobEnd::Completed(JobResult::from(result.clone()))
            }
            (Some(Told::Failed(error)), _) => JobEnd::Failed(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(summary: &str) -> Told {
        Told::from(Complete {
            summary: Some(summary.into()),
            ..Complete::default()
        })
    }

    fn failed() -> Told {
        Told::from(Fail {
            message: "no".into(),
            permanent: true,
            ..Fail::default()
        })
    }

    #[test]
    fn the_first_end_counts_until_all_is_decided() {
        let mut end = End::default();
        end.tell(done("first")).unwrap();
        end.tell(done("second")).unwrap();
        let error = end.tell(failed()).unwrap_err();
        assert_eq!(error.code, ErrorCode::TerminalState);
        let judged = || JobEnd::Failed(JobError::recoverable("exit code 9"));
        let JobEnd::Completed(result) = end.over(judged(), false) else {
            panic!("not completed");
        };
        assert_eq!(result.reported().summary.as_deref(), Some("first"));
        end.over(judged(), true);
        let error = end.tell(done("late")).unwrap_err();
        assert_eq!(error.code, ErrorCode::StaleLease);
    }

    #[test]
    fn a_failure_leaves_a_limit_a_limit() {
        let mut end = End::default();
        assert!(matches!(
            end.over(JobEnd::Released, false),
            JobEnd::Released
        ));
        end.tell(failed()).unwrap();
        assert!(matches!(
            end.over(JobEnd::LimitReached(None), false),
            JobEnd::LimitReached(None)
        ));
        let JobEnd::Failed(error) = end.over(JobEnd::Completed(JobResult::default()), true) else {
            panic!("not failed");
        };
        assert!(!error.is_recoverable());
    }
}
