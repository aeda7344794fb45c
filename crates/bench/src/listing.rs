//! `--listing`: a listing and a claim, with few agents registered and with very many.

use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::{latencies, record};
use super::report::millis;
use super::requests::{RequestError, Requests};
use super::sheet::Sheet;
use super::stage::Stage;
use super::workloads::Workload;
use super::{BenchArgs, BenchResult, failed};

/// Each number of agents has a project of its own.
const FEW: (&str, usize) = ("loom-bench-few", 10);
const MANY: (&str, usize) = ("loom-bench-many", 10_000);
const CAPABILITY: &str = "bench-listing";
/// How many agents one page shows: as many as there are where there are few.
const PAGE: usize = 10;
/// How often each is asked, in turns.
const REPETITIONS: usize = 2_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: &'static str,
    few_p50_us: u64,
    many_p50_us: u64,
    ratio: f64,
}

/// What `--listing` gives.
#[derive(Debug, Serialize)]
pub struct Listing {
    few: usize,
    many: usize,
    results: [Row; 2],
}

/// One of the two projects, and what its requests took.
struct Side {
    requests: Requests,
    workload: Workload,
    listing: Histogram<u64>,
    claiming: Histogram<u64>,
}

/// Measures one request at a time, first with few agents, then with many, and again.
pub(super) async fn run(args: &BenchArgs, stage: &Stage) -> BenchResult<Listing> {
    let asking = |why: RequestError| failed("the agents", why);
    let mut few = Side::open(stage, FEW, args.payload).await?;
    let mut many = Side::open(stage, MANY, args.payload).await?;
    for number in 0..REPETITIONS {
        for side in [&mut few, &mut many] {
            side.ask(number).await.map_err(asking)?;
        }
    }
    let listing = Listing {
        few: FEW.1,
        many: MANY.1,
        results: [
            Row::of("listing of 10 agents", &few.listing, &many.listing),
            Row::of("claim of one item", &few.claiming, &many.claiming),
        ],
    };
    for side in [few, many] {
        side.workload.close().await.map_err(asking)?;
    }
    Ok(listing)
}

impl Listing {
    pub(super) fn sheet(&self) -> Sheet {
        let cells = |row: &Row| {
            vec![
                row.name.to_owned(),
                millis(row.few_p50_us),
                millis(row.many_p50_us),
                format!("{:.2}", row.ratio),
                "2.00".into(),
            ]
        };
        Sheet {
            headline: None,
            columns: &[
                "",
                "P50 MS, 10 AGENTS",
                "P50 MS, 10,000",
                "RATIO",
                "AT MOST",
            ],
            rows: self.results.iter().map(cells).collect(),
        }
    }
}

impl Side {
    async fn open(
        stage: &Stage,
        (project, agents): (&str, usize),
        payload: usize,
    ) -> BenchResult<Self> {
        let requests = stage.requests(project).await?;
        let workload = Workload::open(&requests, CAPABILITY, agents, payload, 2).await;
        let workload =
            workload.map_err(|why| failed(&format!("registering {agents} agents"), why))?;
        Ok(Self {
            requests,
            workload,
            listing: latencies(),
            claiming: latencies(),
        })
    }

    async fn ask(&mut self, number: usize) -> Result<(), RequestError> {
        let begun = Instant::now();
        self.requests.list_agents(PAGE).await?;
        record(&mut self.listing, begun.elapsed());

        self.requests.submit(self.workload.one()).await?;
        let begun = Instant::now();
        let given = self.workload.claim(number).await?;
        record(&mut self.claiming, begun.elapsed());
        self.workload.complete(number, &given).await
    }
}

impl Row {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of one request")]
    fn of(name: &'static str, few: &Histogram<u64>, many: &Histogram<u64>) -> Self {
        let (few, many) = (few.value_at_quantile(0.5), many.value_at_quantile(0.5));
        Self {
            name,
            few_p50_us: few,
            many_p50_us: many,
            ratio: many as f64 / few.max(1) as f64,
        }
    }
}
