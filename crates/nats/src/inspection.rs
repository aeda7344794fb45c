//! How a stream is, as the server says of it by name.

use async_nats::jetstream::{self, response::Response, stream};
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value};

use super::error::{Resource, StoreError};
use super::listing::StreamIdentity;

/// What is tried, in the words of an error.
const LOOKING: &str = "looking at";

/// How a stream was, as the server has said of it by name.
#[derive(Debug)]
pub struct Looked {
    /// As the client reads it.
    pub info: stream::Info,
    /// By which it is known again in a list of all streams.
    pub identity: StreamIdentity,
}

/// A stream, by its name. `None`: there is none.
///
/// # Errors
/// The server does not say.
pub(crate) async fn look_at(
    jetstream: &jetstream::Context,
    stream: &str,
) -> Result<Option<Looked>, StoreError> {
    Ok(look(jetstream, stream).await?.map(|seen| seen.looked))
}

/// A stream, as the server says that it is.
pub(super) struct Seen {
    /// With what this program does not know of.
    pub config: Map<String, Value>,
    pub looked: Looked,
}

/// As [`look_at`], with all that the server says.
pub(super) async fn look(
    jetstream: &jetstream::Context,
    stream: &str,
) -> Result<Option<Seen>, StoreError> {
    match ask(jetstream, LOOKING, stream, ("INFO", &())).await {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks the server about a stream, or for a change of it: either way it says how the stream is then.
pub(super) async fn ask(
    jetstream: &jetstream::Context,
    doing: &'static str,
    stream: &str,
    (verb, request): (&str, &(impl Serialize + Sync)),
) -> Result<Seen, StoreError> {
    let resource = Resource::stream(stream);
    let asked = jetstream.request(format!("STREAM.{verb}.{stream}"), request);
    let answer: Result<Response<Value>, _> = asked.await;
    let info = match answer.map_err(|error| StoreError::unknown(doing, &resource, error))? {
        Response::Ok(info) => info,
        Response::Err { error } => return Err(StoreError::of(doing, &resource, &error)),
    };
    let unreadable = |why: serde_json::Error| {
        let why = format_args!("the answer cannot be read: {why}");
        StoreError::unknown(doing, &resource, why)
    };
    let made = info["created"].as_str().unwrap_or_default();
    let identity = StreamIdentity::of(made, &info["config"]).map_err(unreadable)?;
    Ok(Seen {
        looked: Looked {
            info: stream::Info::deserialize(&info).map_err(unreadable)?,
            identity,
        },
        config: info["config"].as_object().cloned().unwrap_or_default(),
    })
}
