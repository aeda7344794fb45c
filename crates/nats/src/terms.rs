//! Keeps streams of ours as they must be, see [`stream_terms`](crate::verdicts::stream_terms).
//!
//! A configuration is read and written as the server says it: what this program does not know of stays.

use async_nats::jetstream::{self, response::Response};
use serde_json::{Map, Value};

use super::error::{Resource, StoreError};
use super::store_guard::StoreGuard;
use crate::verdicts::stream_terms::{Change, StreamTerms, TermsVerdict, verdict};

/// What is tried, in the words of an error.
const LOOKING: &str = "looking at";
const CHANGING: &str = "changing";
/// Why what the server says of a stream is not known.
const UNREADABLE: &str = "the answer cannot be read";

/// What a look at a stream has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// How many messages it holds.
    pub messages: u64,
    /// The last sequence that it gave out.
    pub last: u64,
}

/// Looks at a stream, and sets back what must be different: in one step, but for the copies, which a cluster may not have.
/// What was changed is logged; what cannot be is a warning of `guard` for as long as it lasts. `None`: there is no stream.
///
/// # Errors
/// The server does not say.
pub async fn keep(
    jetstream: &jetstream::Context,
    stream: &str,
    terms: &StreamTerms,
    guard: &StoreGuard,
) -> Result<Option<Looked>, StoreError> {
    let Some((looked, mut config)) = look(jetstream, stream).await? else {
        return Ok(None);
    };
    let found = verdict(&config, terms);
    if found == TermsVerdict::default() {
        guard.note_warnings(stream, Vec::new());
        return Ok(Some(looked));
    }
    let mut warnings = found.lasting.clone();
    let (copies, others): (Vec<_>, Vec<_>) = found
        .changes
        .into_iter()
        .partition(|change| change.field == "num_replicas");
    for changes in [others, copies] {
        if changes.is_empty() {
            continue;
        }
        let losing: Vec<_> = changes.iter().map(Change::to_string).collect();
        let losing = losing.join(", ");
        match set_back(jetstream, stream, &config, &changes).await {
            Ok(after) => {
                tracing::warn!(
                    "the stream {stream} was not as it must be, and was changed: {losing}"
                );
                config = after;
            }
            Err(error) => warnings.push(format!(
                "it is not as it must be, and cannot be changed ({losing}): {}",
                error.reason()
            )),
        }
    }
    guard.note_warnings(stream, warnings);
    Ok(Some(looked))
}

/// What takes messages away that nobody has had. How its maker works with the stream is nobody else's business.
const LOSING: [&str; 5] = [
    "max_age",
    "max_msgs",
    "max_msgs_per_subject",
    "max_msg_size",
    "discard",
];

/// Warns of what may lose messages, and changes nothing: the stream is somebody else's.
///
/// # Errors
/// The server does not say.
pub async fn warn(
    jetstream: &jetstream::Context,
    stream: &str,
    terms: &StreamTerms,
    guard: &StoreGuard,
) -> Result<(), StoreError> {
    let Some((_, config)) = look(jetstream, stream).await? else {
        return Ok(());
    };
    let found = verdict(&config, terms);
    let mut warnings = found.lasting;
    let loses = |change: &&Change| LOSING.contains(&change.field);
    let losing = found.changes.iter().filter(loses);
    let losing: Vec<_> = losing.map(Change::to_string).collect();
    if !losing.is_empty() {
        warnings.push(format!(
            "Loom has not made it and leaves it alone, and messages may be lost; change {}",
            losing.join(", ")
        ));
    }
    guard.note_warnings(stream, warnings);
    Ok(())
}

async fn look(
    jetstream: &jetstream::Context,
    stream: &str,
) -> Result<Option<(Looked, Map<String, Value>)>, StoreError> {
    let resource = Resource::stream(stream);
    let asked = jetstream.request(format!("STREAM.INFO.{stream}"), &());
    let answer: Result<Response<Value>, _> = asked.await;
    let answer = answer.map_err(|error| StoreError::unknown(LOOKING, &resource, error))?;
    let info = match answer {
        Response::Ok(info) => info,
        Response::Err { error } => {
            let error = StoreError::of(LOOKING, &resource, &error);
            return if error.is_missing() {
                Ok(None)
            } else {
                Err(error)
            };
        }
    };
    let number = |name: &str| info["state"][name].as_u64();
    let config = info["config"].as_object().cloned();
    match (number("messages"), number("last_seq"), config) {
        (Some(messages), Some(last), Some(config)) => Ok(Some((Looked { messages, last }, config))),
        _ => Err(StoreError::unknown(LOOKING, &resource, UNREADABLE)),
    }
}

async fn set_back(
    jetstream: &jetstream::Context,
    stream: &str,
    config: &Map<String, Value>,
    changes: &[Change],
) -> Result<Map<String, Value>, StoreError> {
    let mut config = config.clone();
    for change in changes {
        match &change.wanted {
            Value::Null => drop(config.remove(change.field)),
            wanted => drop(config.insert(change.field.to_owned(), wanted.clone())),
        }
    }
    let resource = Resource::stream(stream);
    let asked = jetstream.request(format!("STREAM.UPDATE.{stream}"), &config);
    let answer: Result<Response<Value>, _> = asked.await;
    match answer.map_err(|error| StoreError::unknown(CHANGING, &resource, error))? {
        Response::Ok(_) => Ok(config),
        Response::Err { error } => Err(StoreError::of(CHANGING, &resource, &error)),
    }
}
