//! How a write ended: the answer of the server, or that there is none, as what we make of it.

use async_nats::client::{RequestError, RequestErrorKind};
use serde::Deserialize;

use super::error::{Cause, Resource, StoreError};
use super::overlap::taken_by;

/// What is tried, in the words of an error.
const WRITING: &str = "writing";

/// What the server says to a write. Read by hand: the client's own reading tries one kind of
/// answer after the other, which costs a twentieth of a submit.
#[derive(Deserialize)]
struct Acknowledgement<'a> {
    #[serde(borrow)]
    stream: Option<std::borrow::Cow<'a, str>>,
    seq: Option<u64>,
    error: Option<ServerError>,
}

#[derive(Deserialize)]
struct ServerError {
    err_code: u64,
    description: String,
}

/// The outcome of a write that stream `ours` of `resource` is to answer. Another one may have taken it; then it is not
/// stored.
pub(super) fn outcome_of(
    answer: &[u8],
    ours: &str,
    resource: &Resource,
) -> Result<u64, StoreError> {
    let unknown = |why: &str| StoreError::unknown(WRITING, resource, why);
    let acknowledgement: Acknowledgement<'_> = serde_json::from_slice(answer)
        .map_err(|error| unknown(&format!("the answer cannot be read: {error}")))?;
    match acknowledgement.stream.as_deref() {
        Some(stream) if !stream.is_empty() && stream != ours => {
            let why = taken_by(stream, ours);
            return Err(StoreError::refused(
                Cause::OtherStream,
                WRITING,
                resource,
                why,
            ));
        }
        _ => {}
    }
    match (acknowledgement.error, acknowledgement.seq) {
        (None, Some(_)) if acknowledgement.stream.is_none() => {
            Err(unknown("the answer names no stream"))
        }
        (None, Some(sequence)) => Ok(sequence),
        (None, None) => Err(unknown("the answer has no sequence")),
        (Some(error), _) => Err(StoreError::by_server(
            WRITING,
            resource,
            error.err_code,
            error.description,
        )),
    }
}

/// The outcome of a write without an answer of the stream.
pub(super) fn unanswered(error: &RequestError, resource: &Resource) -> StoreError {
    let text = error.to_string();
    let cause = match error.kind() {
        RequestErrorKind::MaxPayloadExceeded => Cause::TooLarge,
        RequestErrorKind::NoResponders => Cause::NoStream,
        RequestErrorKind::InvalidSubject => Cause::Server,
        RequestErrorKind::TimedOut | RequestErrorKind::Other => {
            return StoreError::unknown(WRITING, resource, text);
        }
    };
    StoreError::refused(cause, WRITING, resource, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreErrorKind;
    use crate::verdicts::store::RefusalKind;

    fn kind_of(answer: &str) -> Result<u64, StoreErrorKind> {
        let outcome = outcome_of(answer.as_bytes(), "KV_x", &Resource::bucket("x"));
        outcome.map_err(|error| error.kind())
    }

    #[test]
    fn each_answer_of_the_server_has_one_outcome() {
        let refused = |code, said| {
            format!(
                r#"{{"error":{{"code":400,"err_code":{code},"description":"{said}"}},"seq":0}}"#
            )
        };
        let by = |cause| Err(StoreErrorKind::Refused(cause));
        let cases = [
            (r#"{"stream":"KV_x","seq":7}"#.to_owned(), Ok(7)),
            (refused(10_071, "no"), Err(StoreErrorKind::Conflict)),
            (refused(10_164, "no"), Err(StoreErrorKind::Conflict)),
            (refused(10_054, "no"), by(Cause::TooLarge)),
            (refused(10_008, "no"), by(Cause::NotNow)),
            (refused(10_059, "no"), by(Cause::NoStream)),
            (
                refused(10_023, "insufficient resources"),
                by(Cause::Full(RefusalKind::Limit)),
            ),
            (
                refused(10_077, "write: no space left on device"),
                by(Cause::Full(RefusalKind::Disk)),
            ),
            (
                refused(10_077, "maximum messages exceeded"),
                by(Cause::Server),
            ),
        ];
        for (answer, outcome) in cases {
            assert_eq!(kind_of(&answer), outcome, "{answer}");
        }
        for unknown in ["", "{}", r#"{"seq":"#, r#"{"seq":7}"#] {
            assert_eq!(kind_of(unknown), Err(StoreErrorKind::Unknown), "{unknown}");
        }
    }

    #[test]
    fn an_acknowledgement_of_another_stream_is_no_success_and_names_it() {
        let answers = [
            r#"{"stream":"THEIRS","seq":7}"#,
            r#"{"stream":"THEIRS","seq":7,"error":{"err_code":10071,"description":"no"}}"#,
        ];
        for answer in answers {
            let outcome = outcome_of(answer.as_bytes(), "KV_x", &Resource::bucket("x"));
            let error = outcome.expect_err("it counts as an answer of ours");
            let refused = StoreErrorKind::Refused(Cause::OtherStream);
            assert_eq!(error.kind(), refused, "{error}");
            let why = error.why();
            assert!(why.contains("THEIRS") && why.contains("KV_x"), "{why}");
        }
    }
}
