use std::time::Duration;

use anyhow::Result;
use loom_protocol::dead_letter::RetryAnswer;
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{Reason, WorkStatus};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

use super::house::{
    expire_record, fail, fail_one, get, letter_of, no_letter_of, one_letter_each, record, stored,
};

async fn retry(project: &TestProject, request: Value) -> Result<RetryAnswer> {
    Ok(project.call("dlq.retry", &request).await?)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_retried_item_is_back_in_the_queue_and_an_agent_completes_it() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail(&project, &agent, json!({"contextData": {"n": 1}})).await?;
    letter_of(&project, id).await?;
    let mut signals = project.signals().await?;

    let first = retry(&project, json!({"id": id.to_string()[..30]})).await?;
    assert_eq!((first.retried, first.ids.as_slice()), (1, &[id][..]));
    let told = signals.work(WorkEventKind::Retried, id).await?;
    assert_eq!(told.reason, Some(Reason::AgentError));
    assert_eq!(stored(&project).await?.0, 0, "its letter is deleted");
    assert!(get(&project, id).await.is_err());
    let item = project.work(id).await?;
    assert_eq!((item.status, item.attempts), (WorkStatus::Pending, 0));
    assert_eq!(item.errors.len(), 1, "its story goes on");

    let claimed = agent.claim_one().await?;
    assert_eq!(claimed.work_item.id, id);
    assert_eq!(claimed.lease.attempt, 2, "the fence goes on where it was");
    assert!(claimed.work_item.context_data.is_some());
    let again = retry(&project, json!({"id": id})).await?;
    assert_eq!(again, first, "repeated: the same answer, and nothing else");
    agent.complete(&claimed, "done at last").await?;
    assert_eq!(retry(&project, json!({"id": id})).await?, first);
    assert_eq!(project.work(id).await?.status, WorkStatus::Completed);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_retry_without_resetting_gives_one_more_attempt() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let claimed = agent.claim_one().await?;
    agent.fail(&claimed, "hopeless", false).await?;
    letter_of(&project, id).await?;
    retry(&project, json!({"id": id, "resetAttempts": false})).await?;
    let item = project.work(id).await?;
    assert_eq!((item.attempts, item.max_attempts), (1, 3));

    let claimed = agent.claim_one().await?;
    agent.fail(&claimed, "still hopeless", false).await?;
    let letter = letter_of(&project, id).await?;
    assert_eq!((letter.retries, letter.attempts), (1, 2));
    assert_eq!(letter.errors.len(), 2);
    assert_eq!(letter.work_item.attempt, 2);
    assert_eq!(stored(&project).await?.0, 1, "one letter, the new one");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_letter_whose_record_has_expired_comes_back_above_its_fence() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let labels = json!({"labels": {"team": "a"}, "contextData": [1, 2], "priority": 9});
    let ids = [
        fail(&project, &agent, labels.clone()).await?,
        fail(&project, &agent, labels).await?,
    ];
    for id in ids {
        letter_of(&project, id).await?;
    }
    // Once while the read model still knows the record, and once after a start that never saw it.
    expire_record(&project, ids[0]).await?;
    retry(&project, json!({"id": ids[0]})).await?;
    expire_record(&project, ids[1]).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    let mut signals = project.signals().await?;
    project.insist("dlq.retry", json!({"id": ids[1]})).await?;
    signals.work(WorkEventKind::Retried, ids[1]).await?;

    for id in ids {
        no_letter_of(&project, id).await?;
        let item = project.work(id).await?;
        assert_eq!((item.status, item.attempt), (WorkStatus::Pending, 2));
        assert_eq!((item.priority, item.labels["team"].as_str()), (9, "a"));
        assert_eq!(item.errors.len(), 1);
        let context: Value = item.context_data.unwrap().parse()?;
        assert_eq!(context, json!([1, 2]));
        let again = retry(&project, json!({"id": id})).await?;
        assert_eq!(again.ids, [id]);
        assert_eq!(record(&project, id).await?.retries, 1, "not twice");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stale_agent_cannot_complete_an_item_that_was_put_back() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let item = json!({"description": "d", "capability": "rust", "maxAttempts": 1});
    let id = project.submit(item).await?.id;
    let claimed = agent.claim_one().await?;
    agent.fail(&claimed, "broken", true).await?;
    letter_of(&project, id).await?;
    retry(&project, json!({"id": id})).await?;
    let refused = agent.complete(&claimed, "late").await.unwrap_err();
    assert_eq!(refused.code, loom_protocol::ErrorCode::StaleLease);
    assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn letters_go_back_by_filter_and_all_together() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for capability in ["rust", "go", "rust"] {
        let agent = project.agent(capability).spawn().await?;
        let id = fail_one(&project, &agent).await?;
        letter_of(&project, id).await?;
        agent.deregister().await?;
    }
    let nothing = project.request("dlq.retry", json!({})).await.unwrap_err();
    assert!(nothing.message.contains("all: true"), "{nothing:?}");
    let none = retry(&project, json!({"capability": "rust", "reason": "timeout"})).await?;
    assert_eq!((none.retried, none.failed), (0, 0));
    let some = retry(&project, json!({"capability": "rust"})).await?;
    assert_eq!((some.retried, some.ids.len()), (2, 2));
    assert_eq!(one_letter_each(&project).await?, 1);
    assert_eq!(retry(&project, json!({"all": true})).await?.retried, 1);
    let pending = project.request("queue.info", json!({})).await?;
    assert_eq!(pending["pending"], json!({"rust": 2, "go": 1}));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_never_failed_cannot_be_retried() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    let refused = project.request("dlq.retry", json!({"id": id})).await;
    assert!(refused.unwrap_err().message.contains("no dead letter"));
    let unknown = loom_protocol::WorkId::generate();
    let refused = project.request("dlq.retry", json!({"id": unknown})).await;
    let code = refused.unwrap_err().code;
    assert_eq!(code, loom_protocol::ErrorCode::NotFound);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_schedule_puts_letters_back_goes_on_after_a_crash_and_stops_at_its_limit() -> Result<()>
{
    let mut fleet = Fleet::builder()
        .settings(|settings| {
            settings.dlq.auto_retry = true;
            settings.dlq.auto_retry_reasons = vec![Reason::AgentError];
            settings.dlq.auto_retry_after = Duration::from_millis(500);
            settings.dlq.auto_retry_max = 2;
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail_one(&project, &agent).await?;
    letter_of(&project, id).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    for retried in 1..=2 {
        let claim = json!({"guid": agent.guid(), "waitMs": 10_000});
        let claimed = project.insist("work.claim", claim).await?;
        let claimed = serde_json::from_value(claimed["items"][0].clone())?;
        assert_eq!(record(&project, id).await?.auto_retries, retried);
        agent.fail(&claimed, "broken again", true).await?;
        letter_of(&project, id).await?;
    }
    let letters = project.parts()?.letters.clone();
    let info = letters.info(id).unwrap();
    assert_eq!((info.head.retries, info.head.auto_retries), (2, 2));
    assert!(
        !letters.is_scheduled(id),
        "from here on somebody has to look"
    );

    retry(&project, json!({"id": id})).await?;
    let record = record(&project, id).await?;
    assert_eq!((record.retries, record.auto_retries), (3, 0));
    Ok(())
}
