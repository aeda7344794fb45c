//! Requests that cost the processor much, a few at a time.
//!
//! A page of a thousand items, a body of a megabyte: each keeps a thread busy for milliseconds, and hundreds that are
//! ready at once would keep everything else waiting behind them, the renewal of the ownership and the clocks too. So
//! each of them takes a turn first; there is one less than the coordinator has threads, so that one of these is always
//! for the rest. A thread and a connection of its own for the renewal would help that alone; this helps every clock and
//! every short request.
//!
//! Bodies have turns of their own, which end when the body was read: what is done with it may take as long as NATS does, or
//! the start of a project.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::WireError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Service;

/// From which size on a body is read in a turn, in bytes.
pub const LARGE_BODY: usize = 64 * 1024;
/// How long a request waits for its turn before it is refused with `overloaded`.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// When a refused one may be sent again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A turn, for as long as it is kept.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// How many threads a coordinator works with: half of the processors, since the nats-server and the agents want theirs,
/// and a request that is passed between threads costs more than one that stays (measured: a fifth of the coordinator's
/// work). But two at least: beside a request that keeps one of them busy the rest goes on.
pub fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(2)
}

/// Turns for a whole coordinator.
pub(super) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(threads() - 1))
}

impl Service {
    /// Waits for a turn to make a long answer in, in the order of asking. It is kept until that is made.
    ///
    /// # Errors
    /// `overloaded`: it did not come in time.
    pub async fn turn(&self) -> Result<Turn, WireError> {
        turn_of(&self.0.turns).await
    }

    /// A turn to read a body in, where it is large enough to need one.
    ///
    /// # Errors
    /// As there.
    pub async fn turn_for(&self, body: usize) -> Result<Option<Turn>, WireError> {
        if body < LARGE_BODY {
            return Ok(None);
        }
        turn_of(&self.0.readings).await.map(Some)
    }
}

async fn turn_of(turns: &Arc<Semaphore>) -> Result<Turn, WireError> {
    match timeout(TURN_WITHIN, turns.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
        _ => Err(WireError::overloaded(
            "too many long requests are under way; try again a little later",
            RETRY_AFTER,
        )),
    }
}
