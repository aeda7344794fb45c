//! From how a handler ended to what is reported. Pure.

use std::time::Duration;

use loom_protocol::Timestamp;
use loom_protocol::text::without_middle;
use loom_protocol::work::{
    CompleteItem, FailRequest, Reason, ReportedEvidence, ReportedResult, Usage, limits,
};

use super::end::{JobEnd, JobError};
use super::job::{CancelCause, Job, RunTold};
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
    Stopped(Option<ReportedResult>, Box<RunTold>),
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
    pub(crate) told: Box<RunTold>,
}

/// What the end of a job's handler means.
pub(crate) fn of(job: &Job, end: JobEnd) -> Ending {
    let told = job.run_told();
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
            let told = RunTold {
                usage: sound(done.usage).or(told.usage),
                ..told
            };
            Ending::Stopped(is_small.then_some(done.result), Box::new(told))
        }
        JobEnd::Failed(_)
        | JobEnd::Released
        | JobEnd::GivenBack { .. }
        | JobEnd::LimitReached(_)
        | JobEnd::Unspent { .. }
            if called_off =>
        {
            Ending::Stopped(None, Box::new(told))
        }
        JobEnd::Completed(done) => {
            let lease = job.lease_ref();
            let mut result = done.result;
            result.completed_at.get_or_insert_with(now);
            Ending::Complete(Box::new(CompleteItem {
                id: lease.id,
                attempt: lease.attempt,
                result: Some(result),
                usage: sound(done.usage).or(told.usage),
                session: told.session,
                evidence: some(told.evidence),
            }))
        }
        JobEnd::Failed(error) => fail(job, error),
        JobEnd::Released | JobEnd::Stopped(_) => Ending::Release(Release {
            told: Box::new(told),
            ..Release::default()
        }),
        JobEnd::GivenBack {
            because,
            not_before,
        } => Ending::Release(Release {
            message: Some(without_middle(&because, limits::ERROR)),
            not_before,
            told: Box::new(told),
            ..Release::default()
        }),
        JobEnd::LimitReached(until) => Ending::Release(Release {
            reason: Some(Reason::UsageLimit),
            pause_until: until,
            told: Box::new(told),
            ..Release::default()
        }),
        JobEnd::Unspent { reason, until } => Ending::Release(Release {
            reason: Some(reason),
            pause_until: until,
            told: Box::new(told),
            ..Release::default()
        }),
    }
}

/// What is reported instead of a completion that was refused.
pub(crate) fn refused(job: &Job, error: &ClientError) -> Ending {
    let message = format!("the result was refused: {error}");
    let ending = fail(
        job,
        if error.is_about_the_report() {
            JobError::permanent(message).code("result-refused")
        } else {
            JobError::recoverable(message).code("result-refused")
        },
    );
    // It may have been refused for what stood beside it.
    match ending {
        Ending::Fail(request) => Ending::Fail(Box::new(FailRequest {
            usage: None,
            session: None,
            evidence: None,
            ..*request
        })),
        other => other,
    }
}

fn fail(job: &Job, error: JobError) -> Ending {
    let (lease, told) = (job.lease_ref(), job.run_told());
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
        usage: told.usage,
        session: told.session,
        evidence: some(told.evidence),
    }))
}

/// What the coordinator would refuse is left out: the end counts without it.
fn sound(usage: Option<Usage>) -> Option<Usage> {
    usage.filter(|usage| usage.check().is_ok())
}

fn some(evidence: Vec<ReportedEvidence>) -> Option<Vec<ReportedEvidence>> {
    Some(evidence).filter(|evidence| !evidence.is_empty())
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
        assert!(matches!(end, Ending::Stopped(Some(_), _)), "{end:?}");
        let end = of(&job, JobEnd::Failed(JobError::recoverable("killed")));
        assert!(matches!(end, Ending::Stopped(None, _)), "{end:?}");
    }

    #[test]
    fn what_there_was_when_a_job_was_stopped_is_kept_where_it_was_called_off() {
        let job = job();
        let stopped = || JobEnd::Stopped(JobResult::summary("half of it"));
        assert!(matches!(of(&job, stopped()), Ending::Release(_)));
        job.cancel(CancelCause::Cancelled, None);
        let Ending::Stopped(Some(result), _) = of(&job, stopped()) else {
            panic!("not kept");
        };
        assert_eq!(result.summary.as_deref(), Some("half of it"));
    }

    #[test]
    fn what_was_told_of_the_run_goes_with_every_end() {
        let used = |tokens| Usage {
            tokens: Some(tokens),
            ..Usage::default()
        };
        let told = || {
            let job = job();
            job.usage(used(7));
            job.usage(Usage {
                cost_usd: Some(-1.0),
                ..Usage::default()
            });
            let check = serde_json::json!({"name": "tests", "exitCode": 1});
            for _ in 0..=limits::EVIDENCE {
                job.evidence(serde_json::from_value(check.clone()).unwrap());
            }
            job
        };
        let Ending::Fail(failed) = of(&told(), JobEnd::Failed(JobError::recoverable("no"))) else {
            panic!("not failed");
        };
        assert_eq!(failed.usage, Some(used(7)), "what cannot be is not told");
        assert_eq!(failed.evidence.unwrap().len(), limits::EVIDENCE);
        let Ending::Complete(done) = of(&told(), JobEnd::Completed(JobResult::summary("d"))) else {
            panic!("not completed");
        };
        assert_eq!(done.usage, Some(used(7)));
        let unspent = JobEnd::Unspent {
            reason: Reason::Outage,
            until: None,
        };
        let Ending::Release(released) = of(&told(), unspent) else {
            panic!("not released");
        };
        assert_eq!(released.reason, Some(Reason::Outage));
        assert_eq!(released.told.usage, Some(used(7)));
        let job = told();
        job.cancel(CancelCause::Cancelled, None);
        let end = JobEnd::Completed(JobResult::summary("late").usage(used(9)));
        let Ending::Stopped(Some(_), told) = of(&job, end) else {
            panic!("not stopped");
        };
        assert_eq!(told.usage, Some(used(9)), "the result knows better");
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
