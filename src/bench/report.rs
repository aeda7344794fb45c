//! Medians over the rounds, and ratios to the raw limit of the same round.

use std::fmt::Write as _;

use serde::Serialize;

use super::load::{Sample, latencies};
use super::rounds::Measure;
use crate::cli::Context;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{note, table};

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

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
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
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    failures: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
}

impl Report {
    pub fn of(setup: Setup, measured: &Measured) -> Self {
        let results = Measure::ALL.map(|measure| row(measure, measured, &setup));
        Self {
            setup,
            results: results.into(),
        }
    }

    /// Prints; failed operations make the command fail.
    pub fn print(&self, context: &Context) -> CliResult {
        if context.out.is_json() {
            context.out.json(self)?;
        } else {
            context.out.text(&self.headline())?;
            context.out.table(&self.table(), "nothing was measured")?;
        }
        let mut failures = 0;
        for row in &self.results {
            if let Some(first) = &row.first_failure {
                note(&format!("{}: {} failed: {first}", row.name, row.failures));
                failures += row.failures;
            }
        }
        match failures {
            0 => Ok(()),
            _ => Err(CliError::WorkFailed),
        }
    }

    fn headline(&self) -> String {
        let setup = &self.setup;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{} items of {} bytes, {} in flight, {} agents; medians of {} rounds; nats-server {}, {} CPUs for everything",
            setup.items,
            setup.payload,
            setup.in_flight,
            setup.agents,
            setup.rounds,
            setup.server,
            setup.cpus,
        );
        text
    }

    fn table(&self) -> comfy_table::Table {
        let mut rows = table(&[
            "", "ITEMS/S", "P50 MS", "P99 MS", "P99.9 MS", "OF RAW", "AIM", "FAILED",
        ]);
        let ratio = |ratio: Option<f64>| ratio.map(|r| format!("{r:.2}")).unwrap_or_default();
        for row in &self.results {
            rows.add_row([
                row.name.clone(),
                format!("{:.0}", row.items_per_second),
                millis(row.p50_us),
                millis(row.p99_us),
                millis(row.p999_us),
                ratio(row.ratio),
                ratio(row.aim),
                row.failures.to_string(),
            ]);
        }
        rows
    }
}

fn row(measure: Measure, measured: &Measured, setup: &Setup) -> Row {
    let samples = measured.of(measure);
    let mut took = latencies();
    for sample in samples {
        // Histograms of the same bounds always add up.
        let _ = took.add(&sample.latencies);
    }
    let limits = measure.limit().map(|limit| measured.of(limit));
    let ratios = limits.map(|limits| {
        let pairs = samples.iter().zip(limits);
        pairs
            .map(|(own, limit)| own.rate() / limit.rate())
            .collect()
    });
    Row {
        name: name(measure, setup.array),
        items_per_second: median(samples.iter().map(Sample::rate).collect()),
        ratio: ratios.map(median),
        aim: measure.aim(),
        p50_us: took.value_at_quantile(0.5),
        p99_us: took.value_at_quantile(0.99),
        p999_us: took.value_at_quantile(0.999),
        failures: samples.iter().map(|sample| sample.failures).sum(),
        first_failure: samples.iter().find_map(|s| s.first_failure.clone()),
    }
}

fn name(measure: Measure, array: usize) -> String {
    match measure {
        Measure::RawPublish => "raw: publish".into(),
        Measure::Submit => "submit".into(),
        Measure::SubmitArrays => format!("submit, {array} per request"),
        Measure::RawCycle => "raw: create + 2 compare-and-sets".into(),
        Measure::Cycle => "submit, claim, complete".into(),
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
    use std::time::Duration;

    fn sample(items: usize, millis: u64) -> Sample {
        Sample {
            items,
            elapsed: Duration::from_millis(millis),
            latencies: latencies(),
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
        assert_eq!(report.results[1].ratio, Some(0.5));
        assert!(report.results[0].ratio.is_none());
        assert!((report.results[1].items_per_second - 1_000.0 / 0.21).abs() < 1e-6);
    }

    #[test]
    fn medians_and_milliseconds() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(Vec::new()).to_bits(), 0.0_f64.to_bits());
        assert_eq!(millis(1_234), "1.23");
        assert_eq!(millis(9), "0.00");
    }
}
