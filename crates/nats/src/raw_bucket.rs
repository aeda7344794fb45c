//! How a bucket is made: as a stream, which is a KV bucket to anybody who looks.
//!
//! Raw, because a bucket that is made as a key-value store with markers would hold an expired key for ever.

use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, context};

use crate::overlap::{is_name_in_use, is_refused, why_not_made};

/// Why there is no bucket.
#[derive(Debug)]
pub(crate) enum NotMade {
    /// Somebody else made it at the same moment, and it cannot be opened.
    Opening(context::GetStreamError),
    /// It cannot be made. `refused`: the server says so; otherwise it may have been made all the same.
    Making {
        /// The reason, with the stream that is in the way where there is one.
        why: String,
        /// Whether the server said no.
        refused: bool,
    },
}

/// What every bucket is made with: single keys expire and can be made again, nothing goes by itself.
pub(crate) fn config(bucket: &str, replicas: usize) -> stream::Config {
    stream::Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_direct: true,
        allow_rollup: true,
        allow_message_ttl: true,
        num_replicas: replicas.max(1),
        ..Default::default()
    }
}

/// Makes a bucket. One that somebody else made at the same moment is opened as it is, with their configuration.
pub(crate) async fn make(
    jetstream: &jetstream::Context,
    config: stream::Config,
) -> Result<Stream, NotMade> {
    let name = config.name.clone();
    let subject = config.subjects.first().cloned().unwrap_or_default();
    match jetstream.create_stream(config).await {
        Ok(stream) => Ok(stream),
        Err(error) if is_name_in_use(&error) => {
            let opened = jetstream.get_stream(&name).await;
            opened.map_err(NotMade::Opening)
        }
        Err(error) => Err(NotMade::Making {
            why: why_not_made(jetstream, &subject, &error).await,
            refused: is_refused(&error),
        }),
    }
}
