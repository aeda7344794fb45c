use anyhow::{Result, bail};
use loom_protocol::ErrorCode;
use loom_protocol::work::{ClaimedItem, WorkItem, WorkStatus};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

const VERBS: [&str; 5] = ["start", "progress", "complete", "fail", "release"];

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stale_attempt_changes_nothing() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let first = agent.claim_one().await?;
    let failure = json!({"error": "try again", "retryAfterMs": 0});
    agent.report("fail", &first, failure).await?;

    // Pending again: the first attempt is over.
    let pending = project.work(id).await?;
    refused_by_all_verbs(&project, &agent, &first, &pending).await?;
    // Leased again: neither the attempt before nor the one to come counts.
    let second = agent.claim(json!({"waitMs": 10_000})).await?.remove(0);
    assert_eq!(second.lease.attempt, first.lease.attempt + 1);
    let leased = project.work(id).await?;
    refused_by_all_verbs(&project, &agent, &first, &leased).await?;
    let mut future = second.clone();
    future.lease.attempt += 1;
    refused_by_all_verbs(&project, &agent, &future, &leased).await?;
    // Ended.
    agent.complete(&second, "done").await?;
    let ended = project.work(id).await?;
    refused_by_all_verbs(&project, &agent, &first, &ended).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn completing_by_another_agent_is_refused() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let holder = project.agent("rust").spawn().await?;
    let thief = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = holder.claim_one().await?;
    let before = project.work(id).await?;

    refused_by_all_verbs(&project, &thief, &item, &before).await?;
    holder.complete(&item, "mine").await?;
    let ended = project.work(id).await?;
    refused_by_all_verbs(&project, &thief, &item, &ended).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_liar_keeps_nothing_from_the_others() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let honest = project.agent("rust").spawn().await?;
    let held = project.submit_plain("rust").await?;
    let item = honest.claim_one().await?;
    let as_honest = project
        .agent("rust")
        .behaviour(Behaviour::As(honest.guid()))
        .spawn()
        .await?;
    let wrong = project
        .agent("rust")
        .behaviour(Behaviour::WrongAttempt)
        .spawn()
        .await?;
    let mut others = Vec::new();
    for _ in 0..2 {
        others.push(project.submit_plain("rust").await?);
    }
    for liar in [&as_honest, &wrong] {
        let done = liar.wait_until(|done| !done.refused.is_empty()).await?;
        assert!(done.completed.is_empty());
        assert_eq!(done.refused[0].code, ErrorCode::StaleLease);
    }
    for id in others {
        assert_eq!(project.work(id).await?.status, WorkStatus::Assigned);
    }
    assert_eq!(honest.complete(&item, "done").await?.id, held);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_finished_item_takes_no_more_changes() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.complete(&item, "done").await?;
    let before = project.work(id).await?;

    let cancel = json!({ "id": id });
    let refused = project
        .request("work.cancel", cancel.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::TerminalState);
    let path = ["work", &id.to_string(), "cancel"];
    let refused = project
        .api()?
        .post::<Value>(&path, &cancel)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::TerminalState));
    assert_eq!(project.work(id).await?, before);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_completed_attempt_ends_as_it_was_completed() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.complete(&item, "done").await?;

    // The same agent, the same attempt, another end.
    for verb in ["fail", "release", "progress"] {
        let error = json!({"error": "no"});
        let refused = agent.report(verb, &item, error).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::StaleLease, "{verb}");
    }
    assert_eq!(project.work(id).await?.status, WorkStatus::Completed);
    Ok(())
}

/// None of an agent's verbs does anything to the item with this lease.
async fn refused_by_all_verbs(
    project: &TestProject,
    agent: &FakeAgent,
    lease: &ClaimedItem,
    before: &WorkItem,
) -> Result<()> {
    for verb in VERBS {
        // A repetition of how that very lease ended would be answered as it was.
        if verb == "fail" && lease.lease.attempt == 1 && before.attempts == 1 {
            continue;
        }
        let error = json!({"error": "no"});
        let Err(refused) = agent.report(verb, lease, error).await else {
            bail!("{verb} was accepted");
        };
        assert_eq!(refused.code, ErrorCode::StaleLease, "{verb}: {refused}");
        assert!(
            refused.message.contains(&before.id.to_string()),
            "{refused}"
        );
    }
    assert_eq!(project.work(before.id).await?, *before);
    Ok(())
}
