//! Answers on their way out: how much of them may wait for readers, and for how long.
//!
//! An answer that its reader does not take stays in memory. So all that are larger than `SMALL` share a budget of
//! bytes: each holds its part until its last byte was handed to the system (or its connection ended), and one that
//! finds the budget used up is not sent, but refused with `overloaded`. A connection that takes next to nothing for
//! [`TAKEN_WITHIN`] is cut, so that readers that have gone hold no part for ever.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use loom_protocol::WireError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::error::RestError;

/// How much all answers together may keep in memory for their readers, in bytes.
pub const BUDGET: usize = 64 * 1024 * 1024;
/// Up to which size an answer is nobody's trouble, in bytes: so much for each connection there may be.
const SMALL: usize = 16 * 1024;
/// Within which time a connection whose reader is behind has to take `TAKEN` bytes.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How many bytes that are.
const TAKEN: usize = 64 * 1024;
/// In this many bytes the budget is counted.
const UNIT: usize = 1024;
/// When a refused request may be sent again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bytes that answers may keep. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    whole: usize,
}

impl Budget {
    /// One of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let whole = bytes / UNIT;
        Self {
            free: Arc::new(Semaphore::new(whole)),
            whole,
        }
    }

    /// The part of an answer; all there is for one that is larger than that. `None`: it is used up.
    fn part(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let units = size.div_ceil(UNIT).min(self.whole);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.free.clone().try_acquire_many_owned(units).ok()
    }
}

/// The bytes of an answer with their part of the budget, which ends when the last of them was taken.
struct Charged {
    bytes: Bytes,
    _part: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Charges an answer to the budget. One whose size is not known (a stream of events) has a bound of its own.
pub async fn charge(State(budget): State<Budget>, request: Request, next: Next) -> Response {
    let only_reads = request.method().is_safe();
    let (head, body) = next.run(request).await.into_parts();
    let size = body.size_hint().exact().unwrap_or_default();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size <= SMALL {
        return Response::from_parts(head, body);
    }
    let Some(part) = budget.part(size) else {
        let error = if only_reads {
            let message =
                "too many answers wait to be read; read yours, or try again a little later";
            WireError::overloaded(message, RETRY_AFTER)
        } else {
            let message = "too many answers wait to be read, and this one cannot be kept; the request was carried out: look at what came of it";
            WireError::unavailable(message, RETRY_AFTER)
        };
        return RestError::from(error).into_response();
    };
    match axum::body::to_bytes(body, size).await {
        Ok(bytes) => {
            let charged = Charged { bytes, _part: part };
            Response::from_parts(head, Body::from(Bytes::from_owner(charged)))
        }
        Err(error) => {
            RestError::invalid(format!("the answer could not be read: {error}")).into_response()
        }
    }
}

/// A connection that is cut when its reader takes too little for too long.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    within: Duration,
    /// Since the reader is behind, and what it has taken since.
    behind: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Patient<S> {
    /// Waits for a reader that is behind for at most so long.
    pub const fn new(stream: S, within: Duration) -> Self {
        Self {
            stream,
            within,
            behind: None,
        }
    }

    /// Notes what came of writing `offered` bytes.
    fn judge(
        &mut self,
        cx: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) if *count >= offered => self.behind = None,
            Poll::Ready(Ok(count)) => {
                if let Some((deadline, taken)) = &mut self.behind {
                    *taken += count;
                    if *taken >= TAKEN {
                        *deadline = Box::pin(sleep(self.within));
                        *taken = 0;
                    }
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let within = self.within;
                let fresh = || (Box::pin(sleep(within)), 0);
                let (deadline, _) = self.behind.get_or_insert_with(fresh);
                if deadline.as_mut().poll(cx).is_ready() {
                    let error = "the reader of an answer does not take it";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, error)));
                }
            }
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = parts.iter().map(|part| part.len()).sum();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(cx, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, timeout};

    use super::*;

    const ANSWER: usize = 8 * 1024 * 1024;
    const SOON: Duration = Duration::from_secs(20);

    /// A server whose answers have 8 MiB, and where all together may keep 24 MiB.
    async fn server() -> std::net::SocketAddr {
        let budget = Budget::new(3 * ANSWER);
        let router = Router::new()
            .route("/", get(|| async { vec![b'x'; ANSWER] }))
            .layer(from_fn_with_state(budget, charge));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(crate::api::rest::serve(
            listener,
            router,
            std::future::pending(),
        ));
        address
    }

    async fn ask(address: std::net::SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        stream
    }

    async fn status(address: std::net::SocketAddr) -> String {
        let mut answer = Vec::new();
        let mut stream = ask(address).await;
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..12]).into_owned()
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_keep_no_more_than_the_budget() {
        let address = server().await;
        assert_eq!(status(address).await, "200");
        let mut idle = Vec::new();
        for _ in 0..3 {
            let mut stream = ask(address).await;
            // Its first byte: the answer is made and charged.
            stream.read_u8().await.unwrap();
            idle.push(stream);
        }
        assert_eq!(status(address).await, "429");
        // One that is read gives its part back with its last byte, one whose reader goes with its connection.
        let mut rest = Vec::new();
        idle.pop().unwrap().read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() >= ANSWER);
        let served = async { while status(address).await != "200" {} };
        timeout(SOON, served).await.unwrap();
        idle.clear();
        let all_free = async {
            loop {
                let mut streams = Vec::new();
                for _ in 0..3 {
                    streams.push(ask(address).await);
                }
                let mut codes = Vec::new();
                for stream in &mut streams {
                    let mut head = [0; 12];
                    stream.read_exact(&mut head).await.unwrap();
                    codes.push(head[9..].to_vec());
                }
                if codes.iter().all(|code| code == b"200") {
                    return;
                }
            }
        };
        timeout(SOON, all_free).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_too_little_for_too_long_is_cut_off() {
        let within = Duration::from_secs(30);
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut patient = Patient::new(ours, within);
        let begun = Instant::now();
        let drip = tokio::spawn(async move {
            // A byte now and then is not enough.
            while theirs.read_u8().await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let error = patient.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= within && begun.elapsed() < within + SOON);
        drip.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_and_a_pause_between_two_answers_are_no_offence() {
        let within = Duration::from_secs(30);
        let (ours, mut theirs) = tokio::io::duplex(128 * 1024);
        let mut patient = Patient::new(ours, within);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 96 * 1024];
            let mut count = 0;
            loop {
                match theirs.read(&mut buffer).await.unwrap() {
                    0 => return count,
                    read => count += read,
                }
                sleep(within * 5 / 6).await;
            }
        });
        for _ in 0..2 {
            patient.write_all(&vec![0; 1024 * 1024]).await.unwrap();
            sleep(within * 4).await;
        }
        drop(patient);
        assert_eq!(reader.await.unwrap(), 2 * 1024 * 1024);
    }
}
