use anyhow::Result;
use futures_util::future::try_join_all;
use loom_protocol::work::{ClaimedItem, WorkStatus};
use loom_protocol::{WorkId, names};
use loom_testkit::fleet::Fleet;
use serde_json::json;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn submit_is_idempotent_by_id() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let id = WorkId::generate();
    let item = |text: &str| json!({"id": id, "description": text, "capability": "rust"});

    // At the same time…
    let submits = (0..20).map(|n| project.submit(item(&format!("number {n}"))));
    let mut answers = try_join_all(submits).await?;
    let new = answers.iter().filter(|answer| !answer.existing);
    assert_eq!(new.count(), 1, "{answers:?}");
    answers.sort_by_key(|answer| !answer.existing);
    assert!(
        answers[..19].iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!((answers[0].id, answers[0].work_item_id), (id, id));
    // …twice in one request, over REST, by publishing…
    let twice = json!({"items": [item("a"), item("b")]});
    let twice = project.request("work.submit", twice).await?;
    assert_eq!(twice["items"][0], twice["items"][1]);
    let by_rest: loom_protocol::work::SubmitAnswer =
        project.api()?.post(&["work"], &item("by REST")).await?;
    assert_eq!(by_rest, answers[0]);
    let queue = names::work_queue(project.id(), "rust");
    project.publish(queue, &item("published")).await?;
    // …and after its end.
    let agent = project.agent("rust").spawn().await?;
    let claimed = agent.claim_one().await?;
    let before = agent.complete(&claimed, "done").await?;
    // The guess at who takes it, and when, is made anew.
    let late = project.submit(item("late")).await?;
    assert_eq!((late.id, &late.task_id), (id, &answers[0].task_id));
    assert!(late.existing);

    assert_eq!(project.all_work().await?.len(), 1);
    let after = project.work(id).await?;
    assert_eq!(after.revision, before.revision);
    assert_eq!(after.status, WorkStatus::Completed);
    assert!(
        after.description.starts_with("number "),
        "{}",
        after.description
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn same_claim_id_gives_same_items() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for _ in 0..5 {
        project.submit_plain("rust").await?;
    }
    let agent = project.agent("rust").slots(4).spawn().await?;
    let claim = |name: &str| agent.claim(json!({"claimId": name, "max": 2}));
    let leases = |items: &[ClaimedItem]| -> Vec<_> {
        items
            .iter()
            .map(|item| (item.work_item.id, item.lease.attempt))
            .collect()
    };

    let (first, same) = tokio::try_join!(claim("one"), claim("one"))?;
    // Of two at the same time the earlier is answered empty or alike, never with others.
    let given = if first.is_empty() { &same } else { &first };
    assert_eq!(given.len(), 2);
    for items in [&first, &same] {
        assert!(items.is_empty() || leases(items) == leases(given));
    }
    agent.start(&given[0]).await?;
    let again = claim("one").await?;
    assert_eq!(leases(&again), leases(given));
    let other = claim("two").await?;
    assert_eq!(other.len(), 2);
    assert!(
        leases(&other)
            .iter()
            .all(|lease| !leases(given).contains(lease))
    );
    assert_eq!(leases(&claim("one").await?), leases(given));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn completing_twice_gives_the_same_answer() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;

    let answer = agent.complete(&item, "done").await?;
    assert_eq!(answer.status, WorkStatus::Completed);
    assert_eq!(agent.complete(&item, "done differently").await?, answer);
    let result = project
        .work(item.work_item.id)
        .await?
        .result
        .expect("a result");
    assert_eq!(result.summary.as_deref(), Some("done"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn failing_and_releasing_twice_give_the_same_answer() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    for _ in 0..2 {
        project.submit_plain("rust").await?;
    }
    let items = agent.claim(json!({"max": 2})).await?;

    let failed = agent.fail(&items[0], "no disk", true).await?;
    assert_eq!(agent.fail(&items[0], "no disk", true).await?, failed);
    let released = agent.release(&items[1]).await?;
    assert_eq!(agent.release(&items[1]).await?, released);
    let failed = project.work(items[0].work_item.id).await?;
    assert_eq!((failed.attempts, failed.errors.len()), (1, 1));
    let released = project.work(items[1].work_item.id).await?;
    assert_eq!(
        (released.status, released.attempts),
        (WorkStatus::Pending, 0)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn registering_again_keeps_the_leases() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;

    let registration = json!({
        "guid": agent.guid(), "handle": "again", "agentType": "fake", "capabilities": ["rust"],
    });
    let answer = project.request("agents.register", registration).await?;
    assert_eq!(
        answer["leases"],
        json!([{"id": id, "attempt": item.lease.attempt}])
    );
    assert_eq!(
        agent.complete(&item, "done").await?.status,
        WorkStatus::Completed
    );
    Ok(())
}
