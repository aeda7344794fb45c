//! How a job can end, in the handler's words.

use std::time::Duration;

use loom_protocol::work::{Reason, ReportedError, ReportedResult, Usage};
use loom_protocol::{Body, Timestamp};
use serde::Serialize;

use crate::clock;
use crate::error::{ClientError, ErrorKind};

/// What a finished job came to.
#[derive(Debug, Clone, Default)]
pub struct JobResult {
    pub(crate) result: ReportedResult,
    pub(crate) usage: Option<Usage>,
}

impl JobResult {
    /// A result that is nothing but a sentence for people.
    pub fn summary(sentence: impl Into<String>) -> Self {
        let mut done = Self::default();
        done.result.summary = Some(sentence.into());
        done
    }

    /// Adds whatever there is to give, as any value that can be written as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the value can't be written.
    pub fn output(mut self, value: &impl Serialize) -> Result<Self, ClientError> {
        self.result.output = Some(body_of("output", value)?);
        Ok(self)
    }

    /// Adds the list of things made.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the value can't be written.
    pub fn artifacts(mut self, value: &impl Serialize) -> Result<Self, ClientError> {
        self.result.artifacts = Some(body_of("artifacts", value)?);
        Ok(self)
    }

    /// Adds what it used up; instead of what was told by [`Job::usage`](super::Job::usage) before.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// The result as it will be reported.
    pub const fn reported(&self) -> &ReportedResult {
        &self.result
    }

    /// The size of what was written, in bytes.
    pub(crate) fn len(&self) -> usize {
        let body = |body: &Option<Body>| body.as_ref().map_or(0, Body::len);
        self.result.summary.as_ref().map_or(0, String::len)
            + body(&self.result.output)
            + body(&self.result.artifacts)
    }
}

impl From<ReportedResult> for JobResult {
    fn from(result: ReportedResult) -> Self {
        Self {
            result,
            usage: None,
        }
    }
}

fn body_of(what: &str, value: &impl Serialize) -> Result<Body, ClientError> {
    Body::of(value).map_err(|e| {
        let message = format!("the {what} can't be written as JSON: {e}");
        ClientError::new(ErrorKind::Codec, message)
    })
}

/// Why a job failed, and what that means for the item.
#[derive(Debug, Clone)]
pub struct JobError {
    pub(crate) error: ReportedError,
    pub(crate) reason: Option<Reason>,
    pub(crate) retry_after: Option<Duration>,
}

impl JobError {
    /// A failure that another attempt may mend.
    pub fn recoverable(message: impl Into<String>) -> Self {
        Self::new(message, true)
    }

    /// A failure that no other attempt will mend: the item becomes a dead letter.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(message, false)
    }

    fn new(message: impl Into<String>, recoverable: bool) -> Self {
        Self {
            error: ReportedError {
                message: message.into(),
                code: None,
                recoverable: Some(recoverable),
                occurred_at: Some(clock::now()),
            },
            reason: None,
            retry_after: None,
        }
    }

    /// The agent's own code for it.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.error.code = Some(code.into());
        self
    }

    /// Which kind of failure it is, one of [`Reason::OF_FAILURE`]. `agent-error` unless set; the
    /// coordinator refuses any other one.
    #[must_use]
    pub const fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The item is not to be offered again before this much time has passed.
    #[must_use]
    pub const fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// No other attempt will help, whatever was said before.
    #[must_use]
    pub const fn for_good(mut self) -> Self {
        self.error.recoverable = Some(false);
        self
    }

    /// Whether another attempt may help.
    pub const fn is_recoverable(&self) -> bool {
        !matches!(self.error.recoverable, Some(false))
    }

    /// The agent's own code, if it has one.
    pub fn code_of(&self) -> Option<&str> {
        self.error.code.as_deref()
    }

    /// Which kind of failure it is, if that was said.
    pub const fn reason_of(&self) -> Option<Reason> {
        self.reason
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.error.message
    }
}

/// How a job ended. A handler may return this, or `Result<JobResult, JobError>`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JobEnd {
    /// It is done.
    Completed(JobResult),
    /// This attempt failed.
    Failed(JobError),
    /// It goes back, unspent; another agent gets it first.
    Released,
    /// The same because of a trouble that is not the item's: what stands in its errors, and before when
    /// nobody is offered it.
    GivenBack {
        /// What the trouble is.
        because: String,
        /// Not to be offered again before; at once where absent.
        not_before: Option<Timestamp>,
    },
    /// It has obeyed a cancel, with what there was by then: kept with the cancelled item. Where the item was not called
    /// off it goes back, unspent.
    Stopped(JobResult),
    /// The agent's account has met a usage limit: the item goes back unspent, for others to have at
    /// once, and the agent is paused until then (for five minutes where nobody knows), with all that share its `limit_group`.
    LimitReached(Option<Timestamp>),
    /// The same because of something else that is nobody's failure: `outage` (the provider is in trouble) or `account` (a
    /// person has to do something about it), see [`Reason::OF_RELEASE`].
    Unspent {
        /// Which of them.
        reason: Reason,
        /// Until when the agent is paused; for five minutes, or until a person resumes it, where nobody knows.
        until: Option<Timestamp>,
    },
    /// Somebody else has reported its end; nothing is reported.
    Settled,
}

impl From<Result<JobResult, JobError>> for JobEnd {
    fn from(result: Result<JobResult, JobError>) -> Self {
        match result {
            Ok(result) => Self::Completed(result),
            Err(error) => Self::Failed(error),
        }
    }
}
