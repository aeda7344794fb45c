//! Loom's Rust SDK: submit work, await results, be an agent.
//!
//! It speaks the requests of the wire (`coord.{project}.…`) over NATS, in MessagePack, and reconnects
//! for ever. Everything that writes carries an id made before the first try, so that a repeated
//! request changes nothing: an item's id, a claim's id, an attempt.
//!
//! # Submit work and await its result
//!
//! ```no_run
//! use std::time::Duration;
//! use loom_client::{Client, ClientOptions, NewWork, WorkOutcome};
//! use loom_protocol::ProjectId;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let project = ProjectId::new("default")?;
//! let client = Client::connect(ClientOptions::new("nats://127.0.0.1:4222", project)).await?;
//!
//! let work = NewWork::new("typescript", "Add a dark mode to the settings page").priority(8);
//! let id = client.submit(&work).await?.id;
//!
//! match client.wait(id, Duration::from_secs(600)).await? {
//!     WorkOutcome::Completed(item) => println!("{:?}", item.result),
//!     WorkOutcome::Failed(item) => println!("{:?}", item.error),
//!     other => println!("{}", other.item().status),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Be an agent
//!
//! ```no_run
//! use loom_client::{Agent, Client, ClientOptions, Job, JobError, JobResult};
//! use loom_protocol::ProjectId;
//!
//! async fn work_on(job: Job) -> Result<JobResult, JobError> {
//!     job.progress(10.0, "reading the task");
//!     if job.item().description.is_empty() {
//!         return Err(JobError::permanent("there is nothing to do"));
//!     }
//!     Ok(JobResult::summary("done"))
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let project = ProjectId::new("default")?;
//! let client = Client::connect(ClientOptions::new("nats://127.0.0.1:4222", project)).await?;
//! let report = Agent::builder(&client)
//!     .agent_type("example")
//!     .capability("typescript")
//!     .slots(2)
//!     .run(work_on)
//!     .await?;
//! println!("{} items completed", report.completed);
//! # Ok(())
//! # }
//! ```
//!
//! The agent registers, keeps a heartbeat, claims as many items as it has free slots, keeps their
//! leases alive while handlers run, reports what they came to, stops them when told, and survives
//! restarts of the coordinator and of NATS. See [`agent`] for how it is put together.
//!
//! # Errors
//!
//! [`ClientError::kind`] is for programs, its text for people. Transient kinds
//! ([`ClientError::is_transient`]) have been retried up to the deadline when you see them.
//!
//! The programs in `examples/` run against `loom up`.
#![deny(missing_docs)]

pub mod agent;
mod background;
mod client;
pub mod clock;
mod connection;
mod error;
mod options;
mod retry;
mod spin_ups;
mod submit;
mod verbs;
mod wait;

pub use agent::{
    Agent, AgentBuilder, AgentNotification, AgentReport, AgentStopper, CancelCause, Job, JobEnd,
    JobError, JobResult, RunningAgent,
};
pub use client::Client;
pub use error::{ClientError, ErrorKind};
pub use options::{ClientOptions, Credentials};
pub use submit::NewWork;
pub use verbs::Page;
pub use wait::WorkOutcome;
