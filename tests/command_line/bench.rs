//! `loom bench`: every row is measured, and nothing is left running.

use serde_json::Value;

use crate::program::{loom, outcome};

#[test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
fn every_row_is_measured_without_a_failure() {
    let mut bench = loom(&["bench", "--json", "--rounds", "1", "--items", "64"]);
    let (code, stdout, stderr) = outcome(bench.args(["--in-flight", "4", "--agents", "2"]));
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let rows = report["results"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    for row in ["submit, claim, complete", "submit, complete and claim next"] {
        assert!(names.contains(&row), "{names:?}");
    }
    assert_eq!(names.len(), 8, "{names:?}");
    for row in rows {
        assert_eq!(row["failures"], 0, "{row}");
        assert!(row["itemsPerSecond"].as_f64().unwrap() > 0.0, "{row}");
    }
}
