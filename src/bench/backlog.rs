//! `--backlog`: what many pending items cost the coordinator in memory, how long it takes to serve
//! again with them after a `kill -9`, and that the most urgent one, submitted last, is given next.

use loom_protocol::ProjectId;
use loom_protocol::work::SubmitRequest;
use serde::Serialize;
use tokio::time::Instant;

use super::memory::resident_kib;
use super::requests::{RequestError, Requests};
use super::stage::Stage;
use super::workloads::Workload;
use super::{BenchArgs, failed};
use crate::cli::Context;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::table;

const PROJECT: &str = "loom-bench-backlog";
const CAPABILITY: &str = "bench-backlog";
const MOST_URGENT: u8 = 10;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Findings {
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

pub(super) async fn run(
    context: &Context,
    args: &BenchArgs,
    stage: &mut Stage,
    items: usize,
) -> CliResult {
    let working = |why: RequestError| failed("the items", why);
    let project = ProjectId::new(PROJECT).map_err(|error| failed("the project", error))?;
    let requests = Requests::new(stage.client.client.clone(), project);
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
    let findings = Findings {
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
    };
    print(context, &findings)
}

/// Submits an item of the highest priority, and claims it: anything else that is given is a defect.
async fn claim_most_urgent(
    requests: &Requests,
    workload: &Workload,
    agent: usize,
) -> CliResult<f64> {
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
            return Err(CliError::Failed(format!(
                "item {id} is the most urgent one, and another one was given"
            )));
        }
    }
    workload.complete(agent, &given).await.map_err(working)?;
    Ok(took.as_secs_f64() * 1e3)
}

fn print(context: &Context, findings: &Findings) -> CliResult {
    if context.out.is_json() {
        return context.out.json(findings);
    }
    let mut table = table(&["PENDING", "RESIDENT MIB", "BYTES PER ITEM", "CLAIM MS"]);
    let mib = |kib: u64| (kib / 1_024).to_string();
    table.add_row([
        "0".into(),
        mib(findings.resident_kib_empty),
        String::new(),
        String::new(),
    ]);
    table.add_row([
        findings.items.to_string(),
        mib(findings.resident_kib_full),
        findings.bytes_per_item.to_string(),
        format!("{:.1}", findings.claim_ms),
    ]);
    table.add_row([
        format!(
            "{}, started again in {:.1} s",
            findings.items, findings.restart_seconds
        ),
        mib(findings.resident_kib_restarted),
        String::new(),
        format!("{:.1}", findings.claim_ms_restarted),
    ]);
    context.out.table(&table, "nothing was measured")
}
