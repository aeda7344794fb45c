//! Medians over the rounds, and ratios to the raw limit of the same round.

use std::time::Duration;

use serde::Serialize;

use super::load::{Sample, latencies};
use super::measure::Measure;
use super::sheet::Sheet;

const COLUMNS: [&str; 13] = [
    "",
    "ITEMS/S",
    "P50 MS",
    "P99 MS",
    "P99.9 MS",
    "OF RAW",
    "AIM",
    "OF SAME WRITES",
    "FAILED",
    "CPU µs: CLIENT",
    "COORD.",
    "SERVER",
    "OF RAW",
];

/// With what was measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Setup {
    pub items: usize,
    pub in_flight: usize,
    pub agents: usize,
    pub payload: usize,
    pub array: usize,
    pub rounds: usize,
    pub cpus: usize,
    pub server: String,
}

/// The samples of all rounds.
#[derive(Debug, Default)]
pub(super) struct Measured([Vec<Sample>; Measure::ALL.len()]);

impl Measured {
    /// Adds the sample of the next round.
    pub fn add(&mut self, measure: Measure, sample: Sample) {
        self.0[place(measure)].push(sample);
    }

    fn of(&self, measure: Measure) -> &[Sample] {
        &self.0[place(measure)]
    }
}

fn place(measure: Measure) -> usize {
    let same = |other: &Measure| *other == measure;
    Measure::ALL.iter().position(same).unwrap_or_default()
}

/// What the default run gives.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    setup: Setup,
    results: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    items_per_second: f64,
    /// To the raw limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<f64>,
    /// To the same conditional writes without Loom.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_same_writes: Option<f64>,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    /// What one item costs each process, in microseconds of CPU time.
    cpu_us: CpuPerItem,
    /// The same of the raw limit, as a part of this: what the ratio is on a machine that is busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ratio: Option<f64>,
    failures: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct CpuPerItem {
    client: Option<f64>,
    coordinator: Option<f64>,
    server: Option<f64>,
}

impl CpuPerItem {
    fn of(samples: &[Sample]) -> Self {
        let part = |spent: fn(&Sample) -> Option<Duration>| {
            let each: Option<Vec<f64>> = samples
                .iter()
                .map(|sample| Some(sample.micros_per_item(spent(sample)?)))
                .collect();
            each.map(median)
        };
        Self {
            client: part(|sample| sample.cpu.client),
            coordinator: part(|sample| sample.cpu.coordinator),
            server: part(|sample| sample.cpu.server),
        }
    }

    /// With Loom in between, or without.
    fn total(self, with_coordinator: bool) -> Option<f64> {
        let coordinator = if with_coordinator {
            self.coordinator?
        } else {
            0.0
        };
        Some(self.client? + coordinator + self.server?)
    }
}

impl Report {
    pub(super) fn of(setup: Setup, measured: &Measured) -> Self {
        let results = Measure::ALL.map(|measure| row(measure, measured, &setup));
        Self {
            setup,
            results: results.into(),
        }
    }

    /// A sentence for each measurement in which operations failed.
    pub(super) fn failures(&self) -> Vec<String> {
        let sentence = |row: &Row| {
            let first = row.first_failure.as_ref()?;
            Some(format!("{}: {} failed: {first}", row.name, row.failures))
        };
        self.results.iter().filter_map(sentence).collect()
    }

    pub(super) fn sheet(&self) -> Sheet {
        let micros = |cpu: Option<f64>| cpu.map(|cpu| format!("{cpu:.1}")).unwrap_or_default();
        let ratio = |ratio: Option<f64>| ratio.map(|r| format!("{r:.2}")).unwrap_or_default();
        let cells = |row: &Row| {
            vec![
                row.name.clone(),
                format!("{:.0}", row.items_per_second),
                millis(row.p50_us),
                millis(row.p99_us),
                millis(row.p999_us),
                ratio(row.ratio),
                ratio(row.aim),
                ratio(row.ratio_to_same_writes),
                row.failures.to_string(),
                micros(row.cpu_us.client),
                micros(row.cpu_us.coordinator),
                micros(row.cpu_us.server),
                ratio(row.cpu_ratio),
            ]
        };
        Sheet {
            headline: Some(self.headline()),
            columns: &COLUMNS,
            rows: self.results.iter().map(cells).collect(),
        }
    }

