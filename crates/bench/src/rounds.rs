//! The default run: the raw limit, and what Loom makes of it, in turns.

use super::load::Sample;
use super::measure::Measure;
use super::raw::RawNats;
use super::report::{Measured, Report, Setup};
use super::requests::SLOTS;
use super::stage::Stage;
use super::workloads::Workload;
use super::{BenchArgs, BenchError, BenchResult, failed};

/// Where the items of a run are. A run leaves an empty project behind on a server of others.
const PROJECT: &str = "loom-bench";
/// The capability of the items that are only submitted. Nobody has it.
const SUBMITTED: &str = "bench-submit";
/// The capability of the items that are worked on.
const WORKED_ON: &str = "bench-cycle";
/// The part of the items that the warm-up takes.
const WARM_UP: usize = 10;

/// Measures everything in turns.
pub(super) async fn run(args: &BenchArgs, stage: &Stage) -> BenchResult<Report> {
    check_slots(args)?;
    let requests = stage.requests(PROJECT).await?;
    let (agents, payload, array) = (args.agents.get(), args.payload, args.array);
    let submitted = Workload::open(&requests, SUBMITTED, 0, payload, array).await;
    let submitted = submitted.map_err(|why| failed("submitting", why))?;
    let worked_on = Workload::open(&requests, WORKED_ON, agents, payload, array).await;
    let worked_on = worked_on.map_err(|why| failed("registering the agents", why))?;
    let bytes = requests.encoded(submitted.one());
    let bytes = bytes.map_err(|why| failed("writing a request", why))?;
    let raw = RawNats::open(stage.raw.nats().clone(), bytes).await?;
    let benches = Benches {
        raw,
        submitted,
        worked_on,
        in_flight: args.in_flight.get(),
    };

    let items = args.items.get();
    for measure in Measure::ALL {
        benches.measure(measure, items.div_ceil(WARM_UP)).await;
    }
    let mut measured = Measured::default();
    for round in 0..args.rounds.get() {
        for turn in 0..Measure::ALL.len() {
            let measure = Measure::ALL[turn_of(round, turn)];
            let before = stage.cpu_times();
            let mut sample = benches.measure(measure, items).await;
            sample.cpu = stage.cpu_times().since(before);
            measured.add(measure, sample);
        }
    }
    if !stage.is_private() {
        let purged = requests.purge(SUBMITTED).await;
        purged.map_err(|why| failed("calling the submitted items off", why))?;
    }
    let gone = benches.worked_on.close().await;
    gone.map_err(|why| failed("letting the agents go", why))?;
    benches.raw.close().await;

    let setup = Setup {
        items,
        in_flight: args.in_flight.get(),
        agents,
        payload,
        array,
        rounds: args.rounds.get(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        server: requests.server_version(),
    };
    Ok(Report::of(setup, &measured))
}

/// Every other round goes backwards, so that none always comes after the same one.
const fn turn_of(round: usize, turn: usize) -> usize {
    if round.is_multiple_of(2) {
        turn
    } else {
        Measure::ALL.len() - 1 - turn
    }
}

/// Every worker holds an array; an agent may be given the next before the last write is known.
fn check_slots(args: &BenchArgs) -> BenchResult {
    let workers = args.in_flight.get().div_ceil(args.agents.get());
    let needed = workers.saturating_mul(args.array);
    if needed <= SLOTS as usize {
        return Ok(());
    }
    Err(BenchError::Usage(format!(
        "{needed} items at a time per agent are more than the {SLOTS} that one may hold; give more --agents, or less --in-flight or --array"
    )))
}

struct Benches {
    raw: RawNats,
    submitted: Workload,
    worked_on: Workload,
    in_flight: usize,
}

impl Benches {
    async fn measure(&self, measure: Measure, items: usize) -> Sample {
        let in_flight = self.in_flight;
        match measure {
            Measure::RawPublish => self.raw.publish(items, in_flight).await,
            Measure::Submit => self.submitted.submit(items, in_flight).await,
            Measure::SubmitArrays => self.submitted.submit_arrays(items, in_flight).await,
            Measure::RawCreate => self.raw.create(items, in_flight).await,
            Measure::RawCycle => self.raw.cycle(items, in_flight).await,
            Measure::Cycle => self.worked_on.cycle(items, in_flight).await,
            Measure::CycleThenClaim => self.worked_on.cycle_then_claim(items, in_flight).await,
            Measure::CycleArrays => self.worked_on.cycle_arrays(items, in_flight).await,
        }
    }
}
