//! Runs the liveness clock: gives the dead one's work back, buries it, tells ghosts, sends idle ones
//! home. Owns: KV `loom-graveyard-{p}`. Writes nowhere else: the AgentRegistry writes the agent, the
//! WorkLedger its items, the TargetManager ends its process.
//!
//! Nobody is declared dead without the [`DeliveryBarrier`](crate::liveness::DeliveryBarrier), and nobody else
//! declares it: the verdicts are in [`domain::reaping`](crate::domain::reaping). Clocks run on the
//! monotonic clock from the last sign of life, or from the last [`StallGuard`](crate::liveness::StallGuard)
//! where that is later. Only the burial goes by the time of day (`lastHeartbeat`), because it has to
//! outlive this process; it costs a dead agent nothing but its entry.
//!
//! # States of an agent, as the reaper sees it
//! | state | means | left by |
//! |---|---|---|
//! | watched | its deadline stands in the one timer; a sign of life is noticed only when that is over | deadline over: watched anew, or suspect |
//! | suspect | silent for too long, as it seems: a pass of the barrier is under way | passed and still silent: in hand · heard of: watched |
//! | in hand | something is being done to it: marked offline and its leases taken back, buried, ordered home | done or failed: watched |
//!
//! An agent that was born from a target is its target's for as long as its process may live. One that is offline has
//! `idle_grace` more to be heard of; then its target ends its process, so that a dead one neither keeps the place of its
//! successor nor comes back beside it. That it has gone, the TargetManager sees by itself.
//!
//! # Idle agents
//! ```text
//! idle for long enough, nothing pending that it may take
//!   ─► the dispatcher offers it nothing for a moment, unless it has something to do after all
//!   ─► the registry orders it to end, unless that moment is over or it has an item
//!   ─► (not gone within its grace) ordered to end at once ─► (born from a target) its process is ended
//! ```
//! So no claim and no order to end cross: what was claimed before is seen by the dispatcher, what is claimed afterwards
//! gets nothing. Nothing has to be taken back where a step is lost: the moment passes by itself.
//!
//! A stall while there are suspects: passes are repeated until one succeeds, then everybody has a
//! full grace. An offline agent is watched until it is buried.
//!
//! # Messages
//! | message | from | effect |
//! |---|---|---|
//! | agent changed | directory | a new one is watched; one that says goodbye loses its leases; a grave is cleared |
//! | look due | timer | whoever's deadline is over is looked at |
//! | crossed | own task | suspects are judged again |
//! | done | own task | the agent is watched again |
//! | ghost heard | handle (a request of nobody known) | has it a grave: the directive `register` |
//! | graves read | own task | the guids of all graves are known |
//! | report, sweep | handle | what is to come; everybody is looked at now, answered when all is done |
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | NATS away, stopped, slow; this process or that one paused | nobody is marked: the barrier does not pass; then a full grace |
//! | this process starts | it has heard of nobody before: a full grace |
//! | this actor crashes | signs of life and the grace survive it; everybody is looked at again |
//! | it crashes between the marking and the taking back | an offline agent with leases is marked again |
//! | leases cannot be taken back just now | tried again after a second |
//! | the agent comes back between verdict and deed | the registry refuses; what it claimed since stays its own |
//! | an idle agent claims while it is to be sent home | it gets its item, and no order; or the order, and no item |
//! | a grave cannot be written | the leases go back all the same; the burial waits |
//! | an agent without an entry is heard of | `not-registered`, and the directive where it has a grave |
//! | more than [`MAX_GRAVES`] graves | the oldest are in the bucket only: those ghosts get no directive |
//!
//! Events: none of its own; the registry tells `agent:updated` and `agent:shutdown`, the ledger
//! `work:retried`.

mod actions;
mod actor;
mod grave_index;
mod graveyard;
mod handle;
mod inspection;
mod reap_action;
mod report;

pub use actor::{GcReaper, GcReaperArgs, GcReaperMsg, Withhold};
pub use grave_index::MAX_GRAVES;
pub use handle::GcReaperHandle;
