use anyhow::Result;
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::work::{Reason, WorkItem, WorkStatus, limits};
use loom_protocol::{ErrorCode, WorkId, names};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

const KIB: usize = 1024;

fn item(description: usize, context: usize) -> Value {
    json!({
        "capability": "rust", "description": "d".repeat(description * KIB),
        "contextData": "c".repeat(context * KIB),
    })
}

async fn letter(project: &TestProject, id: WorkId) -> Result<DeadLetter> {
    let is_there = async || {
        let request = json!({ "id": id });
        project.call::<DeadLetter>("dlq.get", &request).await.ok()
    };
    project
        .eventually("its dead letter is written", is_there)
        .await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_could_not_be_kept_to_its_end_is_refused_with_the_numbers() -> Result<()> {
    let fleet = Fleet::builder().max_payload(512 * KIB).start().await?;
    assert!(fleet.service()?.readiness().ready);
    let project = fleet.project().await?;
    project.submit(item(1, 150)).await?;
    let refused = project.submit(item(1, 200)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    for part in ["524288", "max_payload", "contextData"] {
        assert!(refused.message.contains(part), "{refused}");
    }
    let both = json!({"items": [item(1, 10), item(1, 200)]});
    let both = project.request("work.submit", both).await?;
    assert!(both["items"][0]["id"].is_string());
    assert_eq!(both["items"][1]["code"], "too-large");

    project
        .publish(names::work_queue(project.id(), "rust"), &item(1, 200))
        .await?;
    let is_refused = async || {
        let all = project.all_work().await.ok()?;
        all.into_iter()
            .find(|item| item.status == WorkStatus::Failed)
    };
    let failed = project.eventually("it is refused", is_refused).await?;
    let letter = letter(&project, failed.id).await?;
    assert_eq!(letter.reason, Reason::Rejected);
    assert!(letter.submission.unwrap().size > 200 * KIB as u64);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_completion_is_never_refused_for_what_the_item_has_grown_to() -> Result<()> {
    let fleet = Fleet::builder().max_payload(512 * KIB).start().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit(item(1, 150)).await?.id;
    let first = agent.claim_one().await?;
    let failure = json!({"error": "e".repeat(limits::ERROR), "retryAfterMs": 0});
    agent.report("fail", &first, failure).await?;
    let second = agent.claim(json!({"waitMs": 10_000})).await?.remove(0);
    let large = json!({"result": {"summary": "s", "output": "o".repeat(380 * KIB)}});
    let completed = agent.report("complete", &second, large).await?;
    assert_eq!(completed["status"], "completed");
    let done = project.work(id).await?;
    let result = done.result.unwrap();
    assert!(result.summary.unwrap().contains("was cut"));
    assert!(
        result.output.unwrap().len() > 200 * KIB,
        "what fits is kept"
    );
    assert_eq!(done.context_data.unwrap().len(), 150 * KIB + 2);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_largest_item_lives_a_whole_life_with_the_default_limit() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let largest = json!({
        "capability": "rust", "description": "d".repeat(limits::DESCRIPTION),
        "contextData": "c".repeat(limits::CONTEXT_DATA - 2),
    });
    let first = project.submit(largest.clone()).await?.id;
    let claimed = agent.claim_one().await?;
    let result = json!({"result": {"output": "o".repeat(limits::RESULT - 2)}});
    agent.report("complete", &claimed, result).await?;
    let done = project.work(first).await?;
    assert_eq!(done.result.unwrap().output.unwrap().len(), limits::RESULT);

    let second = project.submit(largest.clone()).await?.id;
    let claimed = agent.claim_one().await?;
    let hopeless = json!({"error": "e".repeat(limits::ERROR), "recoverable": false});
    agent.report("fail", &claimed, hopeless).await?;
    let letter = letter(&project, second).await?;
    let context = letter.work_item.context_data.unwrap();
    assert_eq!(context.len(), limits::CONTEXT_DATA);

    // A page of such descriptions ends sooner, and says where the next one begins.
    for _ in 0..9 {
        project.submit(largest.clone()).await?;
    }
    assert_eq!(project.all_work().await?.len(), 11);
    let page: Vec<WorkItem> = project.call("work.list", &json!({})).await?;
    assert!((1..11).contains(&page.len()), "{} items", page.len());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_lowered_limit_does_not_carry_fails_and_takes_no_slot() -> Result<()> {
    let mut fleet = Fleet::builder().start().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let (given, cancelled) = (
        project.submit(item(1, 380)).await?.id,
        project.submit(item(1, 380)).await?.id,
    );
    fleet.restart_nats_with(400 * KIB).await?;
    let is_lowered = async || {
        let refused = project.submit(item(1, 300)).await.err()?;
        (refused.code == ErrorCode::TooLarge).then_some(())
    };
    project
        .eventually("the new limit is known", is_lowered)
        .await?;
    let small = project.insist("work.submit", item(1, 10)).await?;

    let claim = json!({"guid": agent.guid(), "waitMs": 10_000});
    project
        .insist("work.cancel", json!({ "id": cancelled }))
        .await?;
    let claimed = project.insist("work.claim", claim).await?;
    assert_eq!(claimed["items"][0]["workItem"]["id"], small["id"]);
    let failed = project.work(given).await?;
    assert_eq!(failed.status, WorkStatus::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.reason, Reason::Rejected);
    assert!(error.message.contains("max_payload"), "{}", error.message);
    assert_eq!(letter(&project, given).await?.reason, Reason::Rejected);
    let status = project.work(cancelled).await?.status;
    assert_eq!(status, WorkStatus::Cancelled);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_limit_below_which_nothing_can_be_taken_in_is_said() -> Result<()> {
    for limit in [64 * KIB, 300 * KIB] {
        let fleet = Fleet::builder().max_payload(limit).start().await?;
        let readiness = fleet.service()?.readiness();
        assert!(!readiness.ready);
        let said = readiness.problems.join("; ");
        assert!(
            said.contains("max_payload") && said.contains(&limit.to_string()),
            "{said}"
        );
        let project = fleet.project().await?;
        let refused = project.submit(item(1, 1)).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::TooLarge);
    }
    Ok(())
}
