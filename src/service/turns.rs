//! Requests that cost the processor much, a few at a time, and beside the rest.
//!
//! A page of a thousand items, a body of a megabyte: each keeps a thread busy for milliseconds, and hundreds that are
//! ready at once would keep everything else waiting behind them, the renewal of the ownership and the clocks too. So
//! each of them takes a turn first, of which there are few, and is carried out [aside](Aside): the thread that it keeps is
//! none of those that everything else goes by. A thread and a connection of its own for the renewal would help that
//! alone; this helps every clock and every short request.
//!
//! Bodies have turns of their own, which end when the body was read: only the reading is carried out aside. What is done
//! with it may take as long as NATS does, or the start of a project, and is done where everything else is.
//!
//! What a project reads when it starts is waited for before a turn is taken: a project that is long in starting keeps no
//! turn from the others.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use loom_protocol::{VerbName, WireError};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::{READY_WITHIN, Service};
use crate::access::Allowed;

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

/// How many threads a coordinator works with, beside those for what takes a turn: half of the processors, since the
/// nats-server and the agents want theirs. A request that is passed between threads costs more than one that stays (measured:
/// a fifth of the coordinator's work).
pub fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}

/// Turns for a whole coordinator.
pub(super) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new((threads() - 1).max(1)))
}

#[cfg(test)]
thread_local! {
    static IS_ASIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether this is done [`aside`].
#[cfg(test)]
pub(crate) fn is_aside() -> bool {
    IS_ASIDE.get()
}

/// Does something that takes long without keeping anything else of this thread waiting: that goes on in another one.
pub fn aside<T>(long: impl FnOnce() -> T) -> T {
    #[cfg(test)]
    let long = || {
        let was = IS_ASIDE.replace(true);
        let made = long();
        IS_ASIDE.set(was);
        made
    };
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(long),
        // In the tests of one thread there is no other one.
        _ => long(),
    }
}

/// Something whose steps may take long: each of them is taken [`aside`].
#[derive(Debug)]
#[must_use = "nothing is done before it is awaited"]
struct Aside<F>(Pin<Box<F>>);

impl<F: Future> Aside<F> {
    /// Not begun yet.
    fn new(long: F) -> Self {
        Self(Box::pin(long))
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        aside(|| self.0.as_mut().poll(cx))
    }
}

impl Service {
    /// Makes a long answer in its turn, in the order of asking, once what it is made of has been read.
    ///
    /// # Errors
    /// `unavailable`: the project has not read that in time. `overloaded`: its turn did not come in time. Or what it ends
    /// with.
    pub fn in_turn<T, E: From<WireError>>(
        &self,
        caller: &Allowed,
        long: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        turn_after(&self.0.turns, self.has_read(caller), long)
    }

    /// Waits until the project of a request has read what the answer is made of.
    async fn has_read(&self, caller: &Allowed) -> Result<(), WireError> {
        match caller.verb() {
            VerbName::TargetsList | VerbName::TargetsDisableBatch | VerbName::SpinUpList => {
                self.with_targets(caller).await.map(drop)
            }
            VerbName::WorkList => match self.active(self.project_of(caller))? {
                Some(project) => Ok(project.work.ready(READY_WITHIN).await?),
                None => Ok(()),
            },
            VerbName::DlqList => match self.active(self.project_of(caller))? {
                Some(project) => Ok(project.letters.ready(READY_WITHIN).await?),
                None => Ok(()),
            },
            // Those that read no more than who is there, or have waited by themselves.
            _ => Ok(()),
        }
    }

    /// A turn to read a body in, where it is large enough to need one.
    ///
    /// # Errors
    /// `overloaded`: it did not come in time.
    pub async fn turn_for(&self, body: usize) -> Result<Option<Turn>, WireError> {
        if body < LARGE_BODY {
            return Ok(None);
        }
        turn_of(&self.0.readings).await.map(Some)
    }
}

/// Makes a long answer in a turn, which is taken when `before` has ended: who waits keeps none.
fn turn_after<T, E: From<WireError>>(
    turns: &Arc<Semaphore>,
    before: impl Future<Output = Result<(), WireError>>,
    long: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let long = Aside::new(long);
    async move {
        before.await?;
        let _until_it_is_made = turn_of(turns).await?;
        long.await
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// The long one keeps its thread until another task of the same runtime, which has one thread, has run.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_takes_long_keeps_nobody_waiting() {
        for _ in 0..3 {
            let (done, other_is_done) = mpsc::channel();
            let (begun, has_begun) = tokio::sync::oneshot::channel();
            let long = tokio::spawn(Aside::new(async move {
                let _ = begun.send(());
                other_is_done.recv_timeout(SOON)
            }));
            let other = tokio::spawn(async move {
                let _ = has_begun.await;
                done.send(())
            });
            assert_eq!(long.await.unwrap(), Ok(()));
            other.await.unwrap().unwrap();
        }
    }

    /// One waits for what its project reads; another one takes the only turn meanwhile, and gives it back.
    #[tokio::test]
    async fn who_waits_for_a_project_that_starts_keeps_no_turn() {
        let turns = Arc::new(Semaphore::new(1));
        let (read, is_read) = tokio::sync::oneshot::channel();
        let until_read = async {
            let _ = is_read.await;
            Ok(())
        };
        let waits = turn_after(&turns, until_read, async { Ok::<_, WireError>("waited") });
        let mut waits = std::pin::pin!(waits);
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        let other = turn_after(&turns, async { Ok(()) }, async {
            Ok::<_, WireError>("made")
        });
        assert_eq!(timeout(SOON, other).await.unwrap().unwrap(), "made");
        read.send(()).unwrap();
        assert_eq!(timeout(SOON, waits).await.unwrap().unwrap(), "waited");
    }

    #[tokio::test]
    async fn what_a_project_could_not_read_takes_no_turn_at_all() {
        let turns = Arc::new(Semaphore::new(1));
        let _taken = turn_of(&turns).await.unwrap();
        let unread = async { Err(WireError::unavailable("not read", RETRY_AFTER)) };
        let made = turn_after(&turns, unread, async { Ok::<(), WireError>(()) });
        let refused = timeout(SOON, made).await.unwrap().unwrap_err();
        assert!(refused.message.contains("not read"), "{refused}");
    }

    #[tokio::test]
    async fn where_there_is_one_thread_it_is_done_there() {
        assert_eq!(Aside::new(async { aside(|| 7) }).await, 7);
    }

    /// A panic of what is done aside is one of its task, and harms nobody else.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_panic_aside_is_a_panic_of_its_task() {
        let panics = tokio::spawn(Aside::new(async { panic!("a defect") }));
        assert!(panics.await.is_err_and(|error| error.is_panic()));
        assert_eq!(tokio::spawn(Aside::new(async { 7 })).await.unwrap(), 7);
    }
}
