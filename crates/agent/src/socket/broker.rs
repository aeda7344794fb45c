//! What the program of one attempt may ask, and what is done then.

use std::sync::Arc;
use std::time::Duration;

use loom_client::{CancelCause, Client, ErrorKind, Job, JobEnd};
use loom_protocol::text::{without_end, without_middle};
use loom_protocol::work::{Lease, ProgressRequest, WorkItem, limits};
use loom_protocol::{Body, ErrorCode, VerbName, WireError};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::AWAIT;
use super::children::{Children, Slots};
use super::end::{End, Told};
use super::message::{Await, Complete, Fail, Progress, Request, Submit, Verb};
use super::peer::Programs;
use super::refusal::wire;
use crate::secrets::Secrets;

/// How long a lease is asked after before an end is noted without an answer.
const ASK_LEASE: Duration = Duration::from_secs(5);

/// How an agent speaks to its coordinator.
#[derive(Clone)]
pub struct Line {
    /// Its connection.
    pub client: Client,
    /// Which run of the agent it is.
    pub instance_id: String,
}

/// What an agent lets its programs ask.
#[derive(Clone)]
pub struct Terms {
    /// Whom it asks; without, nobody knows more than the program.
    pub line: Option<Line>,
    /// Its name.
    pub handle: String,
    /// What may be submitted.
    pub may_submit: Arc<[String]>,
    /// Its slots.
    pub slots: Slots,
    /// What is taken out of all that is told.
    pub secrets: Secrets,
}

/// Answers the program of one attempt.
pub struct Broker {
    job: Job,
    /// The attempt that the program was started with.
    attempt: u32,
    terms: Terms,
    programs: Programs,
    children: Children,
    end: Mutex<End>,
    /// When the program last asked something, and whether it has told its end.
    signs: watch::Sender<(Option<Instant>, bool)>,
}

impl Broker {
    /// For the program of a job.
    pub fn new(job: &Job, terms: Terms) -> Self {
        Self {
            attempt: job.attempt(),
            job: job.clone(),
            programs: Programs::default(),
            children: Children::new(terms.may_submit.clone(), terms.slots.clone()),
            end: Mutex::default(),
            signs: watch::Sender::new((None, false)),
            terms,
        }
    }

    /// Who may ask.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// What the attempt came to ([`End::over`]), and whether its program has told that.
    pub fn over(&self, judged: JobEnd, is_last: bool) -> (JobEnd, bool) {
        let mut end = self.end.lock();
        (end.over(judged, is_last), end.is_told())
    }

    /// When the program last asked something; `started` if never.
    pub fn last_sign(&self, started: Instant) -> Instant {
        let (last, _) = *self.signs.borrow();
        last.map_or(started, |last| last.max(started))
    }

    /// Waits until the program has told its end.
    pub async fn told(&self) {
        let mut signs = self.signs.subscribe();
        // The sender lives as long as this.
        let _ = signs.wait_for(|(_, is_told)| *is_told).await;
    }

    /// Answers one line.
    ///
    /// # Errors
    /// It is refused.
    pub async fn answer(&self, line: &[u8]) -> Result<Body, WireError> {
        let request: Request = serde_json::from_slice(line)
            .map_err(|error| WireError::invalid(format!("this is no request: {error}")))?;
        self.signs
            .send_modify(|(last, _)| *last = Some(Instant::now()));
        match request.verb {
            Verb::Progress => self.progress(self.read(request)?).await,
            Verb::Complete => {
                let done: Complete = self.read(request)?;
                check_size(&done)?;
                self.tell(done.into()).await
            }
            Verb::Fail => {
                let mut failed: Fail = self.read(request)?;
                if failed.message.trim().is_empty() {
                    return Err(WireError::invalid("message is missing or empty"));
                }
                failed.message = without_middle(&failed.message, limits::ERROR);
                self.tell(failed.into()).await
            }
            Verb::Show => self.show().await,
            Verb::Submit => self.submit(self.read(request)?).await,
            Verb::Await => self.wait(self.read(request)?).await,
        }
    }

    /// The rest of a request, without secrets.
    fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, WireError> {
        let text = request.request.map_or_else(
            || "{}".into(),
            |body| {
                let text = String::from_utf8_lossy(body.as_bytes());
                self.terms.secrets.hide(&text)
            },
        );
        serde_json::from_str(&text).map_err(|error| {
            WireError::invalid(format!(
                "{:?} is not asked like that: {error}",
                request.verb
            ))
        })
    }

