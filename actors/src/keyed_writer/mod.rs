//! One way to write what stands under many keys: a queue and at most one task for each key.
//!
//! An actor that owns a bucket has a [`KeyedWriter`]. It pushes requests, begins what [`KeyedWriter::next_turn`] gives it, and
//! takes the outcome of a task from a message to itself. What is read, decided and written is the actor's own; the order,
//! the bounds, the tasks and what follows from how a write has ended are here, once.
//!
//! # States of a key
//! | state | means | left by |
//! |---|---|---|
//! | at rest | nothing is kept of it, and it costs nothing | a request, a chore |
//! | in line | it has a request (*urgent*: somebody waits) or only a chore (*idle*: nobody does) | its turn: [`KeyedWriter::next_turn`] |
//! | under way | one task reads or writes it; what comes meanwhile waits behind | its message: [`KeyedWriter::finish`], or [`KeyedWriter::ended`] for one more turn |
//!
//! Requests of one key are done in the order in which they came; keys side by side. Urgent keys have their turn before idle
//! ones, both in the order in which they came into line. A chore is not counted: asked for twice before its turn it is one.
//! One that is asked for during a task has a turn after it.
//!
//! # A turn
//! At its turn the actor looks at the first request of the key ([`KeyedWriter::first`]), and either begins a task
//! ([`KeyedWriter::begin`]) or takes the request out and answers it ([`KeyedWriter::take_first`]); then the next one has its
//! turn. A task is one step, after which the actor decides anew (the AgentRegistry, whose decisions need what a watch tells it
//! meanwhile), or the whole way from the reading to a known outcome, [`carry_out`] (the WorkLedger: no hop through the mailbox
//! between the steps). Its first step is taken at once, so that writes are sent in the order in which they were begun.
//!
//! # What follows from the end of a write
//! One table, [`AfterWrite`], for both kinds of task:
//!
//! | the write ends with | what is known | what follows |
//! |---|---|---|
//! | an acknowledgement | stored | answered |
//! | a conflict | something else is stored, or an earlier try of mine | the leader is asked; my write id says it is mine: stored; else the decision is made again on what is there, at most so often in a row ([`Conflicts`]) |
//! | no answer | *in doubt* | nothing is assumed and nothing else is written under the key: again after a pause, until it is known |
//! | the store is not known to be the right one just now | not sent, or not believed | again after a pause |
//! | a refusal (no room, too large, another store, the ownership may be over) | not stored, and it never will be | answered; of a write that was in doubt before, a refusal for want of room says nothing of the earlier try: in doubt |
//!
//! # Bounds
//! [`Bounds`]: how many tasks there are at once, how many requests wait for one key, and how many in all. What is too much is
//! given back with the reason ([`Rejected`]), to be answered at once. Chores need no bound: each key has one at the most.
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | a task panics | its message comes all the same, with [`Panicked`] as its outcome: the key goes on, and whether something was stored is not known |
//! | the actor dies | its tasks die with it, its requests with their reply ports; callers ask its successor, who reads before it writes |
//! | the ownership is lost | the writes are refused before they are sent; what waits is refused at its turn |
//! | there is no bucket | a refusal or a decision of the actor's; the writer knows of no bucket |
//! | the actor drains | nothing new is taken ([`Rejection::Draining`]); chores are, for what is to be written at the end. Answered by [`KeyedWriter::next_turn`] when every key is at rest |
//! | a task that never ends | its key waits, others do not; it counts against the tasks at once. Whoever begins it bounds it |
//! | a turn in which nothing is begun and nothing taken out | a defect of the actor's: its request waits until another one comes |
//!
//! # A new actor
//! A shelf of labels, whose store is a map; a conflict is decided again.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
//!
//! use loom_actors::keyed_writer::{Bounds, KeyedWriter, Panicked};
//! use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
//!
//! type Store = Arc<Mutex<HashMap<u32, String>>>;
//!
//! struct Relabel {
//!     to: String,
//!     reply: RpcReplyPort<Result<(), String>>,
//! }
//!
//! enum Msg {
//!     /// Answered when it is stored.
//!     Relabel(u32, Relabel),
//!     /// A write that this actor began has ended.
//!     WriteEnded(u32, Result<(), Panicked>),
//!     /// Answered when nothing is under way.
//!     Drain(RpcReplyPort<()>),
//! }
//!
//! struct Shelf;
//!
//! struct State {
//!     store: Store,
//!     writer: KeyedWriter<u32, Relabel, Msg>,
//! }
//!
//! impl Actor for Shelf {
//!     type Msg = Msg;
//!     type State = State;
//!     type Arguments = Store;
//!
//!     async fn pre_start(&self, me: ActorRef<Msg>, store: Store) -> Result<State, ActorProcessingErr> {
//!         let bounds = Bounds { tasks: 256, requests_of_a_key: 16, requests: 4_096 };
//!         Ok(State { store, writer: KeyedWriter::new(me, bounds) })
//!     }
//!
//!     async fn handle(&self, _me: ActorRef<Msg>, msg: Msg, state: &mut State) -> Result<(), ActorProcessingErr> {
//!         match msg {
//!             Msg::Relabel(shelf, request) => {
//!                 if let Err(rejected) = state.writer.push(shelf, request) {
//!                     let _ = rejected.request.reply.send(Err(rejected.why.to_string()));
//!                 }
//!             }
//!             Msg::WriteEnded(shelf, outcome) => {
//!                 if let Some(done) = state.writer.finish(&shelf) {
//!                     let _ = done.reply.send(outcome.map_err(|panicked| panicked.to_string()));
//!                 }
//!             }
//!             Msg::Drain(reply) => state.writer.drain(reply),
//!         }
//!         // Begins what can be begun; after each message, as any of them may have made room.
//!         while let Some(shelf) = state.writer.next_turn() {
//!             let Some(request) = state.writer.first(&shelf) else { continue };
//!             let (store, to) = (state.store.clone(), request.to.clone());
//!             let write = async move { drop(store.lock().map(|mut store| store.insert(shelf, to))) };
//!             state.writer.begin(shelf, (), write, move |outcome| Msg::WriteEnded(shelf, outcome));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main] async fn main() {
//! let store = Store::default();
//! let (shelf, ended) = Actor::spawn(None, Shelf, store.clone()).await.unwrap();
//! let relabel = |reply| Msg::Relabel(7, Relabel { to: "maps".to_owned(), reply });
//! let stored = shelf.call(relabel, None).await.unwrap().unwrap();
//! assert_eq!((stored, store.lock().unwrap()[&7].as_str()), (Ok(()), "maps"));
//! shelf.call(Msg::Drain, None).await.unwrap().unwrap();
//! let late = |reply| Msg::Relabel(7, Relabel { to: "atlases".to_owned(), reply });
//! assert!(shelf.call(late, None).await.unwrap().unwrap().is_err());
//! # shelf.stop(None); ended.await.unwrap(); }
//! ```

mod cycle;
mod lanes;
#[cfg(test)]
mod tests;
mod writer;

pub use cycle::{AfterWrite, Conflicts, Decided, Found, Transition, carry_out};
pub use lanes::{Bounds, Rejected, Rejection};
pub use writer::{KeyedWriter, Panicked};
