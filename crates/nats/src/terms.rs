//! Keeps streams of ours as they must be, see [`stream_terms`](crate::verdicts::stream_terms).
//!
//! A configuration is read and written as the server says it: what this program does not know of stays.

use async_nats::jetstream;
use serde_json::Value;

use super::error::{Cause, Resource, StoreError};
use super::inspection::{Looked, Seen, ask, look};
use super::store_guard::StoreGuard;
use crate::verdicts::stream_terms::{Change, NEEDED, StreamTerms, verdict};

/// What is tried, in the words of an error.
const CHANGING: &str = "changing";

/// Looks at a stream, and sets back what must be different: in one step, but for the copies, which a cluster may not have.
/// What was changed is logged; what cannot be is a warning of `guard` for as long as it lasts. How the stream is then;
/// `None`: there is none.
///
/// # Errors
/// The server does not say, or what cannot be used without is not to be had.
pub async fn keep(
    jetstream: &jetstream::Context,
    stream: &str,
    terms: &StreamTerms,
    guard: &StoreGuard,
) -> Result<Option<Looked>, StoreError> {
    let Some(mut seen) = look(jetstream, stream).await? else {
        return Ok(None);
    };
    let found = verdict(&seen.config, terms);
    let mut warnings = found.lasting;
    let (copies, others): (Vec<_>, Vec<_>) = found
        .changes
        .into_iter()
        .partition(|change| change.field == "num_replicas");
    for changes in [others, copies] {
        if changes.is_empty() {
            continue;
        }
        let error = match set_back(jetstream, stream, &seen, &changes).await {
            Ok(after) => {
                let losing = listed(&changes);
                if terms.is_shared {
                    tracing::info!(
                        "the stream {stream} was made by a client, and changed: {losing}"
                    );
                } else {
                    tracing::warn!(
                        "the stream {stream} was not as it must be, and was changed: {losing}"
                    );
                }
                seen = after;
                continue;
            }
            Err(error) => error,
        };
        let (needed, others): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| change.field == NEEDED);
        if others.is_empty() {
            guard.note_warnings(stream, warnings);
            return Err(unusable(&error, &needed));
        }
        if !needed.is_empty() {
            let set_back = set_back(jetstream, stream, &seen, &needed).await;
            seen = set_back.map_err(|error| {
                guard.note_warnings(stream, std::mem::take(&mut warnings));
                unusable(&error, &needed)
            })?;
        }
        warnings.push(format!(
            "it is not as it must be, and cannot be changed ({}): {}; let Loom change the stream, or change it yourself",
            listed(&others),
            error.reason()
        ));
    }
    guard.note_warnings(stream, warnings);
    if terms.is_bucket && !seen.looked.info.config.allow_message_ttl {
        let why = "it does not let single keys expire; use nats-server 2.12.5 or later";
        let resource = Resource::stream(stream);
        return Err(StoreError::refused(
            Cause::Unsuited,
            "using",
            &resource,
            why,
        ));
    }
    Ok(Some(seen.looked))
}

/// The error of a change without which the stream cannot be used, with what to do.
fn unusable(error: &StoreError, needed: &[Change]) -> StoreError {
    error.saying(format!(
        "{}; the stream cannot be used without that change: let Loom change it, or change it yourself ({})",
        error.why(),
        listed(needed)
    ))
}

fn listed(changes: &[Change]) -> String {
    let changes: Vec<_> = changes.iter().map(Change::to_string).collect();
    changes.join(", ")
}

/// What takes messages away that nobody has had. How its maker works with the stream is nobody else's business.
const LOSING: [&str; 5] = [
    "max_age",
    "max_msgs",
    "max_msgs_per_subject",
    "max_msg_size",
    "discard",
];

/// Warns of what may lose messages, and changes nothing: the stream is somebody else's. How it is; `None`: there is none.
///
/// # Errors
/// The server does not say.
pub async fn warn(
    jetstream: &jetstream::Context,
    stream: &str,
    terms: &StreamTerms,
    guard: &StoreGuard,
) -> Result<Option<Looked>, StoreError> {
    let Some(seen) = look(jetstream, stream).await? else {
        return Ok(None);
    };
    let found = verdict(&seen.config, terms);
    let mut warnings = found.lasting;
    let loses = |change: &&Change| LOSING.contains(&change.field);
    let losing = found.changes.iter().filter(loses);
    let losing: Vec<_> = losing.cloned().collect();
    if !losing.is_empty() {
        warnings.push(format!(
            "Loom has not made it and leaves it alone, and messages may be lost; change {}",
            listed(&losing)
        ));
    }
    guard.note_warnings(stream, warnings);
    Ok(Some(seen.looked))
}

async fn set_back(
    jetstream: &jetstream::Context,
    stream: &str,
    seen: &Seen,
    changes: &[Change],
) -> Result<Seen, StoreError> {
    let mut config = seen.config.clone();
    for change in changes {
        match &change.wanted {
            Value::Null => drop(config.remove(change.field)),
            wanted => drop(config.insert(change.field.to_owned(), wanted.clone())),
        }
    }
    ask(jetstream, CHANGING, stream, ("UPDATE", &config)).await
}
