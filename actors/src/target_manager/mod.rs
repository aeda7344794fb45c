//! Knows where agents can be started: the targets of a project.
//! Owns: KV `loom-targets-{p}`. Writes nowhere else.
//!
//! Reads go to the [`TargetDirectory`], which survives the actor. What is written is decided on the record as it is known
//! and stored by one compare-and-set, one at a time for each name (`keyed_writer`). A name is there once, in whatever case,
//! because the key is the name in lower case and a registration is written on the condition that nothing is there.
//!
//! The bucket is made with the first target. The actor of a project without one asks for it once, and has nothing to do.
//!
//! # Messages
//! | message | from | effect |
//! |---|---|---|
//! | loaded | own task | the directory is what the bucket holds; the actor is up |
//! | carry out | handle | queued by name, then decided and written; answered when it is durable |
//! | done | own task | the directory has it, whoever waits is answered, listeners are told |
//! | reload due | own task, after a reconnect | the bucket is read again, if there is one |
//! | drain | supervisor | nothing new; answered when nothing is under way |
//!
//! # Failure cases
//! | case | what happens |
//! |---|---|
//! | two registrations of one name at once, in whatever case | one is stored; the other finds it there: `already-exists` |
//! | the actor dies during a write | the request is sent again to its successor, which has read the bucket: a registration is recognised by its id, a removal is done already |
//! | the coordinator dies during a write | it is stored or not; whoever asked has no answer, and sees it in the list |
//! | a write without an answer | repeated until it is known; the write id tells mine from another one |
//! | the record was changed meanwhile | decided again on what is there, at most 15 times in a row |
//! | a record cannot be read | left alone, counted, listed nowhere; its name stays taken |
//! | the bucket was destroyed | made again by the next registration; what was in it is gone with it |
//! | NATS away | reads go on; a change is `unavailable`, and may happen all the same |
//! | as many targets as may be | `too-large` |
//!
//! Events: `target:registered`, `target:updated` (enabled too), `target:disabled`, `target:removed`.

mod actor;
mod birth_command;
mod birth_step;
mod births;
mod bucket;
mod change;
mod command;
mod directory;
mod handle;
mod key;
mod launching;
mod linked;
mod mechanism;
mod news;
mod operations;
mod page;
mod planning;
mod recovery;
mod terms;
mod tidying;
mod trigger;

pub use actor::{TargetManager, TargetManagerArgs, TargetMsg};
pub use birth_command::BirthCommand;
pub use birth_step::{BirthStep, BirthStepHook};
pub use command::{Command, Outcome};
pub use directory::{LinkedTo, TargetDirectory, TargetView};
pub use handle::{Redeemed, TargetManagerHandle};
pub use mechanism::{
    AgentEnd, FailureKind, Found, Mechanism, Mechanisms, NoMechanisms, Probe, Start, StartFailure,
    Started, Stopped,
};
pub use operations::{MOST_OPERATIONS, OperationFilter, OperationsFound};
pub use page::TargetsFound;
pub use terms::BirthTerms;
pub use trigger::{AgentToEnd, Trigger};

/// How many targets a project may have.
pub const MOST_TARGETS: usize = 512;

/// After how long a client that was turned away should ask again.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// What a mechanism finds a start again by; of no interest to anybody else.
pub(crate) type Reference = serde_json::Value;
/// An operation that is decided, as it is kept here.
pub(crate) type Ended = crate::domain::targets::DecidedBirth<Reference>;
/// A target as it is kept here.
pub(crate) type Record = crate::domain::targets::TargetRecord<Reference>;
