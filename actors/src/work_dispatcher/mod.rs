//! Matches pending work with claims, and takes in what is published. Owns: stream `LOOM_WORK_{P}`.
//! Writes nowhere else: transitions are the ledger's.
//!
//! # State
//! - The queue: every pending item by its needs, in the order of
//!   priority and creation; those with a `notBefore` apart. Rebuilt from the read model at start, which needs no
//!   network: the ledger has been loaded once before this actor is started.
//! - Open claims: *filling* (assignments are being written), *parked* (waiting for an item or for a
//!   free slot), answered (gone). At most one parked claim per agent; a newer one replaces it.
//! - Agents that are about to be told to go: withheld for a moment, in which nothing is offered to them, so that a claim
//!   and the order cannot cross.
//! - Slots of an agent = its leases in the read model + assignments being written + cancelled items
//!   whose agent has not said that it stopped.
//!
//! # An item
//! in the queue → taken out for a claim → the ledger writes → its outcome, which is all that is heard of an
//! assignment of one's own; every other change is told by the read model. When the
//! write is refused, what the read model says then counts; while its outcome is unknown the item is
//! neither in the queue nor answered.
//!
//! A claim may name leases that were taken from its agent (`resume`): of these, what is in the queue at
//! the attempt named is taken out first. Whether that attempt was this agent's is the ledger's to say;
//! where it says no, the item is back in the queue and the claim goes on without it. A late completion
//! of such an item is heard from the read model like every end, and takes it out of the queue; a claim
//! that has it in hand then meets the refusal of the ledger and goes on.
//!
//! # Failure cases
//! - The stream has no leader, or cannot be made: claims are served all the same. The intake makes and opens the stream
//!   in a task of its own, again and again until it can; the reason is logged once.
//! - This actor dies: callers repeat their claim with the same claim id; assignments that were
//!   written meanwhile are found by it.
//! - The ledger dies with an assignment under way: the item goes back into the queue if the read
//!   model still calls it pending; a claim that takes it then meets the truth in the ledger.
//! - This actor dies, and an assignment that it had sent is written only when its successor has
//!   answered the claim with other items: the agent's next claim gives what it was not told of.
//! - An answer gets lost on its way to the agent: the same claim id gives the same items.
//!
//! # Leases
//! Each has one clock: the start clock while it is assigned, the progress clock from its start. What
//! is heard goes into the read model and resets nothing here; when the clock rings, the read
//! model and the [grace](crate::liveness::StallGuard) say whether it is really over
//! ([`domain::lease`](crate::domain::lease)).
//!
//! | a lease | left by |
//! |---|---|
//! | kept: its clock is armed | its end; its clock rings |
//! | out of time: nothing is done before a barrier that begins now | passed: judged again, then taken back · stalled: kept, with a full grace |
//! | being taken back: its clock is armed for another look | the write · refused or impossible: the other look |
//!
//! The agent of a lease that was taken back is told by a directive, once; then by `lost` in the
//! answers to its heartbeats, and by the refusal of its next report.
//!
//! # Published work
//! Two durable consumers, so that a million submissions don't delay the completions. Each outcome
//! has one acknowledgement:
//!
//! | outcome | acknowledgement |
//! |---|---|
//! | written, or was written before | `ack` |
//! | refused for ever: stale, ended, unknown item | `ack`, counted and logged |
//! | unreadable or breaking a rule | `ack` after a `failed` item with its bytes was written |
//! | about a damaged record | `nak` with a delay; the fifth time `ack`: reports are logged, of submissions a `failed` item keeps the bytes |
//! | not possible just now | `nak` with a delay |
//!
//! The stream may be a client's, with consumers of its own: where one of them takes what a consumer of ours would, that
//! is said once and left to it, until it is gone ([`domain::foreign`](crate::domain::foreign)). Nothing else here
//! depends on the stream.

mod actor;
mod args;
mod assignment;
mod claims;
mod env;
mod handle;
mod intake;
mod item_deadlines;
mod lease_clocks;
mod matching;
mod messages;
mod queue;
mod redelivery;
mod slots;
mod stream;
mod unacknowledged;
mod under_assignment;

pub use actor::WorkDispatcher;
pub use args::WorkDispatcherArgs;
pub use claims::{Admission, Claim, ClaimError};
pub use handle::WorkDispatcherHandle;
pub use intake::describe_meters;
pub use messages::{DispatcherMsg, QueuePosition};
pub use queue::{PendingQueue, Pick};
pub(crate) use stream::PROJECT_KEY;
pub use stream::{StreamError, ensure_stream, reports_consumer};
