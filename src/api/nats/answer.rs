//! An answer as it goes out: headers and payload.

use async_nats::HeaderMap;
use bytes::Bytes;
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::error::{ERROR_CODE_HEADER, ERROR_HEADER};
use loom_protocol::{Encoding, ErrorCode, WireError, names};
use serde::Serialize;

/// What an action gives back: a payload that is written already, and perhaps a cursor.
#[derive(Debug)]
pub(super) struct Done {
    payload: Vec<u8>,
    next_cursor: Option<String>,
}

impl Done {
    pub fn new(value: &impl Serialize, encoding: Encoding) -> Result<Self, WireError> {
        let payload = encoding
            .encode(value)
            .map_err(|error| WireError::new(ErrorCode::Internal, error.to_string()))?;
        Ok(Self {
            payload,
            next_cursor: None,
        })
    }

    /// In bytes, without headers.
    pub fn size(&self) -> usize {
        self.payload.len()
    }

    pub fn with_cursor(mut self, cursor: Option<String>) -> Self {
        self.next_cursor = cursor;
        self
    }
}

/// An answer, ready to be published.
#[derive(Debug)]
pub(super) struct Answer {
    pub headers: HeaderMap,
    pub payload: Bytes,
}

impl Answer {
    pub fn of(outcome: Result<Done, WireError>, encoding: Encoding) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, encoding.content_type());
        let payload = match outcome {
            Ok(done) => {
                if let Some(cursor) = done.next_cursor {
                    headers.insert(names::NEXT_CURSOR_HEADER, cursor);
                }
                done.payload
            }
            Err(error) => {
                headers.insert(ERROR_CODE_HEADER, error.code.status().to_string());
                headers.insert(ERROR_HEADER, one_line(&error.message));
                encoding.encode(&error).unwrap_or_default()
            }
        };
        Self {
            headers,
            payload: payload.into(),
        }
    }

    /// In place of an answer of `size` bytes, where NATS carries `most`.
    pub fn too_large(size: usize, most: usize, encoding: Encoding) -> Self {
        let text = format!(
            "the answer has {size} bytes, and NATS carries {most}; ask for less at a time (limit, max)"
        );
        Self::of(Err(WireError::new(ErrorCode::TooLarge, text)), encoding)
    }
}

/// A header has one line, of printable characters.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_known_by_its_header() {
        let error = WireError::new(ErrorCode::StaleLease, "no\nlonger yours");
        let answer = Answer::of(Err(error.clone()), Encoding::Json);
        let header = |name: &str| answer.headers.get(name).map(ToString::to_string);
        assert_eq!(header(ERROR_CODE_HEADER).as_deref(), Some("409"));
        assert_eq!(header(ERROR_HEADER).as_deref(), Some("no longer yours"));
        let body: WireError = Encoding::Json.decode(&answer.payload).unwrap();
        assert_eq!(body, error);
    }

    #[test]
    fn an_answer_that_nats_cannot_carry_becomes_an_error() {
        let answer = Answer::too_large(5_000, 4_096, Encoding::MessagePack);
        let body: WireError = Encoding::MessagePack.decode(&answer.payload).unwrap();
        assert_eq!(body.code, ErrorCode::TooLarge);
    }
}
