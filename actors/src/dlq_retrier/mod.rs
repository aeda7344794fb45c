//! Dead letters: written, kept, listed, put back (by hand and by schedule), discarded.
//! Owns: stream `LOOM_DLQ_{P}`. Writes nowhere else; what changes in an item it asks the ledger for.
//!
//! # A letter's life
//! ```text
//!   ledger: failed ──► publish to loom.{p}.dlq.{id} ──► ledger: the letter is noted (now a TTL runs)
//!                                                            │
//!        ledger: pending ◄── retry (by hand, by schedule) ◄──┼──► discard: deleted by sequence;
//!             │                                              │    the record stays failed until its TTL
//!             └──► deleted by sequence                       └──► expired by age, counted
//! ```
//! Which letter belongs to which failure: a letter carries how often its item had been put back
//! (`retries`) and when it failed. One message per subject; a letter is published on condition of the
//! last one of its subject, so that there is never a second one.
//!
//! # States
//! *Reading* the heads of all letters (at a start, after a reconnect, after a publish without an
//! answer), then *at work*. Requests and new letters wait while it reads. One batch of new letters is
//! under way at a time (`BATCH` at the most, some of them side by side); what is to be
//! written is not queued here but read off the ledger's read model, so a hundred thousand failures
//! cost nothing but time. Once a second: letters that are due, expired or outdated.
//!
//! # Messages
//! See [`DlqMsg`]. The read model tells of items that want a letter, and of items that live although
//! there is a letter.
//!
//! # Failure cases
//! | what happened | what comes of it |
//! |---|---|
//! | died after `failed`, before the publish | the record has no noted letter: published at the next start |
//! | died after the publish, before the note | the letter of this very failure is there: only noted |
//! | the item was put back between publish and note | the note is refused; the letter is deleted by its sequence |
//! | died after `pending`, before the delete | a letter whose item is not failed is outdated: deleted |
//! | a letter whose record has expired | kept: a retry creates the record again, one above the letter's fence |
//! | a failed record whose noted letter is gone | it was discarded or has expired: nothing is done, the record's TTL runs |
//! | an id was submitted anew after its record expired | the new item counts; the letter of the old one is outdated |
//! | died between the note and the delete of a discard | the letter is still there; whoever discarded it was not answered |
//! | the publish had no answer | it is repeated on the same condition; a conflict shows whether the first one was stored |
//! | a copy arrives late | the condition, or its message id, drops it |
//! | NATS away | batches and requests fail, are repeated every second, and go on when it is back |
//! | a letter that cannot be read | left alone and counted |
//!
//! # Options
//! [`DlqSettings`]: `retention` (of the stream), `auto_retry`, `auto_retry_reasons`,
//! `auto_retry_after` (doubles with each), `auto_retry_max`. The schedule is computed from the
//! letters, so it goes on after a restart.

mod actor;
mod chores;
mod handle;
mod index;
mod letters;
mod orders;
mod publish_batch;

pub use actor::{DlqMsg, DlqRetrier, DlqRetrierArgs};
pub use handle::DlqRetrierHandle;
pub use index::{LetterFilter, LetterInfo, LetterPage};
pub use letters::{DeadLetters, LetterError};
pub use orders::RetryBatch;

#[cfg(doc)]
use crate::settings::DlqSettings;
