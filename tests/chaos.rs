//! A short chaos run; `cargo xtask chaos` makes longer ones.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use loom_testkit::chaos::Chaos;

/// Any will do; another one is another run.
const SEED: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn nothing_is_lost_and_nothing_counts_twice_whatever_breaks() {
    let run = Chaos::new(env!("CARGO_BIN_EXE_loom"), SEED);
    let report = Box::pin(run.run()).await.unwrap();
    eprintln!("{report}");
    assert!(report.is_sound(), "a promise was broken, see above");
}
