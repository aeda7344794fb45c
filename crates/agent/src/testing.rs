//! Jobs for the tests of this module.

use loom_client::Job;
use loom_protocol::AgentGuid;
use loom_protocol::work::WorkItem;
pub use loom_protocol::work::sample_item as item;

/// A job that no coordinator knows of.
pub fn job() -> Job {
    job_for(item())
}

/// A job for an item.
pub fn job_for(item: WorkItem) -> Job {
    Job::detached(AgentGuid::generate(), item)
}
