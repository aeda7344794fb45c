//! Being an agent: register, beat, claim, run a handler for each item, report.
//!
//! ```text
//! lifecycle ─ registers, then lets these live side by side, each a task of its own:
//!   claims      one open claim at a time, for as many items as there are free slots
//!   supervise   one per job: runs the handler, keeps the lease alive, stops it when told
//!   reports     completions in batches, with the next claim in the same request
//!   heartbeat   the sign of life; its answer names lost leases and orders
//!   resuming    claims again what was lost while the agent was away
//!   directives  orders as they come
//!   logs        lines of output
//! ```
//! They run on the client's own thread, handlers on the caller's runtime: a handler that blocks
//! stops no heartbeat.

mod builder;
mod claim_request;
mod claims;
mod core;
mod directives;
mod durable;
mod end;
mod ending;
mod heartbeat;
mod job;
mod lifecycle;
mod logs;
mod notifications;
mod reports;
mod resuming;
mod supervise;

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::AgentGuid;
use loom_protocol::work::LeaseRef;
use tokio::task::JoinHandle;

use self::core::Core;
use crate::error::{ClientError, ErrorKind};

pub use builder::{AgentBuilder, default_handle};
pub use end::{JobEnd, JobError, JobResult};
pub use job::{CancelCause, Job};
pub use notifications::AgentNotification;

/// What an agent has done in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentReport {
    /// Items completed.
    pub completed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts whose end somebody else has reported ([`Job::settle`]).
    pub settled: u64,
    /// Attempts whose end stands in the stream, because no coordinator was there to take note.
    pub published: u64,
    /// Items given back.
    pub returned: u64,
    /// Items that were called off while it had them.
    pub cancelled: u64,
    /// Items whose lease was lost, or whose report nobody took.
    pub lost: u64,
    /// Why it ended.
    pub because: String,
}

/// The way to an agent: `Agent::builder(&client)`.
#[derive(Debug)]
pub enum Agent {}

impl Agent {
    /// Begins to describe an agent of the client's project.
    pub fn builder(client: &crate::Client) -> AgentBuilder {
        AgentBuilder::new(client.clone())
    }
}

/// An agent at work. Dropping it aborts it without deregistering; its leases then run out.
pub struct RunningAgent {
    core: Arc<Core>,
    life: JoinHandle<Result<AgentReport, ClientError>>,
}

impl RunningAgent {
    /// Its id.
    pub fn guid(&self) -> AgentGuid {
        self.core.guid
    }

    /// What it holds just now.
    pub fn holding(&self) -> Vec<LeaseRef> {
        self.core.jobs().iter().map(Job::lease_ref).collect()
    }

    /// Takes no more work, finishes what is running within `grace`, gives back the rest, and ends.
    /// Without a grace everything is stopped and given back at once. Returns immediately.
    pub fn shut_down(&self, because: &str, grace: Duration) {
        self.core.shut_down(because, grace);
    }

    /// A way to shut it down from elsewhere.
    pub fn stopper(&self) -> AgentStopper {
        AgentStopper(self.core.clone())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// A registration that was refused for good; [`ClientError::is_replaced`] where another run of the same
    /// guid has registered since.
    pub async fn ended(mut self) -> Result<AgentReport, ClientError> {
        match (&mut self.life).await {
            Ok(ended) => ended,
            Err(e) => Err(ClientError::new(
                ErrorKind::Disconnected,
                format!("the agent's task was cut off: {e}"),
            )),
        }
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        self.life.abort();
    }
}

/// Shuts an agent down from elsewhere, or keeps it from more work: a signal handler, or one of its own jobs.
#[derive(Clone)]
pub struct AgentStopper(Arc<Core>);

impl AgentStopper {
    /// As [`RunningAgent::shut_down`].
    pub fn shut_down(&self, because: &str, grace: Duration) {
        self.0.shut_down(because, grace);
    }

    /// Takes no more work until [`go_on`](Self::go_on), and tells the coordinator why (`busy` with its
    /// `statusReason`). What it has goes on; what a claim that is open still brings is given back.
    pub fn suspend(&self, because: &str) {
        self.0.suspend(Some(because));
    }

    /// Takes work again.
    pub fn go_on(&self) {
        self.0.suspend(None);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::time::Duration;

    use loom_protocol::AgentGuid;
    use loom_protocol::work::{ClaimedItem, Lease, sample_item};
    use tokio::sync::mpsc;

    use super::Job;

    /// A job that nobody runs.
    pub(crate) fn job() -> Job {
        let item = sample_item();
        let lease = Lease {
            attempt: item.attempt,
            expires_at: item.updated_at.after(Duration::from_mins(30)),
            expires_in_ms: 1_000,
            timeout_ms: 1_000,
        };
        let claimed = ClaimedItem {
            work_item: item,
            lease,
        };
        Job::new(AgentGuid::generate(), claimed, mpsc::channel(4).0)
    }
}
