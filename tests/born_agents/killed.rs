//! A coordinator that is a process is killed at one moment after the other of a birth, from the submission of an item to
//! its end: one agent does it, once.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use loom_protocol::WorkId;
use loom_protocol::target::SpinUpStatus;
use serde_json::json;

use crate::house::{House, LOOM};

/// In how many parts the time from the submission to the end of an item is divided.
const MOMENTS: u32 = 12;

/// `$0`: the `loom`, `$1`: what its agent runs for an item, `$2`: the folder of the test.
const START: &str = r#"exec "$0" agent run -- sh -c "$1" sh "$2" "$LOOM_SPIN_UP_ID""#;
/// `$1`: the folder, `$2`: the start of the agent.
const PROGRAM: &str =
    r#"echo "$2 $LOOM_AGENT_GUID $LOOM_WORK_ITEM_ID" >> "$1/runs"; echo '{"summary":"said"}'"#;

/// One column of what the programs have written: the starts, the agents, or the items.
fn column(house: &House, number: usize) -> Vec<String> {
    let runs = std::fs::read_to_string(house.path("runs")).unwrap_or_default();
    let words = runs.lines().map(|line| line.split(' ').nth(number));
    words.flatten().map(str::to_owned).collect()
}

async fn submit(house: &House, id: WorkId) -> Result<()> {
    let item = json!({"id": id, "description": "d", "capability": "rust"});
    house.project.insist("work.submit", item).await?;
    Ok(())
}

/// So many items are done, each by an agent of its own, and nothing is left of any.
async fn check(house: &House, count: usize, id: WorkId) -> Result<()> {
    let item = house.project.until_ended(id).await?;
    ensure!(item.status.as_str() == "completed", "{item:?}");
    house.until_empty().await?;
    for number in 0..3 {
        let all = column(house, number);
        let distinct: BTreeSet<&String> = all.iter().collect();
        ensure!(
            (all.len(), distinct.len()) == (count, count),
            "starts, agents, items: one of each for {count} items, and there are {all:?}"
        );
    }
    let operations = house.operations().await?;
    ensure!(
        operations.len() == count
            && operations
                .iter()
                .all(|one| one.status == SpinUpStatus::Success),
        "{operations:?}"
    );
    let target = house.seen().await.context("the target is there")?;
    ensure!(target["useCount"] == json!(count), "{target}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_is_killed_at_any_moment_of_a_birth_has_one_agent_born() -> Result<()> {
    let mut house = House::open().await?;
    let arguments = json!(["-c", START, LOOM, PROGRAM, house.folder()]);
    house
        .target_of(json!({"command": "sh", "args": arguments}))
        .await?;
    let began = Instant::now();
    let id = WorkId::generate();
    submit(&house, id).await?;
    house.project.until_ended(id).await?;
    let undisturbed = began.elapsed();
    check(&house, 1, id).await?;
    for (moment, count) in (0..=MOMENTS).zip(2..) {
        let id = WorkId::generate();
        let project = house.project.clone();
        let item = json!({"id": id, "description": "d", "capability": "rust"});
        // Sent once more with its id where it was not answered.
        let submitting = tokio::spawn(async move { project.insist("work.submit", item).await });
        // deliberate sleep: until the moment at which the coordinator is killed
        tokio::time::sleep(undisturbed * moment / MOMENTS).await;
        house.coordinator.kill_9().await;
        house.coordinator.restart().await?;
        submitting.await??;
        let checked = check(&house, count, id).await;
        checked.with_context(|| format!("killed at {moment}/{MOMENTS} of {undisturbed:?}"))?;
    }
    Ok(())
}
