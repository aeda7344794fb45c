//! A start: a dispatch that is never repeated where one may have been taken, and the run that comes of it.

use std::time::Duration;

use loom_protocol::{SpinUpId, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Failure, sleep};
use super::inputs::Inputs;
use super::note::{Held, Note, Noted};
use super::runs::Runner;
use super::wire::Run;
use super::{Github, pace, watch, words};
use crate::order::StartOrder;
use crate::outcome::Started;
use crate::reference::{GithubReference, Reference};
use crate::steps::Step;
use crate::{StartError, StartErrorKind};

/// How often it is looked whether another start of the same id is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How soon after a dispatch its run is looked for; half as long again each time.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// The longest between two looks.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Why no run was found.
enum NotThere {
    /// It did not appear; what GitHub said last.
    TooLate(Option<String>),
    Cancelled,
}

impl Github {
    pub(super) async fn start_or_find(
        &self,
        order: &StartOrder,
        cancel: &CancellationToken,
    ) -> Result<Started, StartError> {
        let inputs = Inputs::of(&self.config).map_err(StartError::refused)?;
        let runner = self.runner(None).map_err(StartError::refused)?;
        self.around.on_step.tell(Step::Begin);
        let (held, noted) = self.hold(order, cancel).await?;
        let ordered_at = noted.ordered_at().unwrap_or(order.ordered_at);
        let until = Instant::now() + self.start_limit();
        if matches!(noted, Noted::Sent(_)) {
            let run = self
                .appears(&runner, order.spin_up, ordered_at, cancel)
                .await;
            let run = run.map_err(|why| self.in_doubt(order, why, &inputs))?;
            return Ok(self.started(order.spin_up, runner, &run, true, None));
        }
        let found = runner
            .runs_of(order.spin_up, Some(ordered_at), until, cancel)
            .await;
        let found = found.map_err(|failure| nothing_sent(order, &failure))?;
        if let Some(run) = found.runs.first() {
            // Another coordinator has sent it.
            let held = marked(held, Held::mark_sent).await;
            held.map_err(|error| self.not_noted(&error))?;
            return Ok(self.started(order.spin_up, runner, run, true, None));
        }
        self.around.on_step.tell(Step::Launch);
        if cancel.is_cancelled() {
            return Err(StartError::cancelled(&order.spin_up.to_string()));
        }
        let held = marked(held, Held::mark_sent).await;
        let held = held.map_err(|error| self.not_noted(&error))?;
        let filled = inputs.fill(order);
        let sent = runner
            .dispatch(&self.config.reference, &filled, until, cancel)
            .await;
        self.around.on_step.tell(Step::Record);
        let started = match sent {
            Ok(Some(id)) => self.told(order, runner, id, &inputs, cancel).await,
            Ok(None) => {
                let run = self
                    .appears(&runner, order.spin_up, ordered_at, cancel)
                    .await;
                let run = run.map_err(|why| self.in_doubt(order, why, &inputs))?;
                self.started(order.spin_up, runner, &run, false, None)
            }
            Err(Failure::NoAnswer(why)) => {
                let run = self
                    .appears(&runner, order.spin_up, ordered_at, cancel)
                    .await;
                let run = run.map_err(|_| lost(order, &why))?;
                self.started(order.spin_up, runner, &run, false, None)
            }
            Err(Failure::Cancelled) => {
                return Err(self.in_doubt(order, NotThere::Cancelled, &inputs));
            }
            Err(failure) => {
                // Refused, for good or for now, or never left: nothing was started.
                if let Err(error) = marked(held, Held::mark_unsent).await {
                    tracing::warn!(%error, spin_up = %order.spin_up, "not noted that nothing was dispatched");
                }
                return Err(nothing_sent(order, &failure));
            }
        };
        self.around.on_step.tell(Step::Answer);
        Ok(started)
    }

    /// Takes the note, once nobody else on this machine is at the same start.
    async fn hold(
        &self,
        order: &StartOrder,
        cancel: &CancellationToken,
    ) -> Result<(Held, Noted), StartError> {
        let until = Instant::now() + self.start_limit();
        loop {
            if cancel.is_cancelled() {
                return Err(StartError::cancelled(&order.spin_up.to_string()));
            }
            let (note, at) = (self.note(order.spin_up), order.ordered_at);
            let held = on_disk(move || note.hold(at)).await;
            if let Some(held) = held.map_err(|error| self.not_noted(&error))? {
                return Ok(held);
            }
            if Instant::now() >= until {
                let message = format!(
                    "the start {} is under way elsewhere, and its run is not to be seen yet; look again later",
                    order.spin_up
                );
                return Err(StartError::new(StartErrorKind::InDoubt, message));
            }
            sleep(LOOK_EVERY, cancel).await;
        }
    }

