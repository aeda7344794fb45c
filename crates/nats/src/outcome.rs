//! How a conditional write ended, as the server says it.

use async_nats::client::{RequestError, RequestErrorKind};
use async_nats::jetstream::ErrorCode;
use serde::Deserialize;

use super::overlap::{is_wrong_sequence, taken_by};
use super::store_guard::StoreDenied;

/// Why a write is not known to be stored.
///
/// | outcome | means | do |
/// |---|---|---|
/// | [`Conflict`](Self::Conflict) | somebody wrote in between; nothing stored | read again from the leader, decide again |
/// | [`Unknown`](Self::Unknown) | no answer: may be stored, now or at the next reconnect | read again before writing, or write the same again |
/// | [`Refused`](Self::Refused) | not stored, or in a store that is not worked with | by its [`Cause`] |
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The last sequence of the subject is another one than expected.
    #[error("somebody else wrote in between")]
    Conflict,
    /// No answer: it may be stored, or may be stored later.
    #[error("NATS did not confirm the write: {0}")]
    Unknown(String),
    /// It is not stored where it should be.
    #[error("{}{why}", cause.before())]
    Refused {
        /// By whom, and whether it may be tried again.
        cause: Cause,
        /// A sentence, or what the server says.
        why: String,
    },
}

/// Who refuses a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server, for a reason that it says.
    Server,
    /// The server, for good: no message carries so much.
    TooLarge,
    /// The server, which has no leader for the stream just now.
    NotNow,
    /// Nobody listens on the subject: no stream, or no JetStream just now.
    NoStream,
    /// A stream of somebody else's took it.
    OtherStream,
    /// We: the ownership may be over. Nothing was sent.
    NotOwner,
    /// We: whether the store is still the same is being looked at. Nothing was sent, or the answer is not believed.
    StoreInDoubt,
    /// We: the store is another one. Nothing was sent, or the answer came from that one.
    OtherStore,
}

impl Cause {
    const fn before(self) -> &'static str {
        match self {
            Self::TooLarge => "the record is too large for the server: ",
            Self::Server | Self::NotNow | Self::NoStream | Self::OtherStream => {
                "NATS refused the write: "
            }
            Self::NotOwner | Self::StoreInDoubt | Self::OtherStore => "",
        }
    }
}

impl WriteError {
    /// Refused for this cause.
    pub fn refused(cause: Cause, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::Refused { cause, why }
    }

    /// Nothing was sent: whoever owns now has the say.
    pub(crate) fn not_owner() -> Self {
        Self::refused(Cause::NotOwner, NOT_OWNER)
    }
}

impl From<StoreDenied> for WriteError {
    fn from(denied: StoreDenied) -> Self {
        let cause = match denied {
            StoreDenied::InDoubt(_) => Cause::StoreInDoubt,
            StoreDenied::Foreign(_) => Cause::OtherStore,
        };
        Self::refused(cause, denied.to_string())
    }
}

/// Why nothing is written any more.
pub(crate) const NOT_OWNER: &str = "another coordinator may own the projects by now";
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
            return Err(WriteError::refused(
                Cause::OtherStream,
                taken_by(stream, ours),
            ));
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
        (Some(error), _) => Err(WriteError::refused(
            cause_of(error.err_code),
            error.description,
        )),
    }
}

fn cause_of(code: u64) -> Cause {
    match code {
        TOO_LARGE => Cause::TooLarge,
        code if code == ErrorCode::CLUSTER_NOT_AVAILABLE.0 => Cause::NotNow,
        _ => Cause::Server,
    }
}

/// The outcome of a write without an answer of the stream.
pub(super) fn write_error(error: &RequestError) -> WriteError {
    let text = error.to_string();
    match error.kind() {
        RequestErrorKind::MaxPayloadExceeded => WriteError::refused(Cause::TooLarge, text),
        RequestErrorKind::NoResponders => WriteError::refused(Cause::NoStream, text),
        RequestErrorKind::InvalidSubject => WriteError::refused(Cause::Server, text),
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
        let by = |cause| Err(WriteError::refused(cause, "no"));
        let cases = [
            (r#"{"stream":"KV_x","seq":7}"#.to_owned(), Ok(7)),
            (refused(10_071), Err(WriteError::Conflict)),
            (refused(10_164), Err(WriteError::Conflict)),
            (refused(10_054), by(Cause::TooLarge)),
            (refused(10_008), by(Cause::NotNow)),
            (refused(10_077), by(Cause::Server)),
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
            let Err(WriteError::Refused {
                cause: Cause::OtherStream,
                why,
            }) = outcome_of(answer.as_bytes(), "KV_x")
            else {
                panic!("{answer} counts as an answer of ours");
            };
            assert!(why.contains("THEIRS") && why.contains("KV_x"), "{why}");
        }
    }
}
