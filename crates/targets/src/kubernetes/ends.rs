//! Watches a start until its end, and reads what it said last.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use loom_process::secrets::Secrets;
use loom_process::tail::Tail;
use loom_protocol::SpinUpId;
use tokio::sync::watch as told;

use super::call::{Call, Resource, Verb};
use super::cluster::Place;
use super::manifest::CONTAINER;
use super::refusal::Refusal;
use super::state::{Phase, is_alive, phase};
use super::watch::Watch;
use super::{Removal, Shared, selector};
use crate::outcome::AgentEnd;
use crate::output;

/// How long a log that ends may take to be read.
const LOG: Duration = Duration::from_secs(10);
/// How many lines of it are asked for.
const LINES: u32 = 200;
/// How long to wait before a watch is tried again that was refused; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The Job and the pods of a start, as they change.
pub(super) struct Both<'a> {
    jobs: Watch<'a, Job>,
    pods: Watch<'a, Pod>,
    seen: (bool, bool),
}

impl<'a> Both<'a> {
    pub(super) fn new(shared: &'a Shared, place: &'a Place, spin_up: SpinUpId) -> Self {
        let labels = selector(spin_up);
        Self {
            jobs: Watch::new(&shared.api, place, &labels),
            pods: Watch::new(&shared.api, place, &labels),
            seen: (false, false),
        }
    }

    /// Waits until something is told; nothing is before both were listed. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<(), Refusal> {
        loop {
            tokio::select! {
                told = self.jobs.next() => told.map(|()| self.seen.0 = true)?,
                told = self.pods.next() => told.map(|()| self.seen.1 = true)?,
            }
            if self.seen == (true, true) {
                return Ok(());
            }
        }
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.known()
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.known()
    }
}

/// What is told of a start.
pub(super) struct Told {
    /// How it ended.
    pub(super) end: told::Receiver<Option<AgentEnd>>,
    /// Why it has not begun to run.
    pub(super) waits: told::Receiver<Option<String>>,
}

impl Shared {
    /// Tells the end of a start, and why it waits until then, as long as somebody listens for the end.
    pub(super) fn told(
        self: &Arc<Self>,
        place: Place,
        spin_up: SpinUpId,
        secrets: Secrets,
    ) -> Told {
        let (tell, end) = told::channel(None);
        let (tell_why, waits) = told::channel(None);
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tell.closed() => {}
                ended = shared.awaited_end(&place, spin_up, &secrets, &tell_why) => {
                    tell.send_replace(Some(ended));
                }
            }
        });
        Told { end, waits }
    }

    async fn awaited_end(
        &self,
        place: &Place,
        spin_up: SpinUpId,
        secrets: &Secrets,
        waits: &told::Sender<Option<String>>,
    ) -> AgentEnd {
        let mut both = Both::new(self, place, spin_up);
        let mut pause = PAUSE;
        loop {
            if let Err(refusal) = both.next().await {
                let why = refusal.message;
                tracing::debug!(%spin_up, why, "the watch of a Job is tried again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
                continue;
            }
            pause = PAUSE;
            let pods: Vec<&Pod> = both.pods().collect();
            let (success, how) = match both.jobs().next().map(|job| (job, phase(job, &pods, true)))
            {
                None if pods.iter().any(|pod| is_alive(pod)) => continue,
                None => (false, "its Job was deleted".to_owned()),
                Some((job, Phase::Hopeless(why))) => {
                    // Whoever hears of the end may rely on it.
                    match self.remove(place, job, Removal::Background).await {
                        Ok(()) => (false, why),
                        Err(_) => continue,
                    }
                }
                Some((_, Phase::Ended { success, how })) => (success, how),
                Some((_, phase)) => {
                    let why = match phase {
                        Phase::Waiting(why) => Some(output::told(why.as_bytes(), secrets)),
                        _ => None,
                    };
                    waits.send_if_modified(|told| {
                        let is_news = *told != why;
                        *told = why;
                        is_news
                    });
                    continue;
                }
            };
            let said = self.last_words(place, &pods, secrets).await;
            return AgentEnd {
                success,
                how: output::told(how.as_bytes(), secrets),
                output: said.unwrap_or_default(),
            };
        }
    }

    /// The end of the log of the last pod, where there is one.
    pub(super) async fn last_words(
        &self,
        place: &Place,
        pods: &[&Pod],
        secrets: &Secrets,
    ) -> Option<String> {
        let pod = pods.last()?.metadata.name.as_deref()?;
        let log = self.opened_log(place, pod, false).await?;
        read_log(log, LOG, secrets).await
    }

    /// The log of a pod, from its last lines on; with `follow` until the container has ended.
    pub(super) async fn opened_log(&self, place: &Place, pod: &str, follow: bool) -> Option<Body> {
        let call = Call::new(Verb::Get, Resource::Logs)
            .of(pod)
            .with("container", CONTAINER)
            .with("tailLines", LINES.to_string())
            .with("follow", follow.to_string());
        match self.api.stream(place, &call).await {
            Ok(log) => Some(log),
            Err(refusal) => {
                tracing::debug!(why = refusal.message, "a log can't be read");
                None
            }
        }
    }
}

/// The end of a log. What has come counts where it takes longer than `limit`.
pub(super) async fn read_log(mut log: Body, limit: Duration, secrets: &Secrets) -> Option<String> {
    let mut tail = Tail::default();
    let reading = async {
        while let Some(Ok(frame)) = log.frame().await {
            if let Some(data) = frame.data_ref() {
                tail.push(data);
            }
        }
    };
    let _ = tokio::time::timeout(limit, reading).await;
    let said = output::told(tail.text(usize::MAX).as_bytes(), secrets);
    Some(said).filter(|said| !said.is_empty())
}
