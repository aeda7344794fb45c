//! From how a handler ended to what is reported. Pure.

use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::text::without_middle;
use loom_protocol::work::{CompleteItem, FailRequest, Reason, ReportedResult, limits};

use super::end::{JobEnd, JobError};
use super::job::{CancelCause, Job};
use crate::clock;
use crate::error::ClientError;

/// What is reported.
#[derive(Debug)]
pub(crate) enum Ending {
    /// `work.complete`
    Complete(Box<CompleteItem>),
    /// `work.fail`
    Fail(Box<FailRequest>),
    /// `work.release`
    Release(Release),
    /// `work.stopped`
    Stopped(Option<ReportedResult>),
    /// Nothing: somebody else has reported.
    Settled,
}

/// The end of a job, on its way.
pub(crate) struct Report {
    pub(crate) job: Job,
    pub(crate) ending: Ending,
}

impl Report {
    pub(crate) fn of(job: Job, end: JobEnd) -> Self {
        let ending = of(&job, end);
        Self { job, ending }
    }
}

/// Why an item goes back.
#[derive(Debug, Default)]
pub(crate) struct Release {
    pub(crate) reason: Option<Reason>,
    /// The same in words.
    pub(crate) message: Option<String>,
    /// Nobody is to have it before.
    pub(crate) not_before: Option<Timestamp>,
    /// Until when the agent is to be paused.
    pub(crate) pause_until: Option<Timestamp>,
}

/// What the end of a job's handler means.
pub(crate) fn of(job: &Job, end: JobEnd) -> Ending {
    let called_off = job.cancel_cause() == Some(CancelCause::Cancelled);
    match end {
        JobEnd::Settled => Ending::Settled,
        JobEnd::Completed(done) if done.len() > limits::RESULT => {
            let size = done.len();
            let limit = limits::RESULT;
            fail(
                job,
                JobError::permanent(format!(
                    "the result has {size} bytes, and at most {limit} can be kept; put it elsewhere and report where"
                ))
                .code("result-too-large"),
            )
        }
        JobEnd::Completed(done) | JobEnd::Stopped(done) if called_off => {
            let is_small = done.len() <= limits::RESULT;
            Ending::Stopped(is_small.then_some(done.result))
        }
        JobEnd::Failed(_)
        | JobEnd::Released
        | JobEnd::GivenBack { .. }
        | JobEnd::LimitReached(_)
            if called_off =>
        {
            Ending::Stopped(None)
        }
        JobEnd::Completed(done) => {
            let lease = job.lease_ref();
            let mut result = done.result;
            result.completed_at.get_or_insert_with(now);
            Ending::Complete(Box::new(CompleteItem {
                id: lease.id,
                attempt: lease.attempt,
                result: Some(result),
                usage: done.usage,
            }))
        }
        JobEnd::Failed(error) => fail(job, error),
        JobEnd::Released | JobEnd::Stopped(_) => Ending::Release(Release::default()),
        JobEnd::GivenBack {
            because,
            not_before,
        } => Ending::Release(Release {
            message: Some(without_middle(&because, limits::ERROR)),
            not_before,
            ..Release::default()
        }),
        JobEnd::LimitReached(until) => Ending::Release(Release {
            reason: Some(Reason::UsageLimit),
            pause_until: until,
            ..Release::default()
        }),
    }
}

/// What is reported instead of a completion that was refused.
pub(crate) fn refused(job: &Job, error: &ClientError) -> Ending {
    let message = format!("the result was refused: {error}");
    fail(
        job,
        if error.is_about_the_report() {
            JobError::permanent(message).code("result-refused")
        } else {
            JobError::recoverable(message).code("result-refused")
        },
    )
}

fn fail(job: &Job, error: JobError) -> Ending {
    let lease = job.lease_ref();
    let mut reported = error.error;
    reported.message = without_middle(&reported.message, limits::ERROR);
    Ending::Fail(Box::new(FailRequest {
        id: lease.id,
        guid: job.agent_guid(),
        instance_id: None,
        attempt: lease.attempt,
        recoverable: reported.recoverable,
        error: reported,
        reason: error.reason,
        retry_after_ms: error.retry_after.map(millis),
        spends_attempt: None,
    }))
}

fn now() -> Timestamp {
    clock::now()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::JobResult;
    use crate::agent::testing::job;

    #[test]
    fn a_finished_job_is_completed_with_its_time() {
        let job = job();
        let Ending::Complete(item) = of(&job, JobEnd::Completed(JobResult::summary("done"))) else {
            panic!("not completed");
        };
        assert_eq!(item.attempt, job.attempt());
        assert!(item.result.unwrap().completed_at.is_some());
    }

    #[test]
    fn a_cancelled_job_is_stopped_whatever_it_came_to() {
        let job = job();
        job.cancel(CancelCause::Cancelled, None);
        let end = of(&job, JobEnd::Completed(JobResult::summary("late")));
        assert!(matches!(end, Ending::Stopped(Some(_))), "{end:?}");
        let end = of(&job, JobEnd::Failed(JobError::recoverable("killed")));
        assert!(matches!(end, Ending::Stopped(None)), "{end:?}");
    }

    #[test]
    fn what_there_was_when_a_job_was_stopped_is_kept_where_it_was_called_off() {
        let job = job();
        let stopped = || JobEnd::Stopped(JobResult::summary("half of it"));
        assert!(matches!(of(&job, stopped()), Ending::Release(_)));
        job.cancel(CancelCause::Cancelled, None);
        let Ending::Stopped(Some(result)) = of(&job, stopped()) else {
            panic!("not kept");
        };
        assert_eq!(result.summary.as_deref(), Some("half of it"));
    }

    #[test]
    fn a_result_over_the_limit_fails_for_good_and_says_so() {
        let huge = JobResult::summary("x".repeat(limits::RESULT + 1));
        let Ending::Fail(request) = of(&job(), JobEnd::Completed(huge)) else {
            panic!("not failed");
        };
        assert_eq!(request.recoverable, Some(false));
        assert!(request.error.message.contains("at most"));
    }

    #[test]
    fn a_long_error_keeps_its_beginning_and_its_end() {
        let text = format!("first {} last", "ü".repeat(3000));
        let Ending::Fail(request) = of(&job(), JobEnd::Failed(JobError::recoverable(text))) else {
            panic!("not failed");
        };
        let message = request.error.message;
        assert!(message.len() <= limits::ERROR);
        assert!(message.starts_with("first") && message.ends_with("last"));
    }
}
