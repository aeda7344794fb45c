//! Who restarts whom, and handles that survive it. Knows nothing of agents or work: any ractor actor fits in.
//!
//! ```text
//! Root ──► ProjectTree "p1" ──► child, child, child      (one tree per project, started and stopped at run time)
//!     └──► ProjectTree "p2" ──► …
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! use loom_supervision::{ActorHandle, ChildSpec, RestartPolicy, Root, TreeSpec};
//! use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
//!
//! struct Counter;
//!
//! impl Actor for Counter {
//!     type Msg = RpcReplyPort<u64>;
//!     type State = u64;
//!     type Arguments = u64;
//!
//!     async fn pre_start(&self, _: ActorRef<Self::Msg>, start: u64) -> Result<u64, ActorProcessingErr> {
//!         Ok(start)
//!     }
//!
//!     async fn handle(
//!         &self,
//!         _: ActorRef<Self::Msg>,
//!         reply: Self::Msg,
//!         count: &mut u64,
//!     ) -> Result<(), ActorProcessingErr> {
//!         *count += 1;
//!         let _ = reply.send(*count);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let counter = ActorHandle::new("counter");
//! let policy = RestartPolicy::default();
//! let child = ChildSpec::actor("counter", counter.clone(), policy.clone(), || (Counter, 40));
//! let root = Root::start("example").await?;
//! root.start_tree(TreeSpec::new("p1", policy).child(child)).await?;
//!
//! let within = Duration::from_secs(5);
//! assert_eq!(counter.call(within, |reply| reply).await?, 41);
//! assert_eq!(counter.call(within, |reply| reply).await?, 42);
//! counter.kill();
//! assert_eq!(counter.call(within, |reply| reply).await?, 41, "a new one, and nobody had to ask twice");
//! root.shutdown(within).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # States
//! A tree decides about its actors, and the root about its trees, by the same pure state machine (`child`: every event in
//! every state, and what follows). What an exhaustion leads to is its argument: an actor's ends the tree, a tree's parks it.
//!
//! | of an actor | means | its handle |
//! |---|---|---|
//! | idle | waits until all before it are up (first start) | waits |
//! | pausing | crashed; backs off; the former incarnation is made sure to have ended | waits |
//! | starting | `pre_start` runs, in a task of its own, at the most for `start_timeout` | waits |
//! | loading | `pre_start` has ended; loads what it works with, for as long as it takes ([`Loading`]); a child without [`ChildSpec::loads_after_start`] is up at once | waits, and says why it is not loaded yet |
//! | up | works | sends |
//!
//! | of a tree | means | [`TreeState`] |
//! |---|---|---|
//! | loading, up | its actor runs; its children are as above, and all of them up or not | `Starting`, `Running`, `Restarting` |
//! | pausing | its actor has ended, backs off | `Starting`, `Restarting` |
//! | parked | exhausted: pauses, from `backoff_max` on and doubling up to 1 minute; handles answer [`CallError::Parked`] | `Parked`, with the time of the next try |
//! | on trial | parked, and its actor runs again: handles wait; up, it is as any other, one more crash parks it | `Parked`, without one |
//! | stopping | drains by request, then it is gone and forgotten; handles answer [`CallError::Stopped`] | `Stopping` |
//!
//! # Messages
//! Nothing here waits inside a handler. Starting, backing off, stopping and draining run in tasks that belong to the
//! state (they end with it), and every outcome comes back as a message that carries the number of its attempt: a
//! late outcome of an attempt that has been given up is ignored, and its actor is killed.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | panic, `Err` from `handle` | `ActorFailed`: crash |
//! | kill, cancelled task, `stop` that nobody here asked for | `ActorTerminated`: crash |
//! | `pre_start` fails or panics | comes back as the outcome of the start (ractor sends no event): crash |
//! | loading takes long, or fails | no crash: it goes on, and is tried again (100 ms to 5 s); children after it wait; the reason stands in the log once, in [`TreeStatus::last_failure`] and in [`CallError::Down`] |
//! | loading meets a defect (a panic) | the actor ends with an error: crash |
//! | `pre_start` hangs | killed after `start_timeout`: crash; the supervisor goes on listening |
//! | the former incarnation does not end (blocks its thread) | no second one beside it: crash after `start_timeout` |
//! | crash | `RestartPolicy`: pause, then start that child alone again |
//! | crashes beyond `max_restarts` in the window | the tree stops its children in reverse order and ends with an error |
//! | a tree ends with an error, panics or is killed | the same policy one level up: pause and start, or park |
//! | a parked tree is called, or started | tried at once, at the earliest 1 s after it was parked (a start: without that second) |
//! | a parked tree comes up | it has all of its restarts again; the pauses begin anew when it was up for a whole window |
//! | a child ends during a pause, an unknown actor ends | ignored |
//! | the root ends | ractor kills the trees, each tree kills its children; [`RootHandle::ended`] resolves |
//!
//! Memory is bounded: per tree its specification and one history of at the most `max_restarts` crashes per child.

mod child;
mod control;
mod drain;
mod handle;
mod held;
mod jitter;
mod loading;
mod messages;
mod policy;
mod root;
mod spec;
mod status;
mod tree;

pub use handle::{ActorHandle, CallError};
pub use jitter::Jitter;
pub use loading::{Defect, Loading};
pub use policy::{RestartHistory, RestartPolicy, RestartVerdict};
pub use root::{Root, RootHandle, StartError, StopError};
pub use spec::{ChildSpec, TreeSpec};
pub use status::{ChildStatus, TreeState, TreeStatus};
