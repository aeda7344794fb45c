//! How a bucket is made, and what becomes of one that somebody else has made.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream;

use super::{ANSWER_WITHIN, Bucket};
use crate::error::{Cause, StoreError};
use crate::raw_bucket;
use crate::terms;
use crate::verdicts::stream_terms::StreamTerms;

impl Bucket {
    /// Creates the bucket if it is missing. Where another client created it, single keys are let expire, and
    /// nothing else goes by its age or because there is too much; what else that client configured stays.
    pub async fn ensure(&self) -> Result<stream::Info, StoreError> {
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        known.map_err(|denied| self.denied("making", &denied))?;
        let found = if let Some(found) = self.info().await? {
            found
        } else {
            let (config, resource) = (self.config.clone(), &self.resource);
            let made = raw_bucket::make(&self.jetstream, config, resource, &self.guard);
            made.await?.cached_info().clone()
        };
        self.guard.note_problem(&self.config.name, None);
        self.set_right(found).await
    }

    /// As [`Bucket::ensure`], but a bucket that is missing stays so: `None`.
    pub(super) async fn adopt(&self) -> Result<Option<stream::Info>, StoreError> {
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        known.map_err(|denied| self.denied("looking at", &denied))?;
        match self.info().await? {
            Some(found) => {
                self.guard.note_problem(&self.config.name, None);
                self.set_right(found).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Sets the configuration of a bucket of ours back to what keeps its records. One that is missing stays so.
    ///
    /// # Errors
    /// The server does not say how it is.
    pub async fn keep(&self) -> Result<(), StoreError> {
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        known.map_err(|denied| self.denied("looking at", &denied))?;
        if !self.ownership.is_held() {
            return Ok(());
        }
        let terms = StreamTerms::of_bucket(self.config.num_replicas);
        let kept = terms::keep(&self.jetstream, &self.config.name, &terms, &self.guard).await;
        kept.map(drop)
    }

    /// Somebody else may have made the bucket. Single keys have to expire; and nothing in it goes by itself
    /// before it is removed, where its settings may be changed.
    async fn set_right(&self, found: stream::Info) -> Result<stream::Info, StoreError> {
        let (needed, wanted) = (with_ttls(&found.config), lasting(with_ttls(&found.config)));
        if wanted == found.config {
            return Ok(found);
        }
        let why = match self.jetstream.update_stream(wanted).await {
            Ok(updated) if updated.config.allow_message_ttl => return Ok(updated),
            Ok(_) => "nats-server 2.12.5 or later is needed".to_owned(),
            Err(error) => error.to_string(),
        };
        let updated = if needed == found.config {
            found
        } else {
            let updated = self.jetstream.update_stream(needed).await;
            let doing = "letting single keys expire in";
            updated.map_err(|error| StoreError::of(doing, &self.resource, &error))?
        };
        if !updated.config.allow_message_ttl {
            let why = "it does not let single keys expire; use nats-server 2.12.5 or later";
            let unsuited = Cause::Unsuited;
            return Err(StoreError::refused(
                unsuited,
                "opening",
                &self.resource,
                why,
            ));
        }
        if !self.is_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                bucket = self.name, max_age = ?updated.config.max_age,
                "the bucket was made by somebody else so that what is in it goes by itself, and that cannot be \
                 changed ({why}); let Loom change the stream, or set its max age to 0"
            );
        }
        Ok(updated)
    }
}

/// The same settings without those by which something would go by itself: its age, or room for what comes later.
fn lasting(config: stream::Config) -> stream::Config {
    stream::Config {
        max_age: Duration::ZERO,
        discard: stream::DiscardPolicy::New,
        ..config
    }
}

/// The same settings, with keys that may expire one by one.
fn with_ttls(config: &stream::Config) -> stream::Config {
    stream::Config {
        allow_message_ttl: true,
        ..config.clone()
    }
}
