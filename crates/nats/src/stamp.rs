//! The stamp of a stream: by it a store is known again.

use async_nats::jetstream::{self, stream};

use crate::verdicts::ledger_stamp::{Found, stamp_of_old};

/// The key in a stream's metadata under which its stamp stands.
pub const STAMP_KEY: &str = "loom.stamp";

/// The stamp of a stream.
pub fn stamp_of(info: &stream::Info) -> String {
    let own = info.config.metadata.get(STAMP_KEY).cloned();
    own.unwrap_or_else(|| stamp_of_old(info.created.unix_timestamp_nanos()))
}

/// A stream as a ledger that was found.
pub fn found_in(info: &stream::Info) -> Found {
    Found::Ledger {
        stamp: info.config.metadata.get(STAMP_KEY).cloned(),
        made: info.created.unix_timestamp_nanos(),
        last: info.state.last_sequence,
    }
}

/// Writes the stamp of a stream of an older version into its metadata. Where that fails it is tried again at the
/// next start: until then the stamp is the same by itself.
pub async fn stamp_old(jetstream: &jetstream::Context, info: &stream::Info) {
    if info.config.metadata.contains_key(STAMP_KEY) {
        return;
    }
    let mut config = info.config.clone();
    config.metadata.insert(STAMP_KEY.to_owned(), stamp_of(info));
    match jetstream.update_stream(&config).await {
        Ok(_) => tracing::info!(
            stream = config.name,
            "a stream of an older version was given a stamp"
        ),
        Err(error) => tracing::warn!(
            stream = config.name,
            "a stream could not be given a stamp yet: {error}"
        ),
    }
}
