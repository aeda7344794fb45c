use anyhow::Result;
use loom_protocol::work::{ClaimedItem, WorkStatus, limits};
use loom_protocol::{Encoding, ErrorCode, WireError};
use loom_testkit::agent::FakeAgent;
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

/// Claims until it holds `count` items: one claim gives as many as fit into its answer.
async fn hold(agent: &FakeAgent, count: usize) -> Result<Vec<ClaimedItem>> {
    let mut held = Vec::new();
    while held.len() < count {
        let given = agent.claim(json!({"max": 64, "waitMs": 5_000})).await?;
        anyhow::ensure!(!given.is_empty(), "{} of {count} items", held.len());
        held.extend(given);
    }
    Ok(held)
}

fn completion(agent: &FakeAgent, held: &[ClaimedItem]) -> Value {
    let items: Vec<Value> = held
        .iter()
        .map(|claimed| json!({"id": claimed.work_item.id, "attempt": claimed.lease.attempt}))
        .collect();
    json!({"guid": agent.guid(), "items": items, "thenClaim": {"max": 64}})
}

async fn submit_many(project: &TestProject, item: Value, count: usize) -> Result<()> {
    for _ in 0..count {
        project.submit(item.clone()).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_recorded_end_is_never_answered_as_an_error_for_its_size() -> Result<()> {
    let fleet = Fleet::shared().await?;
    // Each of these bytes takes six in JSON.
    let wordy = json!({"capability": "rust", "description": "\u{1}".repeat(16 * 1024)});
    // Each of these numbers takes four bytes in JSON and nine in MessagePack.
    let numbers = vec![1.5; limits::CONTEXT_DATA / 4 - 1];
    let heavy =
        json!({"capability": "rust", "description": "next", "priority": 1, "contextData": numbers});
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let project = fleet.project().await?;
        let agent = project.agent("rust").slots(64).spawn().await?;
        submit_many(&project, wordy.clone(), limits::COMPLETIONS).await?;
        let held = hold(&agent, limits::COMPLETIONS).await?;
        submit_many(&project, heavy.clone(), 1).await?;

        let completed: Value = project
            .call_in(encoding, "work.complete", &completion(&agent, &held))
            .await?;
        for (answer, claimed) in completed["items"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(&held)
        {
            assert_eq!(answer["id"], json!(claimed.work_item.id));
            assert_eq!(answer["status"], "completed");
        }
        let next = &completed["claimed"][0]["workItem"];
        assert_eq!(
            next["contextData"].as_array().map(Vec::len),
            Some(numbers.len())
        );
        let status = project.work(held[0].work_item.id).await?.status;
        assert_eq!(status, WorkStatus::Completed);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn more_completions_than_an_answer_holds_are_refused_before_any_is_recorded() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    project.submit_plain("rust").await?;
    let held = hold(&agent, 1).await?;
    let many = vec![held[0].clone(); limits::COMPLETIONS + 1];
    let refused: Result<Value, WireError> = project
        .request("work.complete", completion(&agent, &many))
        .await;
    let error = refused.err().map(|error| error.code);
    assert_eq!(error, Some(ErrorCode::TooLarge));
    let status = project.work(held[0].work_item.id).await?.status;
    assert_eq!(status, WorkStatus::Assigned);
    Ok(())
}
