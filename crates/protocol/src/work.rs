//! The work item: what it is, the states it goes through, and the requests about it.

mod completed;
mod evidence;
mod feedback;
mod input;
mod item;
mod lease;
mod query;
mod reason;
mod report;
mod sample;
mod session;
mod submit;
mod usage;

pub use completed::CompleteAnswer;
pub use evidence::{Evidence, ReportedEvidence};
pub use feedback::{Feedback, FeedbackKind};
pub(crate) use item::whole_if_whole;
pub use item::{AssignedAgent, CancelInfo, WorkErrorInfo, WorkItem, WorkResult, WorkStatus};
pub use lease::{
    ClaimAnswer, ClaimRequest, ClaimedItem, CompleteItem, CompleteRequest, FailRequest, Lease,
    LeaseRef, ProgressRequest, ReleaseRequest, StoppedRequest, ThenClaim,
};
pub use query::{
    AgentVerdict, BeingStarted, CancelRequest, ExplainAnswer, IdRequest, ListWorkRequest,
    PurgeAnswer, PurgeRequest, QueueInfo, TargetVerdict,
};
pub use reason::Reason;
pub use report::{CompletedReport, ErrorReport, ReportedError, ReportedResult};
pub use sample::sample_item;
pub use session::Session;
pub use submit::{
    BatchAnswer, ItemAnswer, RESERVED_FIELDS, SubmitAnswer, SubmitRequest, Submitted,
};
pub use usage::{CostSource, Usage};

/// The limits of one item, in bytes. Above them a write is refused with `too-large`.
pub mod limits {
    /// The description.
    pub const DESCRIPTION: usize = 128 * 1024;
    /// `contextData`, as JSON text.
    pub const CONTEXT_DATA: usize = 384 * 1024;
    /// The result: summary, output and artifacts together.
    pub const RESULT: usize = 384 * 1024;
    /// The text of one error.
    pub const ERROR: usize = 2 * 1024;
    /// How many errors an item remembers.
    pub const ERRORS: usize = 10;
    /// How many checks an item remembers, all of one attempt.
    pub const EVIDENCE: usize = 16;
    /// The name of a check.
    pub const CHECK_NAME: usize = 128;
    /// What was run for a check.
    pub const CHECK_COMMAND: usize = 1024;
    /// How much of the end of a check's output is kept.
    pub const OUTPUT_TAIL: usize = 4 * 1024;
    /// How many things a claimed item tells of the attempts before,
    pub const FEEDBACK: usize = 16;
    /// and how much text of them together.
    pub const FEEDBACK_TEXT: usize = 24 * 1024;
    /// How many labels an item may have.
    pub const LABELS: usize = 32;
    /// How many items one request may carry.
    pub const ITEMS: usize = 256;
    /// How many finished items one `work.complete` may carry: what one claim gives.
    pub const COMPLETIONS: usize = CLAIM_MAX as usize;
    /// How many items one claim may ask for.
    pub const CLAIM_MAX: u32 = 64;
    /// The longest a claim may wait, in milliseconds.
    pub const CLAIM_WAIT_MS: u64 = 60_000;
    /// The largest page of a listing.
    pub const PAGE: usize = 1_000;
    /// The page of a listing that names no limit.
    pub const DEFAULT_PAGE: usize = 50;
}

/// The lowest, the usual and the highest priority; higher is served first.
pub const PRIORITY: (u8, u8, u8) = (1, 5, 10);

/// The boundary of agents, targets and work that name none.
pub const DEFAULT_BOUNDARY: &str = "default";
