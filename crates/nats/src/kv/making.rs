//! How a bucket is made, and kept as it must be.

use async_nats::jetstream::stream;

use super::{ANSWER_WITHIN, Bucket};
use crate::error::{Cause, StoreError};
use crate::inspection::{Looked, look_at};
use crate::listing::{Listed, Lookout, StreamIdentity};
use crate::raw_bucket;
use crate::terms;

/// What a bucket is, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// By what it is known again in a list of all streams.
    pub identity: StreamIdentity,
    /// The sequence of the last message that it was given.
    pub last: u64,
    /// How many messages are in it.
    pub messages: u64,
}

impl From<Listed> for Standing {
    fn from(listed: Listed) -> Self {
        Self {
            identity: listed.identity,
            last: listed.last,
            messages: listed.messages,
        }
    }
}

impl Bucket {
    /// Makes the bucket if it is missing. One that is there is [kept](Self::keep) as it must be.
    pub async fn ensure(&self) -> Result<stream::Info, StoreError> {
        if let Some(found) = self.adopt().await? {
            return Ok(found.info);
        }
        let (config, resource) = (stream::Config::clone(&self.config), &self.resource);
        raw_bucket::make(self.messages.jetstream(), config, resource, &self.guard).await?;
        // Perhaps somebody else has made it at the same moment.
        let missing =
            || StoreError::refused(Cause::NoStream, "making", resource, "it is gone again");
        let found = self.adopt().await?.ok_or_else(missing)?;
        Ok(found.info)
    }

    /// As [`Bucket::ensure`], but a bucket that is missing stays so: `None`.
    pub(super) async fn adopt(&self) -> Result<Option<Looked>, StoreError> {
        let known = self.guard.settled_within(ANSWER_WITHIN).await;
        known.map_err(|denied| self.denied("looking at", &denied))?;
        let (name, guard) = (&self.config.name, &self.guard);
        let found = terms::keep(self.messages.jetstream(), name, &self.terms, guard).await?;
        if found.is_some() {
            guard.note_problem(name, None);
        }
        Ok(found)
    }

    /// Looks after the bucket: when it has to be asked for.
    pub fn lookout(&self) -> Lookout {
        Lookout::over(&self.config.name, self.guard.listing())
    }

    /// What the bucket is, and how much it holds; `None`: it is not there. Changes nothing.
    ///
    /// # Errors
    /// The server does not say.
    pub async fn look(&self) -> Result<Option<Standing>, StoreError> {
        let found = look_at(self.messages.jetstream(), &self.config.name).await?;
        Ok(found.map(|found| Standing {
            identity: found.identity,
            last: found.info.state.last_sequence,
            messages: found.info.state.messages,
        }))
    }

    /// Sets the configuration of the bucket back to what keeps its records. One that is missing stays so: `None`.
    ///
    /// # Errors
    /// The server does not say how it is, or single keys cannot be let expire.
    pub async fn keep(&self) -> Result<Option<StreamIdentity>, StoreError> {
        if !self.ownership.is_held() {
            return Err(StoreError::not_owner("looking at", &self.resource));
        }
        let kept = self.adopt().await?;
        Ok(kept.map(|kept| kept.identity))
    }
}
