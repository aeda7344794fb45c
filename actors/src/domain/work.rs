//! The work item as the ledger holds it: its record, its transitions, its submission.
//!
//! ```text
//!   (none) ── submitted ──► pending ── assign ──► assigned ── start ──► in-progress
//!                              ▲                     │ │                   │  │
//!                              ├──── give_back ◄─────┘ └───── complete ────┼──┴► completed
//!                              └──── fail, attempts left ◄─────────────────┤
//!                                                        attempts spent ───┴───► failed
//!   pending, assigned, in-progress ── cancel ──► cancelled       failed ── retry ──► pending
//! ```

mod cancellation;
mod codec;
mod command;
pub mod cut;
mod dead_letter;
mod feedback;
mod loss;
mod record;
mod report;
mod returns;
mod run_report;
mod submission;
mod transition;
mod usage;
mod view;

pub use codec::{RecordError, decode, encode};
pub use command::{Command, Decision, FailureReport, Fence, Refusal};
pub use feedback::feedback;
pub use record::{
    EndedLease, Holder, LeaseEnd, LeaseRecord, Loss, RawSubmission, WorkRecord, WriteId,
};
pub use report::{accept_failure, accept_result};
pub use run_report::RunReport;
pub use submission::{Defaults, Submission, accept};
pub use usage::within_attempt;

pub(crate) use view::total_usage;
pub use view::{Bodies, view};

#[cfg(test)]
pub(crate) use transition::tests;

/// How often an item may come back without having been started, and how often it may be released,
/// before each further time spends an attempt.
pub const FREE_RETURNS: u8 = 5;
