//! The closed set of error codes, and the error that an answer carries.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::token::TokenError;

/// The header whose presence makes an answer an error; its value is the REST status.
pub const ERROR_CODE_HEADER: &str = "Nats-Service-Error-Code";
/// The header with the sentence, for tools that show no bodies.
pub const ERROR_HEADER: &str = "Nats-Service-Error";

/// What kind of refusal it is. Programs match on this, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is malformed or breaks a rule: mend it.
    InvalidRequest,
    /// A name in the request is no token: mend it.
    InvalidToken,
    /// The request or a part of it is over a limit: mend it.
    TooLarge,
    /// There is no such thing.
    NotFound,
    /// A thing of that name is there already.
    AlreadyExists,
    /// The item has ended and takes no more changes.
    TerminalState,
    /// Two project ids would share the name of a stream.
    ProjectNameCollision,
    /// No agent of that guid: register again.
    NotRegistered,
    /// The lease is not (or no longer) the sender's: stop that work, discard the result.
    StaleLease,
    /// No token, or one that is not known.
    Unauthorized,
    /// The token does not allow this.
    Forbidden,
    /// A bound is reached: keep working, retry after `retryAfterMs`.
    Overloaded,
    /// Not possible just now: keep working, retry.
    Unavailable,
    /// A defect of ours: report it. Also every code that this version does not know.
    #[serde(other)]
    Internal,
}

impl ErrorCode {
    /// The status of a REST answer, also the value of [`ERROR_CODE_HEADER`].
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::InvalidToken => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::NotRegistered => 404,
            Self::AlreadyExists
            | Self::TerminalState
            | Self::ProjectNameCollision
            | Self::StaleLease => 409,
            Self::TooLarge => 413,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// Whether the same request may succeed later without being mended.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable)
    }

    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::InvalidToken => "invalid-token",
            Self::TooLarge => "too-large",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::TerminalState => "terminal-state",
            Self::ProjectNameCollision => "project-name-collision",
            Self::NotRegistered => "not-registered",
            Self::StaleLease => "stale-lease",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as it stands in an answer: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WireError {
    /// The sentence; the same as `message` (old clients read this one).
    pub error: String,
    /// What happened, to which thing, and what to do.
    pub message: String,
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// More about it, where there is more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub details: Option<serde_json::Value>,
    /// When to try again, for transient codes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
}

impl WireError {
    /// An error with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error: message.clone(),
            message,
            code,
            details: None,
            retry_after_ms: None,
        }
    }

    /// `invalid-request` with its sentence.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// `unavailable`, to be tried again after `retry_after`.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(ErrorCode::Unavailable, message).retry_after(retry_after)
    }

    /// `overloaded`, to be tried again after `retry_after`.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(ErrorCode::Overloaded, message).retry_after(retry_after)
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Adds details for programs.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for WireError {}

impl From<TokenError> for WireError {
    fn from(error: TokenError) -> Self {
        Self::new(ErrorCode::InvalidToken, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_contract_says() {
        let error = WireError::overloaded("too much", Duration::from_millis(250));
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "error": "too much", "message": "too much", "code": "overloaded", "retryAfterMs": 250
            })
        );
        assert_eq!(serde_json::from_value::<WireError>(json).unwrap(), error);
    }

    #[test]
    fn a_code_of_a_later_version_is_internal() {
        let code: ErrorCode = serde_json::from_str("\"moon-phase\"").unwrap();
        assert_eq!(code, ErrorCode::Internal);
    }

    #[test]
    fn as_str_and_serde_agree() {
        for code in [
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidToken,
            ErrorCode::TooLarge,
            ErrorCode::NotFound,
            ErrorCode::AlreadyExists,
            ErrorCode::TerminalState,
            ErrorCode::ProjectNameCollision,
            ErrorCode::NotRegistered,
            ErrorCode::StaleLease,
            ErrorCode::Unauthorized,
            ErrorCode::Forbidden,
            ErrorCode::Overloaded,
            ErrorCode::Unavailable,
            ErrorCode::Internal,
        ] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
