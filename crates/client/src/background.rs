//! A thread of the client's own for the connection and the agent's housekeeping.
//!
//! A handler that blocks its thread must not stop heartbeats, on whatever runtime the caller lives.
//! So the connection and everything that keeps an agent alive run on a small runtime of their own.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{ClientError, ErrorKind};

/// Ends with its last clone, and everything on it.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    handle: Handle,
    _end: Arc<oneshot::Sender<()>>,
}

impl Background {
    pub(crate) fn start() -> Result<Self, ClientError> {
        let failed = |e: &std::io::Error| {
            ClientError::new(
                ErrorKind::Connect,
                format!("the client's own thread could not be started: {e}"),
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(&e))?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("loom-client".into())
            .spawn(move || {
                // The sender is only ever dropped: that is the signal.
                let _ = runtime.block_on(ended);
            })
            .map_err(|e| failed(&e))?;
        Ok(Self {
            handle,
            _end: Arc::new(end),
        })
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.handle.spawn(task)
    }
}
