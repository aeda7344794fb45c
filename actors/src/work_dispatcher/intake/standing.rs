//! How the taking over of one kind of messages stands: who takes them instead of us, what has been said about it, and
//! when the stream is looked at again.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use loom_protocol::ProjectId;
use tokio::time::{Instant, sleep_until};

use super::fate::Tries;
use crate::domain::foreign::DealtWith;

/// How often a stream is looked at on which somebody else may be the one who takes.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// The server tells of consumers that come and go: then it is looked at sooner, but not sooner than this after the look
/// before.
const LOOK_SOONEST: Duration = Duration::from_secs(1);

/// A consumer of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub stream: String,
    pub consumer: String,
    pub filters: Vec<String>,
}

impl Foreign {
    fn takes(&self) -> String {
        match self.filters.as_slice() {
            [] => "everything".into(),
            filters => filters.join(", "),
        }
    }
}

/// How it stands. Lives as long as the dispatcher.
pub(super) struct Standing {
    project: ProjectId,
    kind: &'static str,
    /// What somebody else dealt with, where that stays in the stream.
    pub dealt: DealtWith,
    /// What was tried in vain.
    pub tries: Tries,
    left_to: Option<Foreign>,
    beside: Option<Foreign>,
    failed: Option<String>,
    missing: Vec<String>,
    stream_made: Option<i128>,
    consumers_told: Option<Subscriber>,
    last_look: Instant,
    next_look: Instant,
}

impl Standing {
    pub fn new(project: ProjectId, kind: &'static str) -> Self {
        let now = Instant::now();
        Self {
            project,
            kind,
            dealt: DealtWith::default(),
            tries: Tries::default(),
            left_to: None,
            beside: None,
            failed: None,
            missing: Vec::new(),
            stream_made: None,
            consumers_told: None,
            last_look: now,
            next_look: now,
        }
    }

    /// The stream was looked at; it was made at that time (ns), and does not store these subjects of ours.
    pub fn looked(&mut self, stream: &str, made: i128, missing: &[&String]) {
        self.last_look = Instant::now();
        self.next_look = self.last_look + LOOK_EVERY;
        if self.stream_made.replace(made) != Some(made) {
            // Its sequences begin anew.
            self.dealt = DealtWith::default();
            self.tries = Tries::default();
        }
        if missing.iter().copied().ne(self.missing.iter()) {
            self.missing = missing.iter().map(|it| (*it).clone()).collect();
            if !missing.is_empty() {
                tracing::warn!(
                    project = %self.project,
                    "stream {stream} does not store {}: what is published there is lost; give it these subjects too, or use requests",
                    self.missing.join(", ")
                );
            }
        }
    }

    /// Somebody else takes these messages: they are left alone.
    pub fn leave_to(&mut self, foreign: Foreign) {
        self.failed = None;
        if self.left_to.as_ref() == Some(&foreign) {
            return;
        }
        tracing::warn!(
            project = %self.project,
            "published {} are left to consumer {:?} of stream {}, which is not Loom's and takes {}; requests and REST work as ever. \
             To have Loom take them over, remove that consumer: it is looked at every minute",
            self.kind, foreign.consumer, foreign.stream, foreign.takes()
        );
        self.left_to = Some(foreign);
    }

    /// They are taken over by us.
    pub fn is_ours(&mut self) {
        self.failed = None;
        if let Some(former) = self.left_to.take() {
            tracing::info!(
                project = %self.project,
                "consumer {:?} of stream {} takes none of the published {} any more: Loom takes them over",
                former.consumer, former.stream, self.kind
            );
        }
    }

    /// Somebody else gets what we get, on a stream where our consumer has to stay.
    pub fn say_beside(&mut self, foreign: Option<Foreign>) {
        if let Some(other) = &foreign
            && self.beside != foreign
        {
            tracing::warn!(
                project = %self.project,
                "published {} are taken over, and consumer {:?} of stream {}, which is not Loom's, gets them too; \
                 remove it, or make the stream a work queue",
                self.kind, other.consumer, other.stream
            );
        }
        self.beside = foreign;
    }

    /// The taking over was interrupted; the same reason is said once.
    pub fn failed(&mut self, error: &async_nats::Error) {
        let (project, kind, text) = (&self.project, self.kind, error.to_string());
        if self.failed.as_ref() == Some(&text) {
            tracing::debug!(%project, "taking over published {kind} is interrupted: {text}");
        } else {
            tracing::warn!(%project, "taking over published {kind} is interrupted: {text}");
            self.failed = Some(text);
        }
    }

    /// Listens to what the server tells of consumers of a stream. What came before that is found by a look that is due
    /// at once.
    pub async fn listen(&mut self, client: &Client, stream: &str) {
        if self.consumers_told.is_some() {
            return;
        }
        let told = format!("$JS.EVENT.ADVISORY.CONSUMER.*.{stream}.*");
        match client.subscribe(told).await {
            Ok(told) => {
                self.consumers_told = Some(told);
                self.next_look = Instant::now();
            }
            Err(error) => tracing::debug!("consumers are looked at every minute only: {error}"),
        }
    }

    /// Ends when it is time for another look. Safe to drop at any time.
    pub async fn until_look(&mut self) {
        loop {
            let due = sleep_until(self.next_look);
            let Some(told) = &mut self.consumers_told else {
                return due.await;
            };
            tokio::select! {
                () = due => return,
                message = told.next() => match message {
                    Some(message) if says_that_one_came_or_went(&message.subject) => {
                        self.next_look = self.next_look.min(self.last_look + LOOK_SOONEST);
                    }
                    Some(_) => {}
                    None => self.consumers_told = None,
                },
            }
        }
    }
}

fn says_that_one_came_or_went(advisory: &str) -> bool {
    let what = advisory.split('.').nth(4);
    matches!(what, Some("CREATED" | "DELETED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_that_come_and_go_are_told_of() {
        let told = |what: &str| {
            let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.{what}.LOOM_WORK_P.worker");
            says_that_one_came_or_went(&subject)
        };
        assert!(told("CREATED") && told("DELETED"));
        assert!(!told("MSG_NAKED") && !told("MAX_DELIVERIES"));
    }
}
