//! The group "Failure Scenarios" of the integration-test document, one test per line, named after it; and each once
//! more with the coordinator killed in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "stage/mod.rs"]
mod stage;

use std::time::Duration;

use anyhow::Result;
use loom_protocol::agent::AgentStatus;
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{ErrorCode, WorkId};
use loom_testkit::agent::Behaviour;
use serde_json::{Value, json};

use stage::{Middle, STALE_AFTER, Stage, scenario};

scenario!(agent_dies_without_deregistering, middle, {
    let mut stage = Stage::open(middle).await?;
    let mut signals = stage.project.signals().await?;
    let dying = stage
        .agent("rust")
        .behaviour(Behaviour::Hold)
        .spawn()
        .await?;
    let id = stage.project.submit_plain("rust").await?;
    let lease = dying.wait_until_claimed(1).await?.claimed[0];
    let dead = dying.guid();
    dying.die();
    stage.middle().await?;

    let successor = stage
        .agent("rust")
        .behaviour(Behaviour::Diligent)
        .spawn()
        .await?;
    successor.wait_until_completed(id).await?;
    let item = stage.project.work(id).await?;
    assert!(item.attempt > lease.attempt);
    assert_eq!(item.assigned_to, Some(successor.guid()));
    let retried = signals.work(WorkEventKind::Retried, id).await?;
    assert!(
        [Some(Reason::AgentLost), Some(Reason::NotStarted)].contains(&retried.reason),
        "{retried:?}"
    );
    // The dead one is known as such, and a ghost of it is told so.
    let seen = stage
        .project
        .request("agents.get", json!({ "guid": dead }))
        .await?;
    assert_eq!(seen["status"], json!(AgentStatus::Offline));
    let late = json!({ "id": id, "guid": dead, "attempt": lease.attempt });
    let refused = stage
        .project
        .request("work.complete", late)
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleLease);
    Ok(())
});

scenario!(work_fails_after_max_attempts, middle, {
    let mut stage = Stage::open(middle).await?;
    let (id, attempt) = fail_for_good(&mut stage, middle).await?;
    assert_eq!(attempt, 2);
    let letters = stage.until_dead_letters(1).await?;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["id"], json!(id));
    assert_eq!(letters[0]["reason"], json!(Reason::AgentError));
    assert_eq!(letters[0]["attempts"], json!(2));
    let messages: Vec<&Value> = letters[0]["errors"]
        .as_array()
        .expect("the whole story")
        .iter()
        .map(|error| &error["message"])
        .collect();
    assert_eq!(messages, [&json!("broken 1"), &json!("broken 2")]);
    Ok(())
});

scenario!(dlq_retry_moves_back_to_queue, middle, {
    let mut stage = Stage::open(middle).await?;
    let (id, attempt) = fail_for_good(&mut stage, Middle::Quiet).await?;
    let answer = stage
        .project
        .request("dlq.retry", json!({ "id": id }))
        .await?;
    assert_eq!(answer["ids"], json!([id]));
    stage.middle().await?;

    // The item is back with all of its attempts, and the fence has not fallen.
    let agent = stage.agent("rust").spawn().await?;
    let item = stage.claim_one(&agent).await?;
    assert_eq!((item.work_item.id, item.lease.attempt), (id, attempt + 1));
    assert_eq!(item.work_item.attempts, 0);
    agent.complete(&item, "at last").await?;
    assert_eq!(stage.project.work(id).await?.status, WorkStatus::Completed);
    // The letter goes, killed or not; one that was still being written when the item went back goes too.
    stage.until_no_dead_letter().await?;
    Ok(())
});

scenario!(work_timeout_handling, middle, {
    let mut stage = Stage::open(middle).await?;
    let mut signals = stage.project.signals().await?;
    // Its heart beats, and nothing is heard of its work.
    let stuck = stage
        .agent("rust")
        .behaviour(Behaviour::Hold)
        .spawn()
        .await?;
    let item = json!({ "description": "d", "capability": "rust", "timeoutMs": 1_500 });
    let id = stage.project.submit(item).await?.id;
    let lease = stuck.wait_until_claimed(1).await?.claimed[0];
    let begun = json!({ "id": id, "guid": stuck.guid(), "attempt": lease.attempt });
    stage.project.request("work.start", begun.clone()).await?;
    stage.middle().await?;

    let retried = signals.work(WorkEventKind::Retried, id).await?;
    assert_eq!(retried.reason, Some(Reason::Timeout));
    let pending = stage.project.work(id).await?;
    assert_eq!((pending.status, pending.attempts), (WorkStatus::Pending, 1));
    let other = stage
        .agent("rust")
        .behaviour(Behaviour::Diligent)
        .spawn()
        .await?;
    other.wait_until_completed(id).await?;
    let refused = stage
        .project
        .request("work.complete", begun)
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleLease);
    // The one that was stuck is alive all the same.
    assert_ne!(stuck.seen().await?.status, AgentStatus::Offline);
    Ok(())
});

/// An item of two attempts that both fail: its id and its last attempt.
async fn fail_for_good(stage: &mut Stage, middle: Middle) -> Result<(WorkId, u32)> {
    let item = json!({ "description": "d", "capability": "rust", "maxAttempts": 2 });
    let id = stage.project.submit(item).await?.id;
    let agent = stage.agent("rust").spawn().await?;
    let mut last = 0;
    for attempt in 1..=2 {
        let item = stage.claim_one(&agent).await?;
        last = item.lease.attempt;
        agent
            .fail(&item, &format!("broken {attempt}"), true)
            .await?;
        if attempt == 1 && middle == Middle::Killed {
            stage.middle().await?;
        }
    }
    let failed = stage.project.work(id).await?;
    assert_eq!(failed.status, WorkStatus::Failed);
    assert_eq!(failed.assigned_to, Some(agent.guid()), "who had it last");
    agent.deregister().await?;
    Ok((id, last))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn work_of_a_dead_agent_is_taken_over_within_stale_after_and_a_second() -> Result<()> {
    let stage = Stage::open(Middle::Quiet).await?;
    let mut fastest = Duration::MAX;
    // A machine that stands still for a second gives everybody a full grace, so the best of some counts.
    for _ in 0..4 {
        let dying = stage
            .agent("rust")
            .behaviour(Behaviour::Hold)
            .spawn()
            .await?;
        let id = stage.project.submit_plain("rust").await?;
        dying.wait_until_claimed(1).await?;
        let successor = stage
            .agent("rust")
            .behaviour(Behaviour::Diligent)
            .spawn()
            .await?;
        let died = tokio::time::Instant::now();
        dying.die();
        successor.wait_until_completed(id).await?;
        fastest = fastest.min(died.elapsed());
        successor.deregister().await?;
    }
    assert!(
        fastest <= STALE_AFTER + Duration::from_secs(1),
        "{fastest:?}"
    );
    Ok(())
}