    fn headline(&self) -> String {
        let setup = &self.setup;
        format!(
            "{} items of {} bytes, {} in flight, {} agents; medians of {} rounds; nats-server {}, {} CPUs for everything\n",
            setup.items,
            setup.payload,
            setup.in_flight,
            setup.agents,
            setup.rounds,
            setup.server,
            setup.cpus,
        )
    }
}

fn row(measure: Measure, measured: &Measured, setup: &Setup) -> Row {
    let samples = measured.of(measure);
    let mut took = latencies();
    for sample in samples {
        // Histograms of the same bounds always add up.
        let _ = took.add(&sample.latencies);
    }
    let cpu_us = CpuPerItem::of(samples);
    let limits = measure.limit().map(|limit| measured.of(limit));
    let cpu_of_limit = limits.and_then(|limits| CpuPerItem::of(limits).total(false));
    let same_writes = measure.same_writes().map(|same| measured.of(same));
    Row {
        name: name(measure, setup.array),
        items_per_second: median(samples.iter().map(Sample::rate).collect()),
        ratio: limits.map(|limits| ratio(samples, limits)),
        aim: measure.aim(),
        ratio_to_same_writes: same_writes.map(|writes| ratio(samples, writes)),
        p50_us: took.value_at_quantile(0.5),
        p99_us: took.value_at_quantile(0.99),
        p999_us: took.value_at_quantile(0.999),
        cpu_ratio: cpu_of_limit.and_then(|limit| Some(limit / cpu_us.total(true)?)),
        cpu_us,
        failures: samples.iter().map(|sample| sample.failures).sum(),
        first_failure: samples.iter().find_map(|s| s.first_failure.clone()),
    }
}

/// The median over the rounds.
fn ratio(samples: &[Sample], limits: &[Sample]) -> f64 {
    let pairs = samples.iter().zip(limits);
    median(
        pairs
            .map(|(own, limit)| own.rate() / limit.rate())
            .collect(),
    )
}

fn name(measure: Measure, array: usize) -> String {
    match measure {
        Measure::RawPublish => "raw: publish".into(),
        Measure::Submit => "submit".into(),
        Measure::SubmitArrays => format!("submit, {array} per request"),
        Measure::RawCreate => "raw: create".into(),
        Measure::RawCycle => "raw: create + 2 compare-and-sets".into(),
        Measure::Cycle => "submit, claim, complete".into(),
        Measure::CycleThenClaim => "submit, complete and claim next".into(),
        Measure::CycleArrays => {
            format!("submit, complete and claim next, {array} per request")
        }
    }
}

/// Microseconds as milliseconds.
pub(super) fn millis(micros: u64) -> String {
    format!("{}.{:02}", micros / 1_000, micros % 1_000 / 10)
}

/// The value in the middle; zero of nothing.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    fn sample(items: usize, millis: u64) -> Sample {
        Sample {
            items,
            elapsed: Duration::from_millis(millis),
            latencies: latencies(),
            cpu: super::super::cpu::CpuTimes::default(),
            failures: 0,
            first_failure: None,
        }
    }

    #[test]
    fn the_ratio_is_that_of_the_same_round() {
        let mut measured = Measured::default();
        // The machine was slow in the second round, for both sides.
        for (own, raw) in [(200, 100), (2_000, 1_000), (210, 100)] {
            measured.add(Measure::Submit, sample(1_000, own));
            measured.add(Measure::RawPublish, sample(1_000, raw));
        }
        let setup = Setup {
            items: 1_000,
            in_flight: 64,
            agents: 4,
            payload: 512,
            array: 8,
            rounds: 3,
            cpus: 2,
            server: "2.15.1".into(),
        };
        let report = Report::of(setup, &measured);
        let submit = &report.results[place(Measure::Submit)];
        assert_eq!(submit.ratio, Some(0.5));
        assert!(submit.ratio_to_same_writes.is_some());
        assert!(report.results[0].ratio.is_none());
        assert!((submit.items_per_second - 1_000.0 / 0.21).abs() < 1e-6);
    }

    #[test]
    fn medians_and_milliseconds() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(Vec::new()).to_bits(), 0.0_f64.to_bits());
        assert_eq!(millis(1_234), "1.23");
        assert_eq!(millis(9), "0.00");
    }
}
