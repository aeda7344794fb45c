//! How a bucket is made: as a stream, which is a KV bucket to anybody who looks.
//!
//! Raw, because a bucket that is made as a key-value store with markers would hold an expired key for ever.

use async_nats::jetstream;
use async_nats::jetstream::stream::{self, Stream};

use crate::error::{Resource, StoreError};
use crate::overlap::{is_name_in_use, not_made};
use crate::store_guard::StoreGuard;

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

/// Makes a bucket. One that somebody else made at the same moment is opened as it is, with their configuration. Where the
/// server says that it cannot be made, that is a problem of `guard`; where it says nothing, it may have been made.
pub(crate) async fn make(
    jetstream: &jetstream::Context,
    config: stream::Config,
    resource: &Resource,
    guard: &StoreGuard,
) -> Result<Stream, StoreError> {
    let (name, subjects) = (config.name.clone(), config.subjects.clone());
    match jetstream.create_stream(config).await {
        Ok(stream) => Ok(stream),
        Err(error) if is_name_in_use(&error) => {
            let opened = jetstream.get_stream(&name).await;
            opened.map_err(|error| StoreError::of("opening", resource, &error))
        }
        Err(error) => {
            let error = not_made(jetstream, resource, &subjects, &error).await;
            if error.is_of_the_stream() {
                guard.note_problem(&name, Some(&error.reason()));
            }
            Err(error)
        }
    }
}
