//! `github-actions`: a run of a workflow.
//!
//! - **Found by the id**: an input of the target carries `{{spinUpId}}`, and the workflow shows it in its `run-name`. The
//!   run is the one that has the id in its name; neither the newest one nor the ticket is ever taken for it. Where no
//!   input carries it, nothing is started. (GitHub tells the run of a dispatch itself, where it can; what has no such
//!   name is not found again after a crash.)
//! - **Never doubled**: a dispatch can't be repeated, so that it is noted before it is sent, in the folder of the
//!   coordinator and on its disk. Whoever finds that note sends nothing: the run is looked for, and where there is none
//!   the start is in doubt ([`StartErrorKind::InDoubt`](crate::StartErrorKind), [`Found::Unknown`]). What GitHub
//!   refused (4xx, also a rate limit), and what never left, was not dispatched, and is noted so. Before every dispatch it
//!   is looked whether a run has the id already. A coordinator on another machine does not see the note: there nothing
//!   is ever [`Found::Absent`].
//! - **Sent** are the inputs of the target and no others, with the placeholders of a webhook's body filled in. What
//!   stands in an input can be read by whoever may read the repository, the ticket too.
//! - **The token** is in the variable that the target names. It goes to `apiUrl` only, never over a redirect, never
//!   without encryption to another machine; it is neither stored nor logged.
//! - **Limits** of GitHub are obeyed: `retry-after`, `x-ratelimit-reset` and a minute or more where nothing is said. They are
//!   those of a token, so that one that a target meets holds for all targets of the process with that token. A run is
//!   watched with conditional requests, which cost nothing while it is as it was, and as seldom as what is left allows
//!   to all that are watched.
//! - **Ended** is the run: cancelled, and cancelled by force after the grace.

mod api;
mod inputs;
mod limiter;
mod note;
mod pace;
mod runs;
mod start;
mod stop;
mod watch;
mod wire;
mod words;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use loom_protocol::SpinUpId;
use loom_protocol::target::GithubActionsConfig;
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::order::StartOrder;
use crate::outcome::{Found, Probe, Started, Stopped};
use crate::reference::{GithubReference, Reference};
use crate::{Launcher, ProbeError, StartError, StopError, Surroundings};
use api::{Api, Failure};
use inputs::Inputs;
use note::Noted;
use runs::Runner;
use start::{on_disk, reference};
use wire::Run;

pub use limiter::TokenLimits;

/// How long a run may take to be there, where the target does not say.
const START: Duration = Duration::from_mins(2);
/// How long a question may be repeated.
const LOOK: Duration = Duration::from_mins(1);

/// Starts agents as runs of a workflow.
#[derive(Debug)]
pub struct Github {
    config: GithubActionsConfig,
    around: Surroundings,
}

impl Github {
    /// For one target.
    pub const fn new(config: GithubActionsConfig, around: Surroundings) -> Self {
        Self { config, around }
    }

    fn start_limit(&self) -> Duration {
        let limit = self.config.start_timeout_ms.map(Duration::from_millis);
        limit.unwrap_or(START)
    }

    /// Whom to ask: of the repository of the target, or of that in which an agent was started.
    fn runner(&self, of: Option<&GithubReference>) -> Result<Runner, String> {
        let repo = of.map_or(&self.config.repo, |of| &of.repo).clone();
        Ok(Runner {
            api: Arc::new(Api::new(&self.config, &self.around)?),
            repo,
            workflow: self.config.workflow.clone(),
        })
    }

    async fn noted(&self, spin_up: SpinUpId) -> Result<Option<Noted>, String> {
        let note = self.note(spin_up);
        let noted = on_disk(move || note.read()).await;
        noted.map_err(|error| {
            let folder = self.around.folder.display();
            format!(
                "the folder {folder} of the coordinator can't be read ({error}); mend its rights"
            )
        })
    }

