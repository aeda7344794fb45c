//! What can go wrong, by kind.

use loom_protocol::codec::DecodeError;
use loom_protocol::{ErrorCode, TokenError, WireError};

/// What kind of failure it is. Programs match on this, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The coordinator refused; the code says why.
    Refused(ErrorCode),
    /// NATS is reachable, but no coordinator answers requests of this project.
    NoCoordinator,
    /// No answer in time. Whether the request took effect is unknown; repeating it is safe.
    Timeout,
    /// NATS is not reachable just now; the client goes on trying to reconnect.
    Disconnected,
    /// The connection could not be made at all: no route, nobody there, not a NATS server.
    Connect,
    /// The NATS server refuses the credentials.
    Credentials,
    /// The payload is over what the NATS server takes.
    TooLarge,
    /// A value can't be written, or an answer can't be read.
    Codec,
    /// An option makes no sense.
    Options,
    /// The caller's deadline passed before the item ended.
    Deadline,
}

/// An error of the client: its [`kind`](ClientError::kind) for programs, its text for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    kind: ErrorKind,
    message: String,
    wire: Option<Box<WireError>>,
}

impl ClientError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            wire: None,
        }
    }

    /// What kind of failure it is.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The coordinator's code, where the coordinator refused.
    pub const fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            ErrorKind::Refused(code) => Some(code),
            _ => None,
        }
    }

    /// The coordinator's answer, where it refused.
    pub fn wire(&self) -> Option<&WireError> {
        self.wire.as_deref()
    }

    /// Whether the same request may succeed later without being mended.
    pub const fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::Refused(code) => code.is_transient(),
            ErrorKind::NoCoordinator | ErrorKind::Timeout | ErrorKind::Disconnected => true,
            _ => false,
        }
    }

    /// Whether an error says that the report itself can't be taken.
    pub(crate) const fn is_about_the_report(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::TooLarge
                | ErrorKind::Codec
                | ErrorKind::Refused(ErrorCode::TooLarge | ErrorCode::InvalidRequest)
        )
    }

    /// Whether the lease that the request named is not (or no longer) the sender's.
    pub fn is_lease_gone(&self) -> bool {
        let code = matches!(
            self.kind,
            ErrorKind::Refused(
                ErrorCode::StaleLease | ErrorCode::TerminalState | ErrorCode::NotFound
            )
        );
        code || self.is_replaced()
    }

    /// Whether another run of the same agent has registered since: this one is to stop its work and to
    /// end, and must not register again.
    pub fn is_replaced(&self) -> bool {
        let details = self.wire().and_then(|wire| wire.details.as_ref());
        self.code() == Some(ErrorCode::NotRegistered)
            && details.is_some_and(|details| details["replaced"] == true)
    }

    /// Whether the agent may not register with its ticket, by which another one was born, or none is to be any more: it
    /// is to end, and must not register without it.
    pub fn is_ticket_refused(&self) -> bool {
        let details = self.wire().and_then(|wire| wire.details.as_ref());
        self.code() == Some(ErrorCode::Forbidden)
            && details.is_some_and(|details| details["ticket"] == "refused")
    }
}

impl From<WireError> for ClientError {
    fn from(wire: WireError) -> Self {
        Self {
            kind: ErrorKind::Refused(wire.code),
            message: wire.to_string(),
            wire: Some(Box::new(wire)),
        }
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::new(ErrorKind::Codec, error.to_string())
    }
}

impl From<TokenError> for ClientError {
    fn from(error: TokenError) -> Self {
        Self::new(ErrorKind::Options, error.to_string())
    }
}
