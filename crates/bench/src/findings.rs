//! What a run gives.

use serde::Serialize;

use super::backlog::Backlog;
use super::listing::Listing;
use super::memory::Lap;
use super::report::Report;
use super::sheet::Sheet;

/// What was measured. Serialized, it is what `--json` prints.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Findings {
    /// Of the default run.
    Rounds(Report),
    /// Of `--listing`.
    Listing(Listing),
    /// Of `--backlog`.
    Backlog(Backlog),
    /// Of `--memory`, after each lap.
    Memory(Vec<Lap>),
}

impl Findings {
    /// The table.
    pub fn sheet(&self) -> Sheet {
        match self {
            Self::Rounds(report) => report.sheet(),
            Self::Listing(listing) => listing.sheet(),
            Self::Backlog(backlog) => backlog.sheet(),
            Self::Memory(laps) => super::memory::sheet(laps),
        }
    }

    /// A sentence for each measurement in which operations failed; none where all went well.
    pub fn failures(&self) -> Vec<String> {
        match self {
            Self::Rounds(report) => report.failures(),
            Self::Listing(_) | Self::Backlog(_) | Self::Memory(_) => Vec::new(),
        }
    }
}