    async fn look(
        &self,
        spin_up: SpinUpId,
        known: Option<&GithubReference>,
    ) -> Result<Found, ProbeError> {
        let runner = self.runner(known).map_err(ProbeError)?;
        let (until, never) = (tokio::time::Instant::now() + LOOK, CancellationToken::new());
        if let Some(known) = known {
            let looked = runner.run(known.run_id, None, until, &never).await;
            return match looked.map(|looked| looked.run) {
                Ok(Some(run)) => Ok(state(spin_up, &runner, &run).await),
                // The workflow is still to be seen: the run is not.
                Err(failure)
                    if failure.is_not_found()
                        && known.repo == self.config.repo
                        && runner.workflow(until, &never).await.is_ok() =>
                {
                    let run = known.run_id;
                    let output = format!("run {run} is not there any more: somebody deleted it");
                    Ok(Found::Ended {
                        output: Some(output),
                    })
                }
                Err(failure) => Err(failure.into()),
                Ok(None) => Err(ProbeError(format!("run {} was not told", known.run_id))),
            };
        }
        let noted = self.noted(spin_up).await.map_err(ProbeError)?;
        let listed = runner
            .runs_of(spin_up, noted.and_then(Noted::ordered_at), until, &never)
            .await?;
        if let Some(run) = listed.runs.first() {
            return Ok(state(spin_up, &runner, run).await);
        }
        // What was sent until now is not in that list yet, or never will be.
        let why = match self.noted(spin_up).await.map_err(ProbeError)? {
            Some(Noted::Prepared(_)) => return Ok(Found::Absent),
            None => "a start is under way here, and no run has its id in its name yet",
            Some(Noted::Sent(_)) => {
                "it was dispatched, or may have been, and no run has its id in its name; one may still come"
            }
            Some(Noted::Nothing) => {
                "no run has its id in its name, and nothing here says whether it was dispatched; one may still come"
            }
        };
        Ok(Found::Unknown {
            why: why.to_owned(),
        })
    }

    /// That the workflow is there, and that the token may dispatch it: a branch that no repository has is dispatched,
    /// which GitHub refuses to those who may with 422, and to others with 403 or 404.
    async fn look_around(&self, limit: Duration) -> Result<Probe, ProbeError> {
        let inputs = Inputs::of(&self.config).map_err(ProbeError)?;
        let runner = self.runner(None).map_err(ProbeError)?;
        let GithubActionsConfig { repo, workflow, .. } = &self.config;
        let (until, never) = (
            tokio::time::Instant::now() + limit,
            CancellationToken::new(),
        );
        let seen = runner.workflow(until, &never).await?;
        if seen.state != "active" {
            return Err(ProbeError(format!(
                "the workflow {workflow} of {repo} is not active but {:?}: enable it on the page of its runs",
                seen.state
            )));
        }
        let nowhere = format!("loom-probe-{}", SpinUpId::generate());
        let nothing = std::collections::BTreeMap::new();
        match runner.dispatch(&nowhere, &nothing, until, &never).await {
            Err(Failure::Refused(StatusCode::UNPROCESSABLE_ENTITY, _)) => {}
            Err(failure) => return Err(failure.into()),
            Ok(_) => {
                let message = format!(
                    "what answers takes a dispatch for the branch {nowhere}, which does not exist: look at apiUrl"
                );
                return Err(ProbeError(message));
            }
        }
        Ok(Probe {
            seen: format!(
                "the workflow {workflow} of {repo} is active, and the token may dispatch it (whether it has the line `{}` is seen at the first start)",
                words::run_name_line(inputs.carrier().unwrap_or_default())
            ),
        })
    }
}

/// Where a run is.
async fn state(spin_up: SpinUpId, runner: &Runner, run: &Run) -> Found {
    if run.is_over() {
        let output = Some(runner.summary(run).await);
        return Found::Ended { output };
    }
    let reference = reference(spin_up, &runner.repo, run.id);
    match run.why_it_waits() {
        Some(why) => Found::Waiting { reference, why },
        None => Found::Running(reference),
    }
}

impl From<Failure> for ProbeError {
    fn from(failure: Failure) -> Self {
        Self(failure.words())
    }
}

const fn of(reference: Option<&Reference>) -> Option<&GithubReference> {
    match reference {
        Some(Reference::GithubActions(reference)) => Some(reference),
        _ => None,
    }
}

impl Launcher for Github {
    fn start<'a>(
        &'a self,
        order: &'a StartOrder,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Started, StartError>> {
        async move { self.start_or_find(order, &cancel).await }.boxed()
    }

    fn find<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Found, ProbeError>> {
        self.look(spin_up, of(reference)).boxed()
    }

    fn stop<'a>(
        &'a self,
        spin_up: SpinUpId,
        reference: Option<&'a Reference>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<Stopped, StopError>> {
        self.end(spin_up, of(reference), grace).boxed()
    }

    fn probe(&self, limit: Duration) -> BoxFuture<'_, Result<Probe, ProbeError>> {
        async move {
            let looking = tokio::time::timeout(limit, self.look_around(limit));
            looking.await.unwrap_or_else(|_| {
                let message = format!(
                    "GitHub did not answer within {limit:?}; look at the network, or at apiUrl"
                );
                Err(ProbeError(message))
            })
        }
        .boxed()
    }

    fn forget(&self, spin_up: SpinUpId) -> BoxFuture<'_, ()> {
        async move {
            let note = self.note(spin_up);
            // It logs by itself what stays behind.
            let _ = on_disk(move || {
                note.remove();
                Ok(())
            })
            .await;
        }
        .boxed()
    }
}
