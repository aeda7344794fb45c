//! `--backlog`: what many pending items cost the coordinator in memory, how long it takes to serve
//! again with them after a `kill -9`, and that the most urgent one, submitted last, is given next.

use loom_protocol::work::SubmitRequest;
use serde::Serialize;
use tokio::time::Instant;

use super::memory::resident_kib;
use super::requests::{RequestError, Requests};
use super::sheet::Sheet;
use super::stage::Stage;
use super::workloads::Workload;
use super::{BenchArgs, BenchError, BenchResult, failed};

const PROJECT: &str = "loom-bench-backlog";
const CAPABILITY: &str = "bench-backlog";
const MOST_URGENT: u8 = 10;

/// What `--backlog` gives.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backlog {
    items: usize,
    submits_per_second: f64,
    resident_kib_empty: u64,
    resident_kib_full: u64,
    bytes_per_item: u64,
    claim_ms: f64,
    restart_seconds: f64,
    resident_kib_restarted: u64,
    claim_ms_restarted: f64,
}

pub(super) async fn run(args: &BenchArgs, stage: &mut Stage, items: usize) -> BenchResult<Backlog> {
    let working = |why: RequestError| failed("the items", why);
    let requests = stage.requests(PROJECT).await?;
    let (agents, array) = (args.agents.get(), args.array);
    let workload = Workload::open(&requests, CAPABILITY, agents, args.payload, array).await;
    let workload = workload.map_err(working)?;
    let resident_kib_empty = resident_kib(stage.coordinator_pid()?)?;
    let submitted = workload.submit_arrays(items, args.in_flight.get()).await;
    if let Some(why) = submitted.first_failure {
        return Err(working(why));
    }
    let resident_kib_full = resident_kib(stage.coordinator_pid()?)?;
    let claim_ms = claim_most_urgent(&requests, &workload, 0).await?;

    let killed = Instant::now();
    stage.restart_coordinator().await?;
    let claim_ms_restarted = claim_most_urgent(&requests, &workload, 1).await?;
    Ok(Backlog {
        items: submitted.items,
        submits_per_second: submitted.rate(),
        resident_kib_empty,
        resident_kib_full,
        bytes_per_item: resident_kib_full.saturating_sub(resident_kib_empty) * 1_024
            / submitted.items.max(1) as u64,
        claim_ms,
        restart_seconds: killed.elapsed().as_secs_f64(),
        resident_kib_restarted: resident_kib(stage.coordinator_pid()?)?,
        claim_ms_restarted,
    })
}

/// Submits an item of the highest priority, and claims it: anything else that is given is a defect.
async fn claim_most_urgent(
    requests: &Requests,
    workload: &Workload,
    agent: usize,
) -> BenchResult<f64> {
    let working = |why: RequestError| failed("the most urgent item", why);
    let urgent = SubmitRequest {
        priority: Some(MOST_URGENT.into()),
        ..workload.one().clone()
    };
    let id = requests.submit(&urgent).await.map_err(working)?;
    let begun = Instant::now();
    let given = workload.claim(agent).await.map_err(working)?;
    let took = begun.elapsed();
    match given.as_slice() {
        [one] if one.id() == id => {}
        _ => {
            return Err(BenchError::Failed(format!(
                "item {id} is the most urgent one, and another one was given"
            )));
        }
    }
    workload.complete(agent, &given).await.map_err(working)?;
    Ok(took.as_secs_f64() * 1e3)
}

impl Backlog {
    pub(super) fn sheet(&self) -> Sheet {
        let mib = |kib: u64| (kib / 1_024).to_string();
        let restarted = format!(
            "{}, started again in {:.1} s",
            self.items, self.restart_seconds
        );
        let rows = [
            [
                "0".into(),
                mib(self.resident_kib_empty),
                String::new(),
                String::new(),
            ],
            [
                self.items.to_string(),
                mib(self.resident_kib_full),
                self.bytes_per_item.to_string(),
                format!("{:.1}", self.claim_ms),
            ],
            [
                restarted,
                mib(self.resident_kib_restarted),
                String::new(),
                format!("{:.1}", self.claim_ms_restarted),
            ],
        ];
        Sheet {
            headline: None,
            columns: &["PENDING", "RESIDENT MIB", "BYTES PER ITEM", "CLAIM MS"],
            rows: rows.map(Vec::from).into(),
        }
    }
}
