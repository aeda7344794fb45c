//! The agent's side of a socket: takes connections, one request each, within bounds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loom_protocol::{Body, ErrorCode, WireError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::broker::Broker;
use super::message::Answer;
use super::{ANSWER_WITHIN, LONGEST_LINE, PLACES, READ_WITHIN};
use crate::private_dir::{self, PrivateDir};

const NAME: &str = "socket";
/// The longest path of a socket that every system takes, in bytes.
const LONGEST_PATH: usize = 103;
/// The pause after a connection could not be taken: there are no more descriptors, for instance.
const REST: Duration = Duration::from_millis(200);

/// The socket of one attempt; gone with its directory in the end.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    serving: JoinHandle<()>,
    _dir: PrivateDir,
}

impl Server {
    /// Makes a socket, in the first place where that is possible, and answers there.
    ///
    /// # Errors
    /// There is no such place; with the reason that the last one gave.
    pub fn open(broker: Arc<Broker>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no path is short enough");
        for base in private_dir::places() {
            match bind(&base) {
                Ok((dir, path, listener)) => {
                    return Ok(Self {
                        path,
                        serving: tokio::spawn(serve(listener, broker)),
                        _dir: dir,
                    });
                }
                Err(error) => {
                    tracing::debug!(base = %base.display(), %error, "no socket can be made there");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn bind(base: &Path) -> io::Result<(PrivateDir, PathBuf, UnixListener)> {
    let dir = PrivateDir::create(base)?;
    let path = dir.path().join(NAME);
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path of a socket there would be over {LONGEST_PATH} bytes long"),
        ));
    }
    let listener = UnixListener::bind(&path)?;
    Ok((dir, path, listener))
}

async fn serve(listener: UnixListener, broker: Arc<Broker>) {
    let places = Arc::new(Semaphore::new(PLACES));
    // With this future all connections end.
    let mut visits = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        while visits.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let broker = broker.clone();
                visits.spawn(async move {
                    let _place = place;
                    visit(stream, &broker).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection of a program can't be taken");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// One request and its answer.
async fn visit(mut stream: UnixStream, broker: &Broker) {
    let answer = match heard(&mut stream, broker).await {
        Ok(None) => return,
        Ok(Some(line)) => {
            let answering = timeout(ANSWER_WITHIN, broker.answer(&line));
            answering.await.unwrap_or_else(|_| {
                let text = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
                Err(WireError::unavailable(text, Duration::from_secs(1)))
            })
        }
        Err(refusal) => Err(refusal),
    };
    let mut line = written(answer);
    line.push(b'\n');
    match timeout(READ_WITHIN, stream.write_all(&line)).await {
        Ok(Ok(())) => {}
        unread => tracing::debug!(?unread, "a program did not read its answer"),
    }
}

/// The line that somebody says, where it is one of us and says a whole one in time.
async fn heard(stream: &mut UnixStream, broker: &Broker) -> Result<Option<Vec<u8>>, WireError> {
    broker.programs().check(stream).await?;
    let mut line = Vec::new();
    let bound = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(stream.take(bound.saturating_add(1)));
    match timeout(READ_WITHIN, reader.read_until(b'\n', &mut line)).await {
        Ok(Ok(_)) if line.last() == Some(&b'\n') => Ok(Some(line)),
        Ok(Ok(_)) if line.len() > LONGEST_LINE => Err(WireError::new(
            ErrorCode::TooLarge,
            format!("a request has at most {LONGEST_LINE} bytes"),
        )),
        broken => {
            tracing::debug!(?broken, "a program did not say a whole request");
            Ok(None)
        }
    }
}

fn written(answer: Result<Body, WireError>) -> Vec<u8> {
    let answer = match answer {
        Ok(body) => Answer::Ok(body),
        Err(refusal) => Answer::Error(refusal),
    };
    serde_json::to_vec(&answer).unwrap_or_default()
}
