//! What the end of a program means for its item.

use jiff::tz::TimeZone;
use loom_client::clock;
use loom_client::{JobEnd, JobError};
use loom_protocol::work::Reason;

use super::execute::{Ended, Finished};
use super::exit_rule::{Exit, ExitVerdict};
use super::limit::LimitMet;
use super::result::{error_of, failure, result_of, said_by};
use super::runner::Runner;

impl Runner {
    /// What the end of a program means for the item.
    pub(super) fn judge(&self, finished: &Finished, who: &str) -> JobEnd {
        let verdict = match finished.ended {
            Ended::Exited(exit) => self.plan.rules.verdict(exit),
            Ended::Cancelled if !finished.stdout.is_empty() => {
                return JobEnd::Stopped(said_by(&finished.stdout));
            }
            _ => ExitVerdict::Retry(None),
        };
        if let Some(met) = self.limit_met(finished, verdict) {
            return self.rest(&met, finished);
        }
        match verdict {
            ExitVerdict::Complete => self.completed(finished),
            ExitVerdict::Release => JobEnd::Released,
            ExitVerdict::Retry(_) | ExitVerdict::Permanent => {
                JobEnd::Failed(self.judge_failure(finished, who))
            }
        }
    }

    /// Whether the program has ended because of a usage limit.
    fn limit_met(&self, finished: &Finished, verdict: ExitVerdict) -> Option<LimitMet> {
        let Ended::Exited(_) = finished.ended else {
            return None;
        };
        let (limits, zone) = (&self.plan.limits, TimeZone::system());
        let now = clock::now();
        match verdict {
            ExitVerdict::Complete => limits.of_success(&finished.stdout, now, &zone),
            ExitVerdict::Release => None,
            ExitVerdict::Retry(_) | ExitVerdict::Permanent => {
                limits.of_failure(&finished.stdout, &finished.stderr, now, &zone)
            }
        }
    }

    pub(super) fn judge_failure(&self, finished: &Finished, who: &str) -> JobError {
        let (code, what) = match finished.ended {
            Ended::Exited(exit @ Exit::Code(code)) => (format!("exit-{code}"), exit.to_string()),
            Ended::Exited(exit @ Exit::Signal(signal)) => {
                (format!("signal-{signal}"), exit.to_string())
            }
            Ended::Silent(limit) => {
                let limit = humantime::format_duration(limit);
                (
                    "silent".into(),
                    format!("wrote nothing for {limit} and was ended (--silent-timeout)"),
                )
            }
            Ended::TooLong(limit) => {
                let limit = humantime::format_duration(limit);
                (
                    "max-runtime".into(),
                    format!("ran for {limit} and was ended (--max-runtime)"),
                )
            }
            Ended::Lingering => ("no-exit".into(), "did not exit and was ended".into()),
            Ended::Cancelled => (
                "stopped".into(),
                "stopped because the job was cancelled".into(),
            ),
        };
        let message = error_of(&format!("{who}{what}"), &finished.stdout, &finished.stderr);
        let verdict = match finished.ended {
            Ended::Exited(exit) => self.plan.rules.verdict(exit),
            _ => ExitVerdict::Retry(None),
        };
        let error = failure(verdict != ExitVerdict::Permanent, code, message);
        match (verdict, finished.ended) {
            (ExitVerdict::Retry(Some(pause)), _) => error.retry_after(pause),
            (_, Ended::Silent(_) | Ended::TooLong(_)) => error.reason(Reason::Timeout),
            _ => error,
        }
    }

    /// A program that is done, with what it came to.
    fn completed(&self, finished: &Finished) -> JobEnd {
        self.rests.lock().over(finished.started_at);
        match result_of(&finished.stdout, self.plan.result) {
            Ok(result) => JobEnd::Completed(result),
            Err(problem) => {
                let message = error_of(&problem, &finished.stdout, &finished.stderr);
                let error = failure(true, "no-result", message);
                JobEnd::Failed(error.reason(Reason::NoResult))
            }
        }
    }
}
