//! What is measured of a project's work. Names and units are those of Prometheus; the program
//! serves them at `/metrics`, and a program that installs no recorder pays nothing.
//!
//! | name | what it counts |
//! |---|---|
//! | `loom_work_submitted_total` | items created |
//! | `loom_work_finished_total{status}` | items that ended |
//! | `loom_work_returns_total{reason}` | leases that ended with the item pending again |
//! | `loom_reports_ignored_total` | published reports of other runs than the registered one |
//! | `loom_lease_expiries_total{reason}` | leases that a clock of ours ended |
//! | `loom_work_claim_wait_seconds` | from the submission to the first claim |
//! | `loom_work_run_seconds` | from the start of the last attempt to its completion |
//! | `loom_ledger_write_seconds` | from the sending of a write to its known outcome |
//! | `loom_ledger_operations` | operations under way or queued, now |

use std::time::Duration;

use loom_protocol::ProjectId;
use loom_protocol::work::{Reason, WorkStatus};
use metrics::{Counter, Gauge, Histogram, Unit};

use super::operation::Applied;
use crate::domain::work::WorkRecord;

const SUBMITTED: &str = "loom_work_submitted_total";
const FINISHED: &str = "loom_work_finished_total";
const RETURNS: &str = "loom_work_returns_total";
const EXPIRIES: &str = "loom_lease_expiries_total";
const CLAIM_WAIT: &str = "loom_work_claim_wait_seconds";
const RUN: &str = "loom_work_run_seconds";
const WRITE: &str = "loom_ledger_write_seconds";
const OPERATIONS: &str = "loom_ledger_operations";

/// Says what each name means, to whoever reads `/metrics`.
pub fn describe() {
    metrics::describe_counter!(SUBMITTED, "Work items created.");
    metrics::describe_counter!(FINISHED, "Work items that ended, by status.");
    metrics::describe_counter!(
        RETURNS,
        "Leases that ended with the item pending again, by reason."
    );
    metrics::describe_counter!(
        EXPIRIES,
        "Leases that a clock of the coordinator ended, by reason."
    );
    metrics::describe_histogram!(
        CLAIM_WAIT,
        Unit::Seconds,
        "From the submission of an item to its first claim."
    );
    metrics::describe_histogram!(
        RUN,
        Unit::Seconds,
        "From the start of the last attempt to its completion."
    );
    metrics::describe_histogram!(
        WRITE,
        Unit::Seconds,
        "From the sending of a ledger write to its known outcome."
    );
    metrics::describe_gauge!(OPERATIONS, "Ledger operations under way or queued.");
}

/// The meters of one project.
pub(super) struct Meters {
    project: String,
    submitted: Counter,
    claim_wait: Histogram,
    run: Histogram,
    write: Histogram,
    operations: Gauge,
}

impl Meters {
    pub fn of(project: &ProjectId) -> Self {
        let project = project.to_string();
        Self {
            submitted: metrics::counter!(SUBMITTED, "project" => project.clone()),
            claim_wait: metrics::histogram!(CLAIM_WAIT, "project" => project.clone()),
            run: metrics::histogram!(RUN, "project" => project.clone()),
            write: metrics::histogram!(WRITE, "project" => project.clone()),
            operations: metrics::gauge!(OPERATIONS, "project" => project.clone()),
            project,
        }
    }

    pub fn wrote(&self, took: Duration) {
        self.write.record(took);
    }

    pub fn operations(&self, now: usize) {
        self.operations.set(u32::try_from(now).unwrap_or(u32::MAX));
    }

    /// Counts a transition that was written.
    pub fn transition(&self, applied: &Applied) {
        let record = &*applied.record;
        let Some(before) = applied.before else {
            self.submitted.increment(1);
            return;
        };
        if before.is_terminal() {
            return;
        }
        match record.status {
            WorkStatus::Assigned | WorkStatus::InProgress => {
                if let Some(waited) = applied.first_wait() {
                    self.claim_wait.record(waited);
                }
            }
            WorkStatus::Pending if before.is_leased() => {
                if let Some(reason) = record.pending_reason {
                    self.count(RETURNS, "reason", reason.as_str());
                    self.note_expiry(reason);
                }
            }
            status if status.is_terminal() => self.ended(before, record),
            _ => {}
        }
    }

    fn ended(&self, before: WorkStatus, record: &WorkRecord) {
        self.count(FINISHED, "status", record.status.as_str());
        match (record.status, record.started_at) {
            (WorkStatus::Completed, Some(started)) => {
                self.run.record(record.updated_at.since(started));
            }
            (WorkStatus::Failed, _) if before.is_leased() => {
                if let Some(error) = record.errors.last() {
                    self.note_expiry(error.reason);
                }
            }
            _ => {}
        }
    }

    fn note_expiry(&self, reason: Reason) {
        if matches!(
            reason,
            Reason::Timeout | Reason::AgentLost | Reason::NotStarted | Reason::Deadline
        ) {
            self.count(EXPIRIES, "reason", reason.as_str());
        }
    }

    fn count(&self, name: &'static str, label: &'static str, value: &'static str) {
        metrics::counter!(name, "project" => self.project.clone(), label => value).increment(1);
    }
}
