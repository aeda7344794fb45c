//! Finding the projects whose resources are there: all of them at the start, later those of which the server tells, and now
//! and then all again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt as _, TryStreamExt as _};
use loom_protocol::{ProjectId, names};
use tokio::time::Instant;

use super::{LOOK_EVERY, Projects, RETRY_AFTER, work_streams};

/// The server tells of every stream that is made.
const STREAM_CREATED: &str = "$JS.EVENT.ADVISORY.STREAM.CREATED.>";

impl Projects {
    /// Lists the projects whose resources are there; they are started by [`Projects::keep_discovering`]. Until then a
    /// read is told that they start.
    ///
    /// # Errors
    /// The streams cannot be listed.
    pub async fn list(&self) -> Result<(), async_nats::Error> {
        let jetstream = &self.0.terms.nats.jetstream;
        let streams: Vec<String> = jetstream.stream_names().try_collect().await?;
        let found: BTreeSet<_> = streams
            .iter()
            .filter_map(|stream| names::project_of_stream(stream))
            .collect();
        if !self.0.recalled.swap(true, Ordering::AcqRel) {
            Box::pin(self.recall_asleep(&found)).await;
        }
        Box::pin(self.forget_vanished(&found)).await;
        self.0.found.listed(&found, |id| {
            self.0.active.contains_key(id) || self.is_asleep(id)
        });
        let is_there = |id: &ProjectId| found.contains(id) || self.0.active.contains_key(id);
        self.0.terms.stores.only_these_are_there(is_there);
        let active = self.active_streams();
        let work_streams = streams
            .into_iter()
            .filter(|stream| names::is_work_stream(stream) && !active.contains(stream));
        self.0.work_streams.listed(work_streams.collect());
        Ok(())
    }

    /// Wakes every project whose resources are there, side by side. A slow one goes on by itself.
    ///
    /// # Errors
    /// The streams cannot be listed.
    pub async fn discover(&self) -> Result<(), async_nats::Error> {
        self.list().await?;
        self.start_found().await;
        Ok(())
    }

    /// Starts those that were listed, and goes on discovering, for ever.
    pub async fn keep_discovering(self) {
        self.start_found().await;
        let as_told = async {
            loop {
                if let Err(error) = self.discover_as_told().await {
                    tracing::debug!("looking for new projects is interrupted: {error}");
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        };
        let by_work_streams = async {
            loop {
                let jetstream = &self.0.terms.nats.jetstream;
                for project in self.0.work_streams.look(jetstream).await {
                    self.start_one_found(&project).await;
                }
                tokio::time::sleep(work_streams::LOOK_EVERY).await;
            }
        };
        tokio::join!(as_told, by_work_streams, self.keep_sleeping());
    }

    async fn discover_as_told(&self) -> Result<(), async_nats::Error> {
        let mut told = self.0.terms.nats.client.subscribe(STREAM_CREATED).await?;
        // What was made before this subscription.
        self.discover().await?;
        // However many streams are made meanwhile.
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            match tokio::time::timeout_at(next_look, told.next()).await {
                Ok(Some(message)) => {
                    if let Some(stream) = message.subject.rsplit('.').next() {
                        self.stream_was_made(stream);
                    }
                }
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.discover().await?;
                    next_look = Instant::now() + LOOK_EVERY;
                }
            }
        }
    }

    fn stream_was_made(&self, stream: &str) {
        if let Some(id) = names::project_of_stream(stream) {
            if !self.0.active.contains_key(&id) && !self.is_asleep(&id) {
                self.0.found.note(&id);
            }
            let projects = self.clone();
            tokio::spawn(async move { projects.start_one_found(&id).await });
        }
        if names::is_work_stream(stream) && !self.active_streams().contains(stream) {
            self.0.work_streams.told(stream);
        }
    }

    /// The work streams of the projects that are awake, asleep or on their way.
    fn active_streams(&self) -> BTreeSet<String> {
        let active = self.0.active.iter();
        let active = active.map(|entry| names::work_stream(entry.key()));
        let asleep = self.0.asleep.each(|_| ()).into_iter();
        active
            .chain(asleep.map(|(id, ())| names::work_stream(&id)))
            .collect()
    }
}
