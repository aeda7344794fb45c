//! `loom bench`: how fast this machine takes work through Loom, beside what its NATS alone makes of
//! the same bytes.
//!
//! Server, coordinator and client share the machine, as on a laptop. Every rate is measured several
//! times, in rounds that take turns, so that what else the machine does hits all of them; the
//! figures that count are the ratios to the raw limit of the same round.
//!
//! | file | what it does |
//! |---|---|
//! | `stage` | the coordinator as a process of its own, the connections |
//! | `load` | so many operations, so many in flight, what they took |
//! | `cpu` | the CPU time that each process takes |
//! | `raw` | the limit: JetStream publishes and compare-and-sets without Loom |
//! | `requests` | the requests of a client and of its agents |
//! | `workloads` | submit, and submit→claim→complete, one by one and by arrays |
//! | `rounds` | the default run: all of them in turns |
//! | `listing` | `--listing`: what many agents cost |
//! | `backlog` | `--backlog`: what many pending items cost, and a restart with them |
//! | `memory` | `--memory`: what many finished items cost |
//! | `report` | medians and ratios |
//! | `findings`, `sheet` | what a run gives: values for programs, a table for people |

mod backlog;
mod cpu;
mod findings;
mod listing;
mod load;
mod measure;
mod memory;
mod raw;
mod report;
mod requests;
mod rounds;
mod sheet;
mod stage;
mod workloads;

use std::num::NonZeroUsize;
use std::path::Path;

use clap::Args;

pub use findings::Findings;
pub use sheet::Sheet;
use stage::Stage;

/// Measure what this machine makes of Loom, beside the raw limit of its NATS.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// How many items each measurement takes through.
    #[arg(long, default_value = "10000", value_name = "N")]
    items: NonZeroUsize,
    /// How many requests (or raw publishes) are under way at a time, on one connection.
    #[arg(long, default_value = "64", value_name = "N")]
    in_flight: NonZeroUsize,
    /// How many agents the claims are spread over.
    #[arg(long, default_value = "4", value_name = "N")]
    agents: NonZeroUsize,
    /// How many bytes the description of an item has.
    #[arg(long, default_value = "512", value_name = "BYTES", value_parser = payload)]
    payload: usize,
    /// How many items one request carries where it carries several.
    #[arg(long, default_value = "8", value_name = "N", value_parser = array)]
    array: usize,
    /// How often everything is measured; medians are shown.
    #[arg(long, default_value = "5", value_name = "N")]
    rounds: NonZeroUsize,
    /// Measure instead what a listing and a claim cost with 10 and with 10,000 agents.
    #[arg(long, conflicts_with = "memory")]
    listing: bool,
    /// Measure instead what so many pending items cost in memory, and how long a killed coordinator
    /// takes to serve again with them (Linux only).
    #[arg(long, conflicts_with_all = ["listing", "memory"], num_args = 0..=1,
        default_missing_value = "1000000", value_name = "ITEMS")]
    backlog: Option<NonZeroUsize>,
    /// Measure instead what the coordinator's memory is after 10,000 and 100,000 finished items
    /// (Linux only).
    #[arg(long)]
    memory: bool,
}

/// The nats-server that a run measures over.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it is, with credentials if it wants some.
    pub url: String,
    /// Its process, if it was started for this run alone: then it has no coordinator yet, its CPU time can be told,
    /// and what is left on it ends with it. `None`: one of somebody else, with its coordinator if one answers.
    pub own_pid: Option<u32>,
}

/// Why there is nothing to show. Each sentence says what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Another command line would do.
    #[error("{0}")]
    Usage(String),
    /// NATS or the coordinator is not there.
    #[error("{0}")]
    Unreachable(String),
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
}

/// What a step of a run gives.
type BenchResult<T = ()> = Result<T, BenchError>;

/// Measures. `program` is `loom`: a coordinator that is missing is started with it, as a process of its own. Dropped
/// before it is done, it kills what it has started.
///
/// # Errors
/// What is needed is not there or does not answer. Single operations that fail are no error but stand in the findings.
pub async fn run(args: &BenchArgs, program: &Path, server: Server) -> BenchResult<Findings> {
    let settings: &[&str] = if args.memory { &memory::SETTINGS } else { &[] };
    let mut stage = Stage::open(program, server, settings).await?;
    let outcome = if let Some(items) = args.backlog {
        let found = backlog::run(args, &mut stage, items.get()).await;
        found.map(Findings::Backlog)
    } else if args.listing {
        listing::run(args, &stage).await.map(Findings::Listing)
    } else if args.memory {
        memory::run(args, &stage).await.map(Findings::Memory)
    } else {
        rounds::run(args, &stage).await.map(Findings::Rounds)
    };
    stage.close().await;
    outcome
}

fn payload(text: &str) -> Result<usize, String> {
    within(text, 1, loom_protocol::work::limits::DESCRIPTION)
}

fn array(text: &str) -> Result<usize, String> {
    within(text, 2, loom_protocol::work::limits::CLAIM_MAX as usize)
}

fn within(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("write a number from {least} to {most}")),
    }
}

/// A measurement that could not be made.
fn failed(what: &str, why: impl std::fmt::Display) -> BenchError {
    BenchError::Failed(format!("{what}: {why}"))
}
