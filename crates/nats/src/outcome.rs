//! How a conditional write ended, as the server says it.

use async_nats::client::{RequestError, RequestErrorKind};
use serde::Deserialize;

use super::overlap::{is_wrong_sequence, taken_by};
use super::store_guard::StoreDenied;

/// How a conditional write ended, when it did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The key's last sequence is another one.
    #[error("the record was changed by somebody else")]
    Conflict,
    /// No answer: it may be stored, or may be stored later.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The server refuses it and has not stored it.
    #[error("the server refuses the write: {0}")]
    Refused(String),
    /// The server refuses it for good: no message carries so much.
    #[error("the record is too large for the server: {0}")]
    TooLarge(String),
    /// It was not sent, or its answer came from another store than the one that is worked with.
    #[error(transparent)]
    Denied(#[from] StoreDenied),
}

/// More than a message of the stream may have.
const TOO_LARGE: u64 = 10_054;

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

/// The outcome of a write that stream `ours` is to answer. Another one may have taken it; then it is not stored.
pub(super) fn outcome_of(answer: &[u8], ours: &str) -> Result<u64, WriteError> {
    let acknowledgement: Acknowledgement<'_> = serde_json::from_slice(answer)
        .map_err(|error| WriteError::Unknown(format!("the answer cannot be read: {error}")))?;
    match acknowledgement.stream.as_deref() {
        Some(stream) if !stream.is_empty() && stream != ours => {
            return Err(WriteError::Refused(taken_by(stream, ours)));
        }
        _ => {}
    }
    match (acknowledgement.error, acknowledgement.seq) {
        (None, Some(_)) if acknowledgement.stream.is_none() => {
            Err(WriteError::Unknown("the answer names no stream".into()))
        }
        (None, Some(sequence)) => Ok(sequence),
        (None, None) => Err(WriteError::Unknown("the answer has no sequence".into())),
        (Some(error), _) if is_wrong_sequence(error.err_code) => Err(WriteError::Conflict),
        (Some(error), _) if error.err_code == TOO_LARGE => {
            Err(WriteError::TooLarge(error.description))
        }
        (Some(error), _) => Err(WriteError::Refused(error.description)),
    }
}

pub(super) fn write_error(error: &RequestError) -> WriteError {
    let text = error.to_string();
    match error.kind() {
        RequestErrorKind::MaxPayloadExceeded => WriteError::TooLarge(text),
        RequestErrorKind::NoResponders | RequestErrorKind::InvalidSubject => {
            WriteError::Refused(text)
        }
        RequestErrorKind::TimedOut | RequestErrorKind::Other => WriteError::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_the_server_has_one_outcome() {
        let refused = |code| {
            format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"no"}},"seq":0}}"#)
        };
        let cases = [
            (r#"{"stream":"KV_x","seq":7}"#.to_owned(), Ok(7)),
            (refused(10_071), Err(WriteError::Conflict)),
            (refused(10_164), Err(WriteError::Conflict)),
            (refused(10_054), Err(WriteError::TooLarge("no".into()))),
            (refused(10_077), Err(WriteError::Refused("no".into()))),
        ];
        for (answer, outcome) in cases {
            assert_eq!(outcome_of(answer.as_bytes(), "KV_x"), outcome, "{answer}");
        }
        for unknown in ["", "{}", r#"{"seq":"#, r#"{"seq":7}"#] {
            let outcome = outcome_of(unknown.as_bytes(), "KV_x");
            assert!(matches!(outcome, Err(WriteError::Unknown(_))), "{unknown}");
        }
    }

    #[test]
    fn an_acknowledgement_of_another_stream_is_no_success_and_names_it() {
        let answers = [
            r#"{"stream":"THEIRS","seq":7}"#,
            r#"{"stream":"THEIRS","seq":7,"error":{"err_code":10071,"description":"no"}}"#,
        ];
        for answer in answers {
            let Err(WriteError::Refused(why)) = outcome_of(answer.as_bytes(), "KV_x") else {
                panic!("{answer} counts as an answer of ours");
            };
            assert!(why.contains("THEIRS") && why.contains("KV_x"), "{why}");
        }
    }
}
