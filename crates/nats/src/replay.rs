//! A stream, read from one end to the other: by an ordered consumer, which the client makes again where it got lost.
//!
//! It ends with the message behind which there was none when the server sent it. One that does not come in time is an
//! error: what was read until then is not all.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::error::{Resource, StoreError};

/// How long the next message is waited for.
pub(crate) const NEXT_WITHIN: Duration = Duration::from_secs(10);
/// What is tried, in the words of an error.
const REPLAYING: &str = "replaying";

/// What is being read.
pub(crate) struct Replay {
    messages: pull::Ordered,
    resource: Resource,
}

/// One message of it.
pub(crate) struct Replayed {
    /// With a body, where bodies were asked for.
    pub message: jetstream::Message,
    /// Its place in the stream.
    pub sequence: u64,
    /// When the server stored it, by its clock, in nanoseconds since 1970.
    pub published: i128,
    /// Nothing was behind it.
    pub is_last: bool,
}

impl Replay {
    /// From a sequence on (0 and 1: from the first). `None`: there is nothing.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn open<I>(
        stream: &stream::Stream<I>,
        resource: &Resource,
        from: u64,
        headers_only: bool,
    ) -> Result<Option<Self>, StoreError> {
        let consumer = stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: from.max(1),
                },
                headers_only,
                ..Default::default()
            })
            .await
            .map_err(|error| StoreError::of(REPLAYING, resource, &error))?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(None);
        }
        let messages = consumer.messages().await;
        let messages = messages.map_err(|error| interrupted(resource, error))?;
        let resource = resource.clone();
        Ok(Some(Self { messages, resource }))
    }

    /// The next message. Not to be called after the last one.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn next(&mut self) -> Result<Replayed, StoreError> {
        let resource = &self.resource;
        let message = timeout(NEXT_WITHIN, self.messages.next())
            .await
            .map_err(|_| StoreError::unanswered(REPLAYING, resource, NEXT_WITHIN))?
            .ok_or_else(|| interrupted(resource, "it ended early"))?
            .map_err(|error| interrupted(resource, error))?;
        let info = message
            .info()
            .map_err(|error| interrupted(resource, error))?;
        let (sequence, is_last) = (info.stream_sequence, info.pending == 0);
        let published = info.published.unix_timestamp_nanos();
        Ok(Replayed {
            message,
            sequence,
            published,
            is_last,
        })
    }
}

fn interrupted(resource: &Resource, why: impl std::fmt::Display) -> StoreError {
    StoreError::unknown(REPLAYING, resource, why)
}
