//! What a run came to, for people.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::fleet::Role;
use crate::history::{FinalState, Verdict};

/// What a run came to.
#[derive(Debug)]
pub struct ChaosReport {
    /// The seed that gives the same schedule again.
    pub seed: u64,
    /// How long it took after the storm until every item had ended.
    pub settled_within: Duration,
    /// What the checker says.
    pub verdict: Verdict,
    /// How many items the agent processes had, and what is wrong with how those ended.
    pub processes: (usize, Vec<String>),
    /// How many items the agents of targets had, and what is wrong with those, with births, and with what is left.
    pub targets: (usize, Vec<String>),
    /// How often each thing was done.
    pub counts: BTreeMap<String, u64>,
    /// How often each actor was started again.
    pub restarts: Vec<(Role, u64)>,
    /// How everything stands.
    pub at_the_end: FinalState,
}

impl ChaosReport {
    /// Whether every promise was kept.
    pub fn is_sound(&self) -> bool {
        self.verdict.is_sound() && self.processes.1.is_empty() && self.targets.1.is_empty()
    }
}

impl fmt::Display for ChaosReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<40} {:>8}", "what was done", "times")?;
        for (kind, count) in &self.counts {
            writeln!(f, "{kind:<40} {count:>8}")?;
        }
        for (role, count) in &self.restarts {
            let restarted = format!("{role:?} started again");
            writeln!(f, "{restarted:<40} {count:>8}")?;
        }
        let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
        for item in &self.at_the_end.items {
            *by_status.entry(item.status.as_str()).or_default() += 1;
        }
        for (status, count) in by_status {
            let items = format!("items {status} at the end");
            writeln!(f, "{items:<40} {count:>8}")?;
        }
        writeln!(
            f,
            "settled within {:.1} s",
            self.settled_within.as_secs_f64()
        )?;
        for (whose, (count, wrong)) in [
            ("agent processes", &self.processes),
            ("agents of targets", &self.targets),
        ] {
            writeln!(f, "{count} items of {whose}, {} wrong", wrong.len())?;
            for why in wrong {
                writeln!(f, "{why}")?;
            }
        }
        writeln!(f, "seed {}: {}", self.seed, self.verdict)
    }
}
