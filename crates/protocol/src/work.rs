//! The work item: what it is, the states it goes through, and the requests about it.

mod completed;
mod input;
mod item;
mod lease;
mod query;
mod report;
mod sample;
mod submit;

pub use completed::CompleteAnswer;
pub(crate) use item::whole_if_whole;
pub use item::{
    AssignedAgent, CancelInfo, Reason, Usage, WorkErrorInfo, WorkItem, WorkResult, WorkStatus,
};
pub use lease::{
    ClaimAnswer, ClaimRequest, ClaimedItem, CompleteItem, CompleteRequest, FailRequest, Lease,
    LeaseRef, ProgressRequest, ReleaseRequest, StoppedRequest, ThenClaim,
};
pub use query::{
    AgentVerdict, BeingStarted, CancelRequest, ExplainAnswer, IdRequest, ListWorkRequest,
    PurgeAnswer, PurgeRequest, QueueInfo, TargetVerdict,
};
pub use report::{CompletedReport, ErrorReport, ReportedError, ReportedResult};
pub use sample::sample_item;
pub use submit::{
    BatchAnswer, ItemAnswer, RESERVED_FIELDS, SubmitAnswer, SubmitRequest, Submitted,
};

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
