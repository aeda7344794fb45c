//! What is asked of GitHub: workflows, dispatches, runs.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_protocol::{SpinUpId, Timestamp};
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Failure, Patience, Question};
use super::pace::Limits;
use super::wire::{Details, Jobs, Run, Runs, Workflow, summary};
use super::words::Asked;
use crate::output;

/// How many runs a page has.
const PAGE: &str = "100";
/// How many pages are read: GitHub lists no more than a thousand runs.
const PAGES: usize = 10;
/// How far GitHub's clock may be behind ours.
const SLACK: Duration = Duration::from_hours(1);
/// How long the jobs of a run that is over are asked for.
const SUMMARY: Duration = Duration::from_secs(10);

/// The runs that bear an id, the first one first.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) runs: Vec<Run>,
    pub(super) limits: Limits,
}

/// A run that was looked at.
#[derive(Debug)]
pub(super) struct Looked {
    /// None where it is as it was.
    pub(super) run: Option<Run>,
    pub(super) etag: Option<HeaderValue>,
    pub(super) limits: Limits,
}

/// A workflow of a repository, by the token of one target.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    pub(super) api: std::sync::Arc<Api>,
    pub(super) repo: String,
    pub(super) workflow: String,
}

impl Runner {
    /// The workflow itself.
    pub(super) async fn workflow(
        &self,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<Workflow, Failure> {
        let url = self.api.url(&self.repo, &["workflows", &self.workflow]);
        let question = Question::get(Asked::Look, url);
        self.api.ask(&question, until, cancel).await?.read()
    }

    /// Dispatches it. Sent again is only what surely was not done. The id of the run, where GitHub tells it.
    pub(super) async fn dispatch(
        &self,
        reference: &str,
        inputs: &BTreeMap<String, String>,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<Option<u64>, Failure> {
        let path = ["workflows", &self.workflow, "dispatches"];
        let url = self.api.url(&self.repo, &path);
        let mut body = json!({"ref": reference, "inputs": inputs, "return_run_details": true});
        let mut patience = Patience::default();
        loop {
            let mut question = Question::post(Asked::Dispatch, url.clone());
            question.body = Some(&body);
            let failure = match self.api.once(&question, cancel).await {
                Ok(answer) => {
                    let details = answer.read::<Details>().ok();
                    return Ok(details.map(|details| details.workflow_run_id));
                }
                Err(failure) => failure,
            };
            match &failure {
                // An older GitHub Enterprise refuses what it does not know.
                Failure::Refused(status, said)
                    if body.get("return_run_details").is_some()
                        && (*status == StatusCode::BAD_REQUEST
                            || said.contains("return_run_details")) =>
                {
                    if let Some(fields) = body.as_object_mut() {
                        fields.remove("return_run_details");
                    }
                    continue;
                }
                Failure::NotSent(_) | Failure::Limited(_) => {}
                _ => return Err(failure),
            }
            if !patience.wait(&failure, until, cancel).await {
                return Err(failure);
            }
        }
    }

    /// The runs that bear an id, of those that were dispatched since it was ordered.
    pub(super) async fn runs_of(
        &self,
        spin_up: SpinUpId,
        ordered_at: Option<Timestamp>,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<Listed, Failure> {
        let path = ["workflows", &self.workflow, "runs"];
        let mut url = self.api.url(&self.repo, &path);
        url.query_pairs_mut()
            .append_pair("event", "workflow_dispatch")
            .append_pair("per_page", PAGE);
        if let Some(since) = ordered_at.map(|at| at.before(SLACK).to_string()) {
            // Of whole seconds.
            let since = since.split('.').next().unwrap_or_default();
            url.query_pairs_mut()
                .append_pair("created", &format!(">={since}Z"));
        }
        let mut question = Question::get(Asked::Look, url);
        let mut pages = 0;
        loop {
            pages += 1;
            let answer = self.api.ask(&question, until, cancel).await?;
            let mut runs = answer.read::<Runs>()?.workflow_runs;
            runs.retain(|run| run.bears(spin_up));
            runs.sort_by_key(|run| run.id);
            let limits = answer.limits;
            match answer.next {
                Some(next) if runs.is_empty() && pages < PAGES => {
                    question.url = self.api.page(&next)?;
                }
                _ => return Ok(Listed { runs, limits }),
            }
        }
    }

    /// One run. With what was seen of it before, it costs nothing where it is as it was.
    pub(super) async fn run(
        &self,
        id: u64,
        etag: Option<&HeaderValue>,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<Looked, Failure> {
        let url = self.api.url(&self.repo, &["runs", &id.to_string()]);
        let mut question = Question::get(Asked::LookAtRun, url);
        question.etag = etag;
        let answer = self.api.ask(&question, until, cancel).await?;
        let run = if answer.status == StatusCode::NOT_MODIFIED {
            None
        } else {
            Some(answer.read::<Run>()?)
        };
        Ok(Looked {
            run,
            etag: answer.etag.or_else(|| etag.cloned()),
            limits: answer.limits,
        })
    }

    /// Asks for the end of a run. One that has ended already is what is wanted.
    pub(super) async fn cancel(
        &self,
        id: u64,
        by_force: bool,
        until: Instant,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let verb = if by_force { "force-cancel" } else { "cancel" };
        let url = self.api.url(&self.repo, &["runs", &id.to_string(), verb]);
        let question = Question::post(Asked::Cancel, url);
        match self.api.ask(&question, until, cancel).await {
            Ok(_) | Err(Failure::Refused(StatusCode::CONFLICT, _)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// How a run ended: its jobs, the steps that failed, its page. At most 4 KiB and without secrets.
    pub(super) async fn summary(&self, run: &Run) -> String {
        let path = ["runs", &run.id.to_string(), "jobs"];
        let mut url = self.api.url(&self.repo, &path);
        url.query_pairs_mut().append_pair("per_page", PAGE);
        let question = Question::get(Asked::LookAtRun, url);
        let (until, never) = (Instant::now() + SUMMARY, CancellationToken::new());
        let jobs = match self.api.ask(&question, until, &never).await {
            Ok(answer) => answer.read::<Jobs>().map(|jobs| jobs.jobs),
            Err(failure) => Err(failure),
        };
        let jobs = jobs.unwrap_or_else(|failure| {
            tracing::debug!(
                run = run.id,
                why = failure.words(),
                "the jobs of a run are not told"
            );
            Vec::new()
        });
        output::told(summary(run, &jobs).as_bytes(), &self.api.secrets)
    }
}
