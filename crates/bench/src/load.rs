//! So many operations, so many of them in flight, and what they took.

use std::fmt::Display;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hdrhistogram::Histogram;

use super::cpu::CpuTimes;

/// The longest time that is told apart, in microseconds: a minute.
const LONGEST: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// What one measurement came to.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// How many items went through.
    pub items: usize,
    /// In which time.
    pub elapsed: Duration,
    /// What each operation took, in microseconds.
    pub latencies: Histogram<u64>,
    /// What it cost.
    pub cpu: CpuTimes,
    /// How many operations failed, and how the first of them did.
    pub failures: usize,
    /// What the first failure said.
    pub first_failure: Option<String>,
}

impl Sample {
    /// Items per second.
    #[allow(clippy::cast_precision_loss, reason = "a rate is no exact number")]
    pub fn rate(&self) -> f64 {
        self.items as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// What each item has of a time that all have taken, in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "a mean is no exact number")]
    pub fn micros_per_item(&self, spent: Duration) -> f64 {
        spent.as_secs_f64() * 1e6 / self.items.max(1) as f64
    }
}

/// An empty record of what operations took.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).unwrap_or_else(|_| {
        unreachable!("the bounds are constants that a histogram can be made of")
    })
}

/// Notes what an operation took.
pub(super) fn record(latencies: &mut Histogram<u64>, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
    latencies.saturating_record(micros.max(1));
}

/// Carries out `operations` of `items_each`, as many at a time as `in_flight` says.
///
/// All of them run on the caller's task: the client has one thread and one connection, so that
/// Loom and the raw limit are measured with the same client.
pub(super) async fn drive<F, E>(
    operations: usize,
    items_each: usize,
    in_flight: usize,
    operation: impl Fn(usize) -> F,
) -> Sample
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut sample = Sample {
        items: 0,
        elapsed: Duration::ZERO,
        latencies: latencies(),
        cpu: CpuTimes::default(),
        failures: 0,
        first_failure: None,
    };
    let begun = Instant::now();
    let timed = |number| {
        let operation = operation(number);
        async move {
            let begun = Instant::now();
            (operation.await, begun.elapsed())
        }
    };
    let mut outcomes = stream::iter((0..operations).map(timed)).buffer_unordered(in_flight);
    while let Some((outcome, took)) = outcomes.next().await {
        match outcome {
            Ok(()) => sample.items += items_each,
            Err(error) => {
                sample.failures += 1;
                sample
                    .first_failure
                    .get_or_insert_with(|| error.to_string());
            }
        }
        record(&mut sample.latencies, took);
    }
    sample.elapsed = begun.elapsed();
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn as_many_as_asked_for_are_in_flight_and_failures_are_told() {
        let (now, most) = (Cell::new(0), Cell::new(0));
        let sample = drive(20, 3, 4, |number| {
            let (now, most) = (&now, &most);
            async move {
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                if number % 10 == 7 {
                    return Err(format!("{number} failed"));
                }
                Ok(())
            }
        })
        .await;
        assert_eq!(most.get(), 4);
        assert_eq!((sample.items, sample.failures), (18 * 3, 2));
        assert_eq!(sample.latencies.len(), 20);
        assert_eq!(sample.first_failure.as_deref(), Some("7 failed"));
    }
}
