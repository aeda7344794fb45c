//! What is said to a program where the coordinator did not do what it asked for.

use loom_client::{ClientError, ErrorKind};
use loom_protocol::{ErrorCode, WireError};

/// An error of the client as one of the wire.
pub fn wire(error: &ClientError) -> WireError {
    if let Some(wire) = error.wire() {
        return wire.clone();
    }
    let code = match error.kind() {
        ErrorKind::Timeout
        | ErrorKind::NoCoordinator
        | ErrorKind::Disconnected
        | ErrorKind::Connect
        | ErrorKind::Deadline => ErrorCode::Unavailable,
        ErrorKind::TooLarge => ErrorCode::TooLarge,
        _ => ErrorCode::Internal,
    };
    WireError::new(code, error.to_string())
}
