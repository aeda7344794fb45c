//! One start, from its record on: begun by its mechanism, or looked for after a crash; watched until its agent is born
//! or it has ended. A task for each; what it learns it tells the actor, which writes it down.
//!
//! | it begins with | it asks | then |
//! |---|---|---|
//! | a start that was just recorded | the ownership; then the mechanism is to start it | below |
//! | one that was recorded by an earlier incarnation | the mechanism what became of it | below |
//!
//! | the mechanism says | told is | then |
//! |---|---|---|
//! | started, running, or that it waits | its reference | its end is watched |
//! | why it waits, or whatever else it has to say of a start that goes on | that, where it is news and at most every 3 s | – |
//! | surely not started, and it won't be | over | – |
//! | in doubt | – | it is asked what became of it |
//! | absent | of one that was just recorded nothing: it is started again under the same id; of an older one, that it is to be begun again | – |
//! | it has ended | over, with its output | – |
//! | it cannot say | nothing: its birth tells, or the end of its time | it is asked again |

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::SpinUpId;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use super::birth_step::{BirthStep, BirthStepHook};
use super::mechanism::{AgentEnd, FailureKind, Found, Mechanism, Start, StartFailure, Started};
use crate::nats::owner::Ownership;

/// How often a start that is in doubt and not to be found is repeated.
const TRIES: u32 = 3;
/// What to do where a command ended well and its agent is not there.
const STAYS: &str = "; the command must stay until its agent has ended: run the agent by `exec`, without `&` or anything else that puts it into the background";
/// The pause before it is looked at again what became of a start; doubles up to the longest.
const LOOK_FIRST: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_secs(15);
/// How soon it may be told again what a mechanism says of a start that goes on.
const SAID_EVERY: Duration = Duration::from_secs(3);

/// What a start has come to.
#[derive(Debug)]
pub enum LaunchNews {
    /// It was begun: by this it is found again.
    Started(Value),
    /// What the mechanism says of it while it goes on: why it waits, first of all. None: nothing any more.
    Said(Option<String>),
    /// It surely never began, and its ticket is lost.
    NeverBegan,
    /// There will be no agent.
    Over {
        /// Why.
        error: String,
        /// The end of what it said, without secrets.
        output: Option<String>,
        /// Whether something of it may live.
        may_live: bool,
    },
    /// This coordinator owns no longer: it begins nothing.
    NotOurs,
}

/// How a start comes here.
pub(super) enum Beginning {
    /// It was just recorded.
    New(Box<Start>),
    /// It was recorded earlier.
    Recorded {
        /// What it was found by then.
        reference: Option<Value>,
        /// Where it was recorded, if it is not to be seen from everywhere.
        place: Option<String>,
    },
}

/// One start.
pub(super) struct Launch<T> {
    pub id: SpinUpId,
    pub mechanism: Arc<dyn Mechanism>,
    pub ownership: Ownership,
    pub on_step: BirthStepHook,
    /// Told what it has come to.
    pub tell: T,
}

/// What a mechanism says of a start that goes on.
#[derive(Default)]
struct Said {
    /// What it said when it started it.
    output: Option<String>,
    /// What was told last.
    told: Option<String>,
}

/// The pauses between looks, which grow.
struct Pauses(Duration);

impl Pauses {
    const fn new() -> Self {
        Self(LOOK_FIRST)
    }

    async fn pause(&mut self) {
        sleep(self.0).await;
        self.0 = LOOK_MAX.min(self.0 * 2);
    }
}

impl<T: Fn(LaunchNews) + Send + Sync> Launch<T> {
    /// Ends when there is nothing more to be told.
    pub async fn run(self, beginning: Beginning) {
        match beginning {
            Beginning::New(start) => self.begin(&start).await,
            Beginning::Recorded { reference, place } => {
                let said = Said::default();
                self.find(reference, place.as_deref(), false, said).await;
            }
        }
    }

    async fn begin(&self, start: &Start) {
        self.on_step.reached(BirthStep::Recorded).await;
        let mut pauses = Pauses::new();
        for tries_left in (0..TRIES).rev() {
            if !self.ownership.is_held() {
                return (self.tell)(LaunchNews::NotOurs);
            }
            let begun = self.mechanism.start(start).await;
            let failure = match begun {
                Ok(started) => {
                    self.on_step.reached(BirthStep::Launched).await;
                    (self.tell)(LaunchNews::Started(started.reference.clone()));
                    return self.watch(started).await;
                }
                Err(failure) => failure,
            };
            let StartFailure {
                kind,
                message,
                output,
            } = failure;
            if kind == FailureKind::NotStarted {
                return self.over(message, output, false);
            }
            match self.once_known().await {
                Found::Running(reference) | Found::Waiting { reference, .. } => {
                    (self.tell)(LaunchNews::Started(reference.clone()));
                    let said = Said::default();
                    return self.find(Some(reference), None, true, said).await;
                }
                Found::Ended { output: said } => {
                    let error = format!("{message}; it has ended before its agent registered");
                    return self.over(error, said.or(output), true);
                }
                Found::Absent if tries_left == 0 => return self.over(message, output, true),
                // Its ticket is known still: the same start once more.
                Found::Absent | Found::Unknown { .. } => pauses.pause().await,
            }
        }
    }

