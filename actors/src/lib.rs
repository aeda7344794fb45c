//! Loom's supervised core: actors that each own one NATS resource of a project.
//!
//! | layer | what it may know |
//! |---|---|
//! | [`domain`] | pure verdicts: values in, verdict out; no clock, no network |
//! | [`nats`] | one wrapper per kind of resource; a crate that knows no actor |
//! | [`supervision`] | who restarts whom, and handles that survive it |
//! | [`agent_registry`], [`work_dispatcher`], [`work_ledger`], [`gc_reaper`], [`dlq_retrier`], [`target_manager`] | one actor each: its messages, its state, its handle |
//! | [`liveness`] | whether silence was theirs or ours, before anybody is declared dead or late |
//! | [`shared_agents`] | the one reader of the bucket in which existing clients keep the agents of all projects |
//! | [`spin_up_meters`] | what is counted of starts of agents |
//! | [`born_agents`] | the agents that targets have started, for whoever judges agents |
//! | `hashing` | the maps of what is looked up for each request |
//! | [`deadline_queue`] | a deadline for each of many keys, and one armed timer |
//! | [`keyed_writer`] | a queue and at most one task for each key: read, decide, write, in doubt, again |
//! | [`notifier`] | something changed: one who tells, many who listen |
//! | [`events`] | what clients hear of what happens |
//! | [`repetition`] | when a warning that comes again and again is logged |
//! | [`stores`] | whether the store is the one that is worked with |
//! | [`project`] | the parts of one project, put together; what they do for an agent together |
//! | [`actor_name`] | the list of a project's actors |
//! | [`projects`] | all projects of a coordinator: found, started side by side, stopped |
#![deny(missing_docs)]

pub mod actor_name;
pub mod agent_registry;
pub mod born_agents;
pub mod deadline_queue;
pub mod dlq_retrier;
pub mod domain;
pub mod events;
pub mod gc_reaper;
mod hashing;
pub mod keyed_writer;
pub mod leases;
pub mod liveness;
pub mod notifier;
pub mod project;
pub mod projects;
pub mod settings;
pub mod shared_agents;
pub mod spin_up_meters;
pub mod stores;
pub mod target_manager;
mod unavailable;
pub mod work_dispatcher;
pub mod work_ledger;

pub use loom_nats::{self as nats, clock, repetition};
pub use loom_supervision as supervision;
