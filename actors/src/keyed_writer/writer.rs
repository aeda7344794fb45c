//! The lanes, with the tasks of an actor.

use std::hash::Hash;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use ractor::{ActorRef, Message, RpcReplyPort};
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;

use super::lanes::{Bounds, Lanes, Rejected, Rejection};

/// A task has panicked: whether something was stored is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its task panicked")]
pub struct Panicked;

/// A queue and at most one task for each key, of an actor with messages `M`. `R` is what is asked for, and `W` what the actor
/// remembers of a task while it is under way. What it promises stands in the [module](super).
pub struct KeyedWriter<K, R, M, W = ()> {
    lanes: Lanes<K, R, W>,
    actor: ActorRef<M>,
    /// They end with the actor.
    tasks: JoinSet<()>,
    /// Who waits for the end of what is under way; nothing new begins.
    draining: Option<Vec<RpcReplyPort<()>>>,
}

impl<K: Copy + Eq + Hash, R, M: Message, W> KeyedWriter<K, R, M, W> {
    /// Without requests.
    pub fn new(actor: ActorRef<M>, bounds: Bounds) -> Self {
        Self {
            lanes: Lanes::new(bounds),
            actor,
            tasks: JoinSet::new(),
            draining: None,
        }
    }

    /// Takes a request, behind those that came before it.
    ///
    /// # Errors
    /// The request, which was not taken, and why.
    pub fn push(&mut self, key: K, request: R) -> Result<(), Rejected<R>> {
        if self.is_draining() {
            let why = Rejection::Draining;
            return Err(Rejected { request, why });
        }
        self.lanes.push(key, request)
    }

    /// The key has something to do that nobody waits for: it has a turn when there is time.
    pub fn ask_for_chore(&mut self, key: K) {
        self.lanes.ask_for_chore(key);
    }

    /// The next key whose turn it is, to begin a task or to take requests out. To be asked after each message until there
    /// is none: then nothing can be begun just now, and whoever waits for the end has been answered if that has come.
    pub fn next_turn(&mut self) -> Option<K> {
        let next = self.lanes.next_turn();
        if next.is_none()
            && self.lanes.is_at_rest()
            && let Some(waiting) = &mut self.draining
        {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
        next
    }

    /// The request of the key that is first: the one that is under way, or next.
    pub fn first(&self, key: &K) -> Option<&R> {
        self.lanes.first(key)
    }

    /// Takes the first request of the key out, to be answered; the next one has a turn.
    pub fn take_first(&mut self, key: &K) -> Option<R> {
        self.lanes.take_first(key)
    }

    /// Begins a task for the key. What comes of it is told to the actor by a message, also if it panics. Its first step is
    /// taken at once. A key that has a task keeps that one: this one is not begun, and logged as the defect that it is.
    pub fn begin<T: Send + 'static>(
        &mut self,
        key: K,
        what: W,
        work: impl Future<Output = T> + Send + 'static,
        message: impl FnOnce(Result<T, Panicked>) -> M + Send + 'static,
    ) {
        if !self.lanes.begin(key, what) {
            tracing::error!("a second task for one key was not begun; please report this");
            return;
        }
        let actor = self.actor.clone();
        let mut work = Box::pin(async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            let _ = actor.send_message(message(outcome.map_err(|_| Panicked)));
        });
        if unconstrained(work.as_mut()).now_or_never().is_none() {
            self.tasks.spawn(work);
        }
    }

    /// What is under way for the key.
    pub fn under_way(&self, key: &K) -> Option<&W> {
        self.lanes.under_way(key)
    }

    /// The message of the key's task has come. Its first request stays where it is, and the key has another turn.
    pub fn ended(&mut self, key: &K) -> Option<W> {
        self.reap();
        self.lanes.ended(key)
    }

    /// The same, and the first request of the key has its outcome: it is taken out, to be answered. `None` where the key had no
    /// task or no request.
    pub fn finish(&mut self, key: &K) -> Option<R> {
        self.reap();
        self.lanes.finish(key)
    }

    /// Takes nothing new, and answers when every key is at rest.
    pub fn drain(&mut self, reply: RpcReplyPort<()>) {
        self.draining.get_or_insert_default().push(reply);
    }

    /// Whether nothing new is taken.
    pub const fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// How many requests wait or are under way.
    pub const fn requests(&self) -> usize {
        self.lanes.requests()
    }

    /// Whether the key has no request, no chore and no task.
    pub fn is_at_rest(&self, key: &K) -> bool {
        self.lanes.is_key_at_rest(key)
    }

    fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }
}
