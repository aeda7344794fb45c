//! Watches a run until it is over, as fast as GitHub lets one look, and cancels one that does not begin in time.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::Failure;
use super::pace;
use super::runs::Runner;
use super::wire::Run;
use crate::outcome::AgentEnd;

/// How soon a run is looked at first; half as long again each time.
const FIRST: Duration = Duration::from_secs(1);
/// The longest between two looks, unless a limit asks for more.
const LAST: Duration = Duration::from_secs(15);
/// How long one look may take, with its tries.
const LOOK: Duration = Duration::from_mins(1);

/// What is told of a run.
pub(super) struct Told {
    /// How it ended.
    pub(super) end: watch::Receiver<Option<AgentEnd>>,
    /// Why it has not begun to run.
    pub(super) waits: watch::Receiver<Option<String>>,
}

/// Tells the end of a run, and that it waits until then. Nobody looks at it any more once nobody listens for the end.
pub(super) fn told(runner: Runner, id: u64, begins_within: Option<Duration>) -> Told {
    let (tell, end) = watch::channel(None);
    let (tell_why, waits) = watch::channel(None);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = watch_run(&runner, id, begins_within, &tell_why) => ended,
            () = tell.closed() => return,
        };
        tell.send_replace(Some(ended));
    });
    Told { end, waits }
}

async fn watch_run(
    runner: &Runner,
    id: u64,
    begins_within: Option<Duration>,
    tell_why: &watch::Sender<Option<String>>,
) -> AgentEnd {
    let (never, since) = (CancellationToken::new(), Instant::now());
    let (mut pause, mut etag, mut seen) = (FIRST, None, None::<Run>);
    let mut was_late = false;
    let watcher = runner.api.limit.watches();
    loop {
        let until = Instant::now() + LOOK;
        let left = begins_within.map(|limit| limit.saturating_sub(since.elapsed()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            // Looked at again when its time is over.
            pause = pause.min(left.max(FIRST));
        }
        let wait = match runner.run(id, etag.as_ref(), until, &never).await {
            Ok(looked) => {
                etag = looked.etag;
                seen = looked.run.or(seen);
                let share = pace::Share::Watch(watcher.among());
                pace::next_look(pause, looked.limits, share)
            }
            Err(failure) if failure.is_not_found() && is_gone(runner, &never).await => {
                return AgentEnd {
                    success: false,
                    how: format!("run {id} is not there any more: somebody deleted it"),
                    output: String::new(),
                };
            }
            Err(Failure::Limited(wait)) => wait,
            Err(failure) => {
                tracing::debug!(run = id, why = failure.words(), "a run can't be looked at");
                pause
            }
        };
        if let Some(run) = seen.as_ref().filter(|run| run.is_over()) {
            return ended(runner, run, begins_within.filter(|_| was_late)).await;
        }
        let why = seen.as_ref().and_then(Run::why_it_waits);
        let waits = why.is_some();
        tell_why.send_if_modified(|told| {
            let is_news = *told != why;
            *told = why;
            is_news
        });
        let is_late = begins_within.is_some_and(|limit| since.elapsed() >= limit);
        if waits && is_late && !was_late {
            let until = Instant::now() + LOOK;
            match runner.cancel(id, false, until, &never).await {
                Ok(()) => was_late = true,
                Err(failure) => {
                    tracing::warn!(
                        run = id,
                        why = failure.words(),
                        "a run that does not begin can't be cancelled"
                    );
                }
            }
        }
        pause = (pause * 3 / 2).min(LAST);
        tokio::time::sleep(wait).await;
    }
}

async fn ended(runner: &Runner, run: &Run, late: Option<Duration>) -> AgentEnd {
    let how = match late {
        Some(limit) => format!(
            "the run did not begin within {limit:?} and was cancelled ({}): look whether there is a runner for it, or raise startTimeoutMs",
            run.conclusion()
        ),
        None => format!("the run ended: {}", run.conclusion()),
    };
    AgentEnd {
        success: run.succeeded(),
        how,
        output: runner.summary(run).await,
    }
}

/// Whether the token still sees the workflow, so that a run it does not see is none.
async fn is_gone(runner: &Runner, never: &CancellationToken) -> bool {
    let until = Instant::now() + LOOK;
    runner.workflow(until, never).await.is_ok()
}
