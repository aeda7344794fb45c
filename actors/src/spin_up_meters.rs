//! What is measured of starts of agents. Names and units are those of Prometheus; the program serves them at `/metrics`.
//!
//! | name | what it counts |
//! |---|---|
//! | `loom_spin_ups_total{mechanism,outcome}` | starts that have ended: `success`, `failed`, `timeout` |
//! | `loom_spin_up_birth_seconds{mechanism}` | from the decision to start an agent to its registration |

use loom_protocol::ProjectId;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

/// From the decision to start an agent to its registration.
pub const BIRTH_SECONDS: &str = "loom_spin_up_birth_seconds";
const SPIN_UPS: &str = "loom_spin_ups_total";

/// Says what each name means, to whoever reads `/metrics`.
pub fn describe() {
    describe_counter!(
        SPIN_UPS,
        "Starts of agents that have ended, by mechanism and outcome: success, failed, timeout."
    );
    describe_histogram!(
        BIRTH_SECONDS,
        Unit::Seconds,
        "From the decision to start an agent to its registration, by mechanism."
    );
}

/// Counts a start that has ended.
pub fn ended(project: &ProjectId, operation: &SpinUpOperation) {
    let (project, mechanism) = (project.to_string(), operation.mechanism.as_str());
    let outcome = operation.status;
    if let Some(ended_at) = operation.ended_at
        && outcome == SpinUpStatus::Success
    {
        let took = ended_at.since(operation.started_at);
        histogram!(BIRTH_SECONDS, "project" => project.clone(), "mechanism" => mechanism)
            .record(took.as_secs_f64());
    }
    counter!(
        SPIN_UPS,
        "project" => project, "mechanism" => mechanism, "outcome" => outcome.as_str()
    )
    .increment(1);
}
