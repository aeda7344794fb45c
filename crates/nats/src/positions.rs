//! Where streams stand: when each was made, how far it has come, what is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use tokio::time::timeout;

use crate::listing::list;
use crate::overlap::is_not_found;

/// How long one stream may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// When it was made, in milliseconds since 1970.
    pub made: i64,
    /// The sequence of the last message that it was given.
    pub last: u64,
    /// How many messages are in it.
    pub messages: u64,
}

/// Why it is not known where streams stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("where the streams stand is not known: {0}")]
pub struct PositionError(String);

/// Where those of these streams stand that are there, by name.
///
/// # Errors
/// The server does not say so in time.
pub async fn positions_of(
    jetstream: &jetstream::Context,
    streams: &[String],
) -> Result<BTreeMap<String, Position>, PositionError> {
    let mut found = BTreeMap::new();
    for name in streams {
        let asked = timeout(ANSWER_WITHIN, jetstream.get_stream(name)).await;
        match asked {
            Ok(Ok(stream)) => {
                found.insert(name.clone(), position(stream.cached_info()));
            }
            Ok(Err(error)) if is_not_found(&error) => {}
            Ok(Err(error)) => return Err(PositionError(format!("{name}: {error}"))),
            Err(_elapsed) => return Err(unanswered(ANSWER_WITHIN)),
        }
    }
    Ok(found)
}

/// Where all streams stand, by name.
///
/// # Errors
/// The server does not say so in time.
pub async fn all_positions(
    jetstream: &jetstream::Context,
) -> Result<BTreeMap<String, Position>, PositionError> {
    let mut found = BTreeMap::new();
    let all = list(jetstream, usize::MAX, |name, listed| {
        let position = Position {
            made: listed.made.as_millis(),
            last: listed.last,
            messages: listed.messages,
        };
        found.insert(name.to_owned(), position);
    });
    match all.await {
        Ok(_unknown) => Ok(found),
        Err(error) => Err(PositionError(error.to_string())),
    }
}

fn unanswered(within: Duration) -> PositionError {
    PositionError(format!("no answer within {within:?}"))
}

fn position(info: &stream::Info) -> Position {
    let made = info.created.unix_timestamp_nanos() / 1_000_000;
    Position {
        made: i64::try_from(made).unwrap_or_default(),
        last: info.state.last_sequence,
        messages: info.state.messages,
    }
}