    /// Asks what became of it, until it has ended. `place`: where it was recorded, which matters while it has no
    /// reference. `is_told`: whether its reference was told. `said`: what was.
    async fn find(
        &self,
        mut reference: Option<Value>,
        place: Option<&str>,
        mut is_told: bool,
        mut said: Said,
    ) {
        let mut pauses = Pauses::new();
        loop {
            let found = match &reference {
                Some(reference) => self.mechanism.find(self.id, Some(reference)).await,
                None => self.mechanism.find_recorded(self.id, place).await,
            };
            let (found, why) = match found {
                Ok(Found::Running(found)) => (found, None),
                Ok(Found::Waiting { reference, why }) => (reference, Some(why)),
                Ok(Found::Absent) if reference.is_none() => {
                    return (self.tell)(LaunchNews::NeverBegan);
                }
                Ok(Found::Absent) => return self.ended(None),
                Ok(Found::Ended { output }) => return self.ended(output),
                Ok(Found::Unknown { why }) => {
                    tracing::debug!(id = %self.id, "what became of a start is not known: {why}");
                    pauses.pause().await;
                    continue;
                }
                Err(why) => {
                    tracing::debug!(id = %self.id, "what became of a start cannot be asked: {why}");
                    pauses.pause().await;
                    continue;
                }
            };
            if !is_told || reference.as_ref() != Some(&found) {
                (self.tell)(LaunchNews::Started(found.clone()));
            }
            is_told = true;
            reference = Some(found);
            self.said(&mut said, why);
            pauses.pause().await;
        }
    }

    /// Watches the end of what was begun.
    async fn watch(&self, started: Started) {
        let Started {
            reference,
            end,
            output,
            waits,
        } = started;
        let mut said = Said { output, told: None };
        self.said(&mut said, None);
        let Some(end) = end else {
            return self.find(Some(reference), None, true, said).await;
        };
        let AgentEnd {
            how,
            success,
            output,
        } = tokio::select! {
            ended = end => ended,
            never = self.tell_why(&mut said, waits) => match never {},
        };
        // What it has left behind may be the agent.
        let found = self.mechanism.find(self.id, Some(&reference)).await;
        if let Ok(
            Found::Running(found)
            | Found::Waiting {
                reference: found, ..
            },
        ) = found
        {
            let is_told = found == reference;
            self.find(Some(found), None, is_told, said).await;
        } else {
            // What puts itself into the background ends well and at once, and takes what is found of it along.
            let remedy = if success { STAYS } else { "" };
            let error = format!("it ended before its agent registered: {how}{remedy}");
            self.over(error, output, true);
        }
    }

    /// Tells why a start waits, as that changes, and not too often.
    async fn tell_why(
        &self,
        said: &mut Said,
        waits: Option<watch::Receiver<Option<String>>>,
    ) -> Infallible {
        if let Some(mut waits) = waits {
            loop {
                let why = waits.borrow_and_update().clone();
                self.said(said, why);
                sleep(SAID_EVERY).await;
                if waits.changed().await.is_err() {
                    break;
                }
            }
        }
        pending().await
    }

    /// Tells what is said of a start that goes on, where it is news.
    fn said(&self, said: &mut Said, why: Option<String>) {
        let texts: Vec<String> = why.into_iter().chain(said.output.clone()).collect();
        let text = Some(texts.join("\n")).filter(|text| !text.is_empty());
        if text != said.told {
            said.told.clone_from(&text);
            (self.tell)(LaunchNews::Said(text));
        }
    }

    /// Asks until the mechanism says something that it knows.
    async fn once_known(&self) -> Found {
        let mut pauses = Pauses::new();
        loop {
            match self.mechanism.find(self.id, None).await {
                Ok(Found::Unknown { why }) | Err(why) => {
                    tracing::debug!(id = %self.id, "a start is in doubt: {why}");
                }
                Ok(found) => return found,
            }
            pauses.pause().await;
        }
    }

    fn ended(&self, output: Option<String>) {
        let error = "it ended before its agent registered".to_owned();
        self.over(error, output, true);
    }

    fn over(&self, error: String, output: Option<String>, may_live: bool) {
        (self.tell)(LaunchNews::Over {
            error,
            output,
            may_live,
        });
    }
}

#[cfg(test)]
mod tests;
