//! Streams of ours that somebody else may have made, with settings by which what is in them would go by itself.

use std::time::Duration;

use async_nats::jetstream::{self, stream};

/// The same settings without those by which something would go by itself: its age, or room for what comes
/// later.
pub(super) fn lasting(config: stream::Config) -> stream::Config {
    stream::Config {
        max_age: Duration::ZERO,
        discard: stream::DiscardPolicy::New,
        ..config
    }
}

/// Why a stream of ours cannot be relied on.
#[derive(Debug, thiserror::Error)]
#[error(
    "the stream {stream} was made by somebody else so that what is in it goes by itself (max age {max_age:?}, discard \
     {discard:?}), and that cannot be changed ({source}); let Loom change it, or set max age 0 and discard new"
)]
pub(super) struct NotLasting {
    stream: String,
    max_age: Duration,
    discard: stream::DiscardPolicy,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Takes such settings out of a stream whose records must not go.
///
/// # Errors
/// They are there and cannot be changed.
pub(super) async fn made_lasting(
    jetstream: &jetstream::Context,
    found: stream::Stream,
) -> Result<stream::Stream, NotLasting> {
    let config = &found.cached_info().config;
    let wanted = lasting(config.clone());
    if wanted == *config {
        return Ok(found);
    }
    let not_lasting = |source: Box<dyn std::error::Error + Send + Sync>| NotLasting {
        stream: wanted.name.clone(),
        max_age: config.max_age,
        discard: config.discard,
        source,
    };
    let updated = jetstream.update_stream(&wanted).await;
    updated.map_err(|error| not_lasting(error.into()))?;
    tracing::warn!(
        stream = wanted.name, max_age = ?config.max_age, discard = ?config.discard,
        "a stream was made by somebody else so that what is in it goes by itself; that is over"
    );
    let again = jetstream.get_stream(&wanted.name).await;
    again.map_err(|error| not_lasting(error.into()))
}
