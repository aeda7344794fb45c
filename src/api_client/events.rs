//! The events of a coordinator, read from an answer that goes on.

use std::time::Duration;

use loom_protocol::event::Event;
use reqwest::Response;
use serde::Deserialize;
use tokio::time::timeout;

use super::{ApiClient, ApiError};

/// After so much silence a connection counts as broken: the coordinator sends something every 5 s.
const SILENCE: Duration = Duration::from_secs(20);
/// How long an answer may go on: for ever, as far as that can be said.
const FOR_EVER: Duration = Duration::from_hours(10 * 365 * 24);
/// The largest line that an event may take.
const MAX_LINE: usize = 1024 * 1024;

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Box<Event>),
    /// So many were dropped, because this side was too slow. 0: nobody knows how many; the coordinator had lost its
    /// ownership, or a part of it began anew.
    Missed(u64),
}

/// Events as they come.
#[derive(Debug)]
pub struct EventStream {
    api: ApiClient,
    response: Response,
    lines: Lines,
    kind: String,
}

#[derive(Deserialize)]
struct Lagged {
    missed: u64,
}

impl ApiClient {
    /// Follows the events that a query names. When this returns, none is missed from now on.
    ///
    /// # Errors
    /// As for every request.
    pub async fn follow(&self, query: &[(&str, String)]) -> Result<EventStream, ApiError> {
        let request = self
            .request(reqwest::Method::GET, &["events"])
            .query(query)
            .timeout(FOR_EVER);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.checked(response).await?;
        let mut stream = EventStream {
            api: self.clone(),
            response,
            lines: Lines::default(),
            kind: String::new(),
        };
        // The first thing that is sent says that the coordinator listens.
        loop {
            let line = stream.line().await?;
            if line == "event: subscribed" {
                return Ok(stream);
            }
        }
    }
}

impl EventStream {
    /// The next event.
    ///
    /// # Errors
    /// The connection broke off; what happens until another one is made is missed.
    pub async fn next(&mut self) -> Result<Heard, ApiError> {
        loop {
            let line = self.line().await?;
            if let Some(kind) = line.strip_prefix("event: ") {
                kind.clone_into(&mut self.kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let kind = std::mem::take(&mut self.kind);
                if kind == "lagged" {
                    let missed = serde_json::from_str(data).map_or(0, |l: Lagged| l.missed);
                    return Ok(Heard::Missed(missed));
                }
                // An event of a later version, or `subscribed`: passed over.
                if let Ok(event) = serde_json::from_str(data) {
                    return Ok(Heard::Event(Box::new(event)));
                }
            }
        }
    }

    async fn line(&mut self) -> Result<String, ApiError> {
        loop {
            if let Some(line) = self.lines.take() {
                return Ok(line);
            }
            let chunk = timeout(SILENCE, self.response.chunk()).await;
            match chunk {
                Ok(Ok(Some(chunk))) if self.lines.add(&chunk) => {}
                Ok(Err(error)) => return Err(self.api.unreachable(&error)),
                Ok(Ok(_)) | Err(_) => return Err(self.api.broken_off()),
            }
        }
    }
}

/// Bytes that come in pieces, as lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Up to where there is no line feed.
    searched: usize,
}

impl Lines {
    /// Whether there was room for it.
    fn add(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() <= MAX_LINE
    }

    fn take(&mut self) -> Option<String> {
        let Some(end) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let mut line: Vec<u8> = self.bytes.drain(..=self.searched + end).collect();
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        std::iter::from_fn(|| lines.take()).collect()
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let mut lines = Lines::default();
        assert!(lines.add(b"event: a\nda"));
        assert_eq!(all(&mut lines), ["event: a"]);
        assert!(lines.add(b"ta: {}\r\n\n"));
        assert_eq!(all(&mut lines), ["data: {}", ""]);
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; MAX_LINE / 2 + 1];
        assert!(lines.add(&piece));
        assert_eq!(lines.take(), None);
        assert!(!lines.add(&piece));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(text in "[a-c\n]{0,200}", cut in 1_usize..20) {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                prop_assert!(lines.add(piece));
                got.extend(all(&mut lines));
            }
            let mut whole: Vec<&str> = text.split('\n').collect();
            whole.pop();
            prop_assert_eq!(got, whole);
        }
    }
}
