//! The end of a run: cancelled, and by force where it does not obey.

use std::time::Duration;

use loom_protocol::SpinUpId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::Failure;
use super::note::Noted;
use super::runs::Runner;
use super::wire::Run;
use super::{Github, LOOK, pace};
use crate::outcome::Stopped;
use crate::reference::GithubReference;
use crate::{ProbeError, StopError};

/// How soon it is looked again; half as long again each time.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(5);
/// How long a run may take that is cancelled by force.
const BY_FORCE: Duration = Duration::from_mins(1);

impl Github {
    pub(super) async fn end(
        &self,
        spin_up: SpinUpId,
        known: Option<&GithubReference>,
        grace: Duration,
    ) -> Result<Stopped, StopError> {
        let runner = self.runner(known).map_err(StopError)?;
        let never = CancellationToken::new();
        let runs = match known {
            Some(known) => self.known(&runner, known).await?,
            None => self.named(&runner, spin_up, grace).await?,
        };
        let Some(runs) = runs else {
            let why = "no run has the id of the start in its name yet, so that none can be cancelled; one that still comes finds its ticket refused";
            return Ok(Stopped::NotPossible {
                why: why.to_owned(),
            });
        };
        let living: Vec<&Run> = runs.iter().filter(|run| !run.is_over()).collect();
        let mut left = Vec::new();
        let until = Instant::now() + grace.max(LOOK);
        for run in &living {
            let asked = runner.cancel(run.id, false, until, &never).await;
            asked.map_err(ProbeError::from)?;
            left.push(run.id);
        }
        let mut over: Vec<Run> = runs.iter().filter(|run| run.is_over()).cloned().collect();
        wait_for_end(&runner, &mut left, &mut over, grace).await;
        let killed = left.len();
        let until = Instant::now() + BY_FORCE;
        for id in &left {
            let asked = runner.cancel(*id, true, until, &never).await;
            asked.map_err(ProbeError::from)?;
        }
        wait_for_end(&runner, &mut left, &mut over, BY_FORCE).await;
        if !left.is_empty() {
            return Err(StopError(format!(
                "the runs {left:?} of the start {spin_up} in {} do not end, not even cancelled by force: look at their pages",
                runner.repo
            )));
        }
        let output = match over.first() {
            Some(run) => Some(runner.summary(run).await),
            None => None,
        };
        Ok(Stopped::Ended {
            processes: living.len(),
            killed,
            output,
        })
    }

    /// The run that was started; no run where somebody has deleted it, which takes one that is over.
    async fn known(
        &self,
        runner: &Runner,
        known: &GithubReference,
    ) -> Result<Option<Vec<Run>>, StopError> {
        let (until, never) = (Instant::now() + LOOK, CancellationToken::new());
        match runner.run(known.run_id, None, until, &never).await {
            Ok(looked) => Ok(Some(looked.run.into_iter().collect())),
            Err(failure)
                if failure.is_not_found() && runner.workflow(until, &never).await.is_ok() =>
            {
                Ok(Some(Vec::new()))
            }
            Err(failure) => Err(ProbeError::from(failure).into()),
        }
    }

    /// The runs that bear an id; none where one may still come and did not within the grace.
    async fn named(
        &self,
        runner: &Runner,
        spin_up: SpinUpId,
        grace: Duration,
    ) -> Result<Option<Vec<Run>>, StopError> {
        let (begun, never) = (Instant::now(), CancellationToken::new());
        let mut pause = FIRST_LOOK;
        loop {
            let noted = self.noted(spin_up).await.map_err(StopError)?;
            let ordered_at = noted.and_then(Noted::ordered_at);
            let until = Instant::now() + LOOK;
            let listed = runner.runs_of(spin_up, ordered_at, until, &never).await;
            let listed = listed.map_err(ProbeError::from)?;
            if !listed.runs.is_empty() {
                return Ok(Some(listed.runs));
            }
            let noted = self.noted(spin_up).await.map_err(StopError)?;
            if matches!(noted, Some(Noted::Prepared(_))) {
                return Ok(Some(Vec::new()));
            }
            let wait = pace::next_look(pause, listed.limits, pace::Share::Whole);
            if begun.elapsed() + wait > grace {
                return Ok(None);
            }
            pause = (pause * 3 / 2).min(LAST_LOOK);
            tokio::time::sleep(wait).await;
        }
    }
}

/// Waits until runs are over. `left` is what is not after `limit`.
async fn wait_for_end(runner: &Runner, left: &mut Vec<u64>, over: &mut Vec<Run>, limit: Duration) {
    let (until, never) = (Instant::now() + limit, CancellationToken::new());
    let mut pause = FIRST_LOOK;
    loop {
        let (mut wait, mut is_limited) = (pause, false);
        for id in std::mem::take(left) {
            match runner.run(id, None, until, &never).await {
                Ok(looked) => {
                    wait = wait.max(pace::next_look(pause, looked.limits, pace::Share::Whole));
                    match looked.run.filter(Run::is_over) {
                        Some(run) => over.push(run),
                        None => left.push(id),
                    }
                }
                Err(failure) => {
                    tracing::debug!(run = id, why = failure.words(), "a run can't be looked at");
                    // For longer than there is time.
                    is_limited |= matches!(failure, Failure::Limited(_));
                    left.push(id);
                }
            }
        }
        let rest = until.saturating_duration_since(Instant::now());
        if left.is_empty() || rest.is_zero() {
            return;
        }
        pause = (pause * 3 / 2).min(LAST_LOOK);
        if is_limited {
            return tokio::time::sleep(rest).await;
        }
        tokio::time::sleep(wait.min(rest)).await;
    }
}
