//! The truth about every work item. Owns: KV `loom-work-{p}`. Writes nowhere else.
//!
//! Every transition is one compare-and-set in the bucket; it counts when the server has
//! acknowledged it, and only then is it answered, shown in the [`ReadModel`] and told as an event.
//!
//! # States
//! | state | what happens | left by |
//! |---|---|---|
//! | *loading* | a task reads the bucket from the last sequence below which everything is known ([`Loading`](crate::supervision::Loading)). Requests wait in the handle, in order, for as long as their callers do; the actors after this one have not been started, or go on with what the read model knows | [`LedgerMsg::Loaded`] → *ready*. A try that fails is made again; a defect is a crash |
//! | *ready* | everything below | [`LedgerMsg::Drain`] |
//! | *draining* | nothing new; answered when nothing is under way, while it loads at once | its end |
//!
//! Up means ready: whoever waits for this actor waits until it knows what was written. The very first reading is what
//! [`ReadModel::ready`] tells of: before it, nothing is called "not found".
//!
//! # States of one item's queue
//! Operations on one item are done one after the other; those on different items side by side, by a
//! [`KeyedWriter`](crate::keyed_writer::KeyedWriter) whose tasks go the whole way from the record (cache or bucket) over the
//! decision ([`Command::decide`](crate::domain::work::Command::decide)) to a known outcome. What follows from the end of a
//! write stands [there](crate::keyed_writer); of it here:
//!
//! | the write ends with | what happens |
//! |---|---|
//! | an acknowledgement | applied: read model, event, answer |
//! | a conflict | decided again on the leader's record, 15 times in a row at most; then the item is contended |
//! | no answer | the same write is repeated until it is known. The item's queue waits; its callers are told `unavailable` by their own deadline |
//! | a refusal of the server | answered `unavailable`; nothing was stored |
//! | a refusal for the record's size | the item ends: what is left of it is written as `failed`, logged, and answered `too-large` |
//!
//! A record that has grown beyond what a message carries ([`Room`](crate::domain::room::Room)) is cut before it is
//! written ([`cut`](crate::domain::work::cut)).
//!
//! # Failure cases
//! - The bucket has no leader, the server stands still, or there is much to read: the actor is loading for that long,
//!   which is no crash. Callers are told `unavailable`, and why, by their own deadline; nothing of theirs is done later.
//! - The actor dies with writes under way: the next incarnation replays the bucket from the last
//!   sequence below which everything is known, once the stream has dealt with what its predecessor
//!   had sent; a gap in what is known that lasts is looked into every second. Callers repeat their request (see
//!   [`ActorHandle::call`](crate::supervision::ActorHandle::call)), and the write id or the fence in the record tells what
//!   has happened already.
//! - NATS goes away: new operations are answered `unavailable` at once, those under way are in
//!   doubt until it is back. After a reconnect the bucket is replayed in the same way.
//! - A record that cannot be read is counted and left alone; its item is none that can be claimed, and whoever names it is
//!   told the key and the revision.
//! - Somebody purges the stream, deletes messages, or limits it: a look every ten seconds (and as soon as the server tells
//!   of a change) sets limits back and finds what is missing, see `inspection`.
//!
//! # Options
//! [`WorkSettings`]: `retention` and `max_finished` bound what is kept of items that have ended; of
//! a failed one from the write that notes its dead letter.

mod acknowledged;
mod actor;
mod batches;
mod cache;
mod carrying_out;
mod demand;
mod events;
mod faults;
mod fitting;
mod handle;
mod header;
mod index;
mod inspection;
mod ledger_error;
mod live_progress;
mod looking;
mod meters;
mod operation;
mod page;
mod pending;
mod progress;
mod read_error;
mod read_model;
mod replay;
mod retention;
mod search;
mod write_context;

pub use actor::{LedgerMsg, WorkLedger, WorkLedgerArgs};
pub use handle::{TRANSITION_DEADLINE, WorkLedgerHandle};
pub use header::{Header, ItemChange, LeaseInfo};
pub use ledger_error::{LedgerError, Outcome};
pub use live_progress::LiveProgress;
pub use looking::LookEnd;
pub use meters::describe as describe_meters;
pub use operation::{Applied, Operation};
pub use page::{Filter, HeaderPage, Start};
pub use pending::PendingNeeds;
pub use read_error::ReadError;
pub use read_model::ReadModel;
pub use replay::read_of;

#[cfg(doc)]
use crate::settings::WorkSettings;