    async fn progress(&self, told: Progress) -> Result<Body, WireError> {
        if told
            .progress
            .is_some_and(|percent| !(0.0..=100.0).contains(&percent))
        {
            return Err(WireError::invalid("progress is a number from 0 to 100"));
        }
        let message = told.message.filter(|message| !message.is_empty());
        let message = message.map(|message| without_end(&message, limits::ERROR));
        let line = self.line()?;
        self.ask_lease(line, told.progress, message, None).await?;
        body(&())
    }

    /// Notes the end, where the lease holds as far as anybody knows.
    async fn tell(&self, end: Told) -> Result<Body, WireError> {
        self.check_held()?;
        if let Some(line) = &self.terms.line {
            match self.ask_lease(line, None, None, Some(ASK_LEASE)).await {
                Err(error) if !error.code.is_transient() => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "an end is noted although nobody knows of the lease");
                }
                Ok(()) => {}
            }
        }
        self.end.lock().tell(end)?;
        self.signs.send_modify(|(_, is_told)| *is_told = true);
        body(&())
    }

    async fn show(&self) -> Result<Body, WireError> {
        match &self.terms.line {
            Some(line) => {
                let item = line.client.get(self.job.item().id).await;
                body(&item.map_err(|error| wire(&error))?)
            }
            None => body(self.job.item()),
        }
    }

    async fn submit(&self, asked: Submit) -> Result<Body, WireError> {
        self.children.check(&asked)?;
        self.check_held()?;
        let line = self.line()?;
        self.ask_lease(line, None, None, None).await?;
        let (item, handle) = (self.job.item(), &self.terms.handle);
        let submitted = self.children.submit(&line.client, item, handle, asked);
        body(&submitted.await?)
    }

    async fn wait(&self, asked: Await) -> Result<Body, WireError> {
        let line = self.line()?;
        let id = asked.id;
        let not_ours = || {
            let text = format!("item {id} is none that this one has submitted");
            WireError::new(ErrorCode::Forbidden, text)
        };
        let item = match line.client.get(id).await {
            Ok(item) => item,
            Err(error) if error.code() == Some(ErrorCode::NotFound) => return Err(not_ours()),
            Err(error) => return Err(wire(&error)),
        };
        if item.parent_id != Some(self.job.item().id) {
            return Err(not_ours());
        }
        if item.terminal {
            return body(&item);
        }
        match line.client.wait(id, AWAIT).await {
            Ok(outcome) => body(outcome.item()),
            Err(error) if error.kind() == ErrorKind::Deadline => body(&None::<WorkItem>),
            Err(error) => Err(wire(&error)),
        }
    }

    fn line(&self) -> Result<&Line, WireError> {
        self.terms.line.as_ref().ok_or_else(|| {
            WireError::unavailable("this agent has no coordinator", Duration::from_secs(1))
        })
    }

    /// What the agent itself knows of the lease.
    fn check_held(&self) -> Result<(), WireError> {
        match self.job.cancel_cause() {
            Some(CancelCause::LeaseLost) => Err(WireError::new(
                ErrorCode::StaleLease,
                "the lease on this attempt is lost",
            )),
            _ => Ok(()),
        }
    }

    /// Tells the coordinator of progress, or that the program is alive; by the answer the lease holds.
    async fn ask_lease(
        &self,
        line: &Line,
        progress: Option<f64>,
        message: Option<String>,
        within: Option<Duration>,
    ) -> Result<(), WireError> {
        let request = ProgressRequest {
            id: self.job.item().id,
            guid: self.job.agent_guid(),
            instance_id: Some(line.instance_id.clone()),
            attempt: self.attempt,
            progress,
            message,
            usage: None,
            session: None,
        };
        let within = within.unwrap_or(line.client.options().request_deadline);
        let asked = line
            .client
            .request_within::<Lease>(VerbName::WorkProgress, &request, within);
        asked.await.map(drop).map_err(|error| wire(&error))
    }
}

/// Whether a result can be kept.
fn check_size(done: &Complete) -> Result<(), WireError> {
    let len = |body: &Option<Body>| body.as_ref().map_or(0, Body::len);
    let size =
        done.summary.as_ref().map_or(0, String::len) + len(&done.output) + len(&done.artifacts);
    if size > limits::RESULT {
        return Err(WireError::new(
            ErrorCode::TooLarge,
            format!(
                "the result has {size} bytes, and at most {} can be kept; put it elsewhere and report where",
                limits::RESULT
            ),
        ));
    }
    Ok(())
}

fn body(value: &impl Serialize) -> Result<Body, WireError> {
    Body::of(value)
        .map_err(|error| WireError::new(ErrorCode::Internal, format!("no answer: {error}")))
}
