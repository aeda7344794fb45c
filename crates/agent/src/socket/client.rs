//! The program's side of the socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loom_protocol::{Body, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::message::{Answer, Request, Verb};
use super::{ANSWER_WITHIN, LONGEST_ANSWER, LONGEST_LINE, READ_WITHIN, VARIABLE};

/// The pause before another try, where more connections wait than the system keeps.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The caller's mistake.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error("{0}")]
    Gone(String),
    /// It was refused.
    #[error("{0}")]
    Refused(WireError),
}

/// The socket of the attempt that this process belongs to.
///
/// # Errors
/// It belongs to none.
pub fn here() -> Result<PathBuf, Problem> {
    match std::env::var_os(VARIABLE) {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(Problem::Usage(format!(
            "{VARIABLE} is not set; this is for programs that `loom agent run` has started"
        ))),
    }
}

/// Asks the agent behind a socket.
///
/// # Errors
/// There is no answer, or it is a refusal.
pub async fn ask<R: DeserializeOwned>(
    socket: &Path,
    verb: Verb,
    request: &impl Serialize,
) -> Result<R, Problem> {
    let unwritable = |error| Problem::Usage(format!("this can't be written as JSON: {error}"));
    let request = Body::of(request).map_err(unwritable)?;
    let request = Request {
        verb,
        request: Some(request),
    };
    let mut line = serde_json::to_vec(&request).map_err(unwritable)?;
    line.push(b'\n');
    if line.len() > LONGEST_LINE {
        return Err(Problem::Usage(format!(
            "this has {} bytes, and at most {LONGEST_LINE} can be said at once; put it elsewhere and report where",
            line.len()
        )));
    }
    let gone = |error: &io::Error| {
        let path = socket.display();
        Problem::Gone(format!(
            "the agent that this program was started by does not answer at {path} ({error}): it has ended, or this program goes on after its attempt; stop, nobody wants the result"
        ))
    };
    let asking = async {
        let mut stream = connect(socket).await?;
        // Whoever may not ask is answered before he is heard.
        let written = stream.write_all(&line).await;
        let mut answer = Vec::new();
        let bound = u64::try_from(LONGEST_ANSWER).unwrap_or(u64::MAX);
        let mut reader = BufReader::new(stream.take(bound));
        reader.read_until(b'\n', &mut answer).await?;
        if answer.is_empty() {
            written?;
        }
        Ok::<_, io::Error>(answer)
    };
    let answer = match timeout(READ_WITHIN + ANSWER_WITHIN + READ_WITHIN, asking).await {
        Ok(Ok(answer)) if !answer.is_empty() => answer,
        Ok(Ok(_)) => return Err(gone(&io::ErrorKind::UnexpectedEof.into())),
        Ok(Err(error)) => return Err(gone(&error)),
        Err(_) => return Err(gone(&io::ErrorKind::TimedOut.into())),
    };
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error(refusal)) => Err(Problem::Refused(refusal)),
        Err(error) => Err(Problem::Gone(format!(
            "the answer at {} can't be read: {error}",
            socket.display()
        ))),
    }
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + READ_WITHIN;
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(PAUSE).await;
            }
            connected => return connected,
        }
    }
}
