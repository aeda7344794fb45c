//! `--memory`: what the coordinator's memory is after many finished items, and after ten times as many.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::requests::{RequestError, Requests};
use super::sheet::Sheet;
use super::stage::Stage;
use super::workloads::Workload;
use super::{BenchArgs, BenchError, BenchResult, failed};

/// What the coordinator of this measurement is told.
pub(super) const SETTINGS: [&str; 1] = ["work.max_finished=5000"];
const MAX_FINISHED: usize = 5_000;
/// The same load again and again, so that like is compared with like.
const LAPS: usize = 10;
const ITEMS_PER_LAP: usize = 10_000;
const PROJECT: &str = "loom-bench-memory";
const CAPABILITY: &str = "bench-memory";
/// How long the coordinator may take to forget what is beyond its retention.
const FORGOTTEN_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What `--memory` gives after one lap.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lap {
    finished: usize,
    remembered: usize,
    resident_kib: u64,
    /// To the first one.
    ratio: f64,
}

/// Takes items through, lap after lap, and looks after each.
pub(super) async fn run(args: &BenchArgs, stage: &Stage) -> BenchResult<Vec<Lap>> {
    let pid = stage.coordinator_pid()?;
    let working = |why: RequestError| failed("the items", why);
    let requests = stage.requests(PROJECT).await?;
    let (agents, in_flight) = (args.agents.get(), args.in_flight.get());
    let workload = Workload::open(&requests, CAPABILITY, agents, args.payload, args.array).await;
    let workload = workload.map_err(working)?;
    let mut laps: Vec<Lap> = Vec::new();
    let mut finished = 0;
    for _ in 0..LAPS {
        let sample = workload.cycle_arrays(ITEMS_PER_LAP, in_flight).await;
        if let Some(why) = sample.first_failure {
            return Err(working(why));
        }
        finished += sample.items;
        let remembered = forgotten(&requests).await.map_err(working)?;
        let resident_kib = resident_kib(pid)?;
        laps.push(Lap {
            finished,
            remembered,
            resident_kib,
            ratio: ratio(resident_kib, laps.first()),
        });
    }
    workload.close().await.map_err(working)?;
    Ok(laps)
}

pub(super) fn sheet(laps: &[Lap]) -> Sheet {
    let cells = |lap: &Lap| {
        vec![
            lap.finished.to_string(),
            lap.remembered.to_string(),
            (lap.resident_kib / 1_024).to_string(),
            format!("{:.2}", lap.ratio),
        ]
    };
    Sheet {
        headline: None,
        columns: &["FINISHED", "REMEMBERED", "RESIDENT MIB", "TO THE FIRST"],
        rows: laps.iter().map(cells).collect(),
    }
}

/// Waits until no more items are remembered than the retention says.
async fn forgotten(requests: &Requests) -> Result<usize, RequestError> {
    let deadline = Instant::now() + FORGOTTEN_WITHIN;
    loop {
        let remembered = requests.completed().await?;
        if remembered <= MAX_FINISHED {
            return Ok(remembered);
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "{remembered} items are remembered still, and the retention says {MAX_FINISHED}"
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio is no exact number")]
fn ratio(resident_kib: u64, first: Option<&Lap>) -> f64 {
    let first = first.map_or(resident_kib, |lap| lap.resident_kib);
    resident_kib as f64 / first.max(1) as f64
}

/// What a process has in memory.
pub(super) fn resident_kib(pid: u32) -> BenchResult<u64> {
    let path = format!("/proc/{pid}/status");
    let reading = |why: String| {
        BenchError::Failed(format!(
            "the memory of process {pid} cannot be told from {path} ({why}); --memory needs Linux"
        ))
    };
    let status = std::fs::read_to_string(&path).map_err(|error| reading(error.to_string()))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok());
    resident.ok_or_else(|| reading("it has no VmRSS".into()))
}