    /// Waits for the run of a dispatch to be there.
    async fn appears(
        &self,
        runner: &Runner,
        spin_up: SpinUpId,
        ordered_at: Timestamp,
        cancel: &CancellationToken,
    ) -> Result<Run, NotThere> {
        let until = Instant::now() + self.start_limit();
        let mut pause = FIRST_LOOK;
        loop {
            let listed = runner
                .runs_of(spin_up, Some(ordered_at), until, cancel)
                .await;
            let (wait, said) = match listed {
                Ok(mut listed) if !listed.runs.is_empty() => return Ok(listed.runs.remove(0)),
                Ok(listed) => (
                    pace::next_look(pause, listed.limits, pace::Share::Whole),
                    None,
                ),
                Err(Failure::Cancelled) => return Err(NotThere::Cancelled),
                Err(failure @ Failure::Limited(_)) => {
                    // For longer than there is time; until then the start may be cancelled.
                    let left = until.saturating_duration_since(Instant::now());
                    return Err(if sleep(left, cancel).await {
                        NotThere::TooLate(Some(failure.words()))
                    } else {
                        NotThere::Cancelled
                    });
                }
                Err(failure) => (pause, Some(failure.words())),
            };
            pause = (pause * 3 / 2).min(LAST_LOOK);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotThere::TooLate(said));
            }
            if !sleep(wait.min(left), cancel).await {
                return Err(NotThere::Cancelled);
            }
        }
    }

    /// A start whose run GitHub has told. It is found again by its name only: whether it has one is looked at once.
    async fn told(
        &self,
        order: &StartOrder,
        runner: Runner,
        id: u64,
        inputs: &Inputs,
        cancel: &CancellationToken,
    ) -> Started {
        let looked = runner.run(id, None, Instant::now(), cancel).await;
        let run = looked.ok().and_then(|looked| looked.run);
        let nameless = run.as_ref().is_some_and(|run| !run.bears(order.spin_up));
        let warning = nameless.then(|| {
            tracing::warn!(spin_up = %order.spin_up, run = id, "the name of a run does not have the id of its start");
            format!(
                "its name does not have the id of the start, so that it is not found again after a crash: write the line `{}` into {}",
                words::run_name_line(inputs.carrier().unwrap_or_default()),
                self.config.workflow
            )
        });
        let run = run.unwrap_or_else(|| Run::told(id));
        self.started(order.spin_up, runner, &run, false, warning)
    }

    fn started(
        &self,
        spin_up: SpinUpId,
        runner: Runner,
        run: &Run,
        existing: bool,
        warning: Option<String>,
    ) -> Started {
        let said = [Some(run.shown()), warning];
        let said: Vec<String> = said.into_iter().flatten().collect();
        let begins_within = self.config.start_timeout_ms.map(Duration::from_millis);
        let reference = reference(spin_up, &runner.repo, run.id);
        let told = watch::told(runner, run.id, begins_within);
        Started {
            reference,
            existing,
            end: Some(told.end),
            output: Some(said.join("\n")),
            waits: Some(told.waits),
        }
    }

    fn in_doubt(&self, order: &StartOrder, why: NotThere, inputs: &Inputs) -> StartError {
        let spin_up = order.spin_up;
        let message = match why {
            NotThere::Cancelled => {
                format!("the start {spin_up} was cancelled after it was dispatched")
            }
            NotThere::TooLate(said) => format!(
                "the start {spin_up} was dispatched, and no run with that id in its name was there within {:?}; it may still come. Look at the runs of {} in {}: where one has another name, write the line `{}` into the workflow{}",
                self.start_limit(),
                self.config.workflow,
                self.config.repo,
                words::run_name_line(inputs.carrier().unwrap_or_default()),
                said.map_or_else(String::new, |said| format!(" ({said})"))
            ),
        };
        StartError::new(StartErrorKind::InDoubt, message)
    }

    fn not_noted(&self, error: &std::io::Error) -> StartError {
        let folder = self.around.folder.display();
        let message = format!(
            "nothing was dispatched: the folder {folder} of the coordinator can't be written ({error}); make room or mend its rights"
        );
        StartError::new(StartErrorKind::Unavailable, message)
    }
}

/// What a run is found again by.
pub(super) fn reference(spin_up: SpinUpId, repo: &str, run_id: u64) -> Reference {
    Reference::GithubActions(GithubReference {
        spin_up,
        repo: repo.to_owned(),
        run_id,
    })
}

/// A dispatch whose answer never came, and whose run did not either.
fn lost(order: &StartOrder, why: &str) -> StartError {
    let message = format!(
        "it is not known whether the start {} was dispatched: {why} (a run may still come)",
        order.spin_up
    );
    StartError::new(StartErrorKind::InDoubt, message)
}

/// A start of which nothing was sent, or what was sent was refused.
fn nothing_sent(order: &StartOrder, failure: &Failure) -> StartError {
    match failure {
        Failure::Cancelled => StartError::cancelled(&order.spin_up.to_string()),
        Failure::Impossible(why) | Failure::Refused(_, why) => StartError::refused(why),
        Failure::NotSent(_) | Failure::Limited(_) | Failure::NoAnswer(_) => {
            let message = format!("nothing was dispatched: {}", failure.words());
            StartError::new(StartErrorKind::Unavailable, message)
        }
    }
}

/// Writes to a note, and gives it back.
async fn marked(held: Held, mark: fn(&Held) -> std::io::Result<()>) -> std::io::Result<Held> {
    on_disk(move || mark(&held).map(|()| held)).await
}

/// Does what waits for a disk.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

impl Github {
    pub(super) fn note(&self, spin_up: SpinUpId) -> Note {
        Note::new(&self.around.folder, spin_up)
    }
}
