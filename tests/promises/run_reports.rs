//! What a run of an agent publishes counts for that run only.

use std::time::Duration;

use anyhow::Result;
use loom_actors::clock::Clock;
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, names};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use super::reports::wait_until_taken_over;
use super::runs::Run;

/// Longer than a question about the server's clock takes: so exactly it is known.
const EXACTLY_ENOUGH: Duration = Duration::from_millis(500);

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_published_report_counts_only_if_its_run_had_not_been_replaced() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let (first, _) = Run::registered(&project, guid, "first").await?;
    for _ in 0..2 {
        project.submit_plain("rust").await?;
    }
    let given = first.claims(json!({"max": 2})).await?;
    let (early, late) = (given[0].work_item.id, given[1].work_item.id);
    let completed = names::work_completed(project.id());
    // Whichever the coordinator hears of first when it is back: the report or the other run.
    fleet.stop().await?;
    let report = first.published(early, 1, "before");
    project.publish(completed.clone(), &report).await?;
    fleet.start_again().await?;
    let second = async || Some(Run::registered(&project, guid, "second").await.ok()?.0);
    let second = project.eventually("it registers", second).await?;
    wait_until_taken_over(&project).await?;
    let before = second.seen().await?.last_heartbeat;
    let report = first.published(late, 1, "after");
    project.publish(completed.clone(), &report).await?;
    let error = json!({
        "workItemId": late, "agentGuid": guid, "instanceId": "first", "attempt": 1,
        "error": {"message": "no", "recoverable": false},
    });
    project
        .publish(names::work_errors(project.id()), &error)
        .await?;
    wait_until_taken_over(&project).await?;
    assert_eq!(project.work(early).await?.status, WorkStatus::Completed);
    assert_eq!(project.work(late).await?.status, WorkStatus::Assigned);
    assert_eq!(
        second.seen().await?.last_heartbeat,
        before,
        "a report of it is no sign of life"
    );
    let report = second.published(late, 1, "mine");
    project.publish(completed, &report).await?;
    wait_until_taken_over(&project).await?;
    let item = project.work(late).await?;
    assert_eq!(item.result.and_then(|r| r.summary).as_deref(), Some("mine"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_published_report_of_a_run_that_never_registered_changes_nothing() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let (first, _) = Run::registered(&project, guid, "first").await?;
    let id = project.submit_plain("rust").await?;
    first.claims(json!({"start": true})).await?;
    let before = (first.seen().await?, project.work(id).await?.revision);
    let stranger = Run {
        project: project.clone(),
        guid,
        id: "made-up".into(),
    };
    let completed = names::work_completed(project.id());
    let report = stranger.published(id, 1, "not theirs");
    project.publish(completed.clone(), &report).await?;
    let error = json!({
        "workItemId": id, "agentGuid": guid, "instanceId": "made-up", "attempt": 1,
        "error": {"message": "no", "recoverable": false},
    });
    project
        .publish(names::work_errors(project.id()), &error)
        .await?;
    wait_until_taken_over(&project).await?;
    let after = (first.seen().await?, project.work(id).await?.revision);
    assert_eq!(after, before, "it is no sign of life and changes nothing");
    let letters = project.request("dlq.list", json!({})).await?;
    assert_eq!(
        letters,
        json!([]),
        "and it is no fault that somebody has to mend"
    );
    let report = first.published(id, 1, "ours");
    project.publish(completed, &report).await?;
    wait_until_taken_over(&project).await?;
    let item = project.work(id).await?;
    assert_eq!(item.result.and_then(|r| r.summary).as_deref(), Some("ours"));
    Ok(())
}

/// A run may begin with a put, of which the coordinator hears by another way than of the report that follows it.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_report_that_overtakes_the_put_of_its_run_counts() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    Run::registered(&project, guid, "run-0").await?;
    let bucket = project.agents_bucket().await?;
    for n in 1..=20_u32 {
        let id = project.submit_plain("rust").await?;
        project.request("work.claim", json!({"guid": guid})).await?;
        let run = Run {
            project: project.clone(),
            guid,
            id: format!("run-{n}"),
        };
        let entry = json!({"guid": guid, "capabilities": ["rust"], "instanceId": run.id});
        bucket
            .put(guid.to_string(), entry.to_string().into())
            .await?;
        let report = run.published(id, 1, &run.id);
        project
            .publish(names::work_completed(project.id()), &report)
            .await?;
        wait_until_taken_over(&project).await?;
        assert_eq!(project.work(id).await?.status, WorkStatus::Completed, "{n}");
    }
    Ok(())
}

/// The server drops the second message with one id.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_replaced_run_publishes_does_not_block_the_report_of_the_present_one() -> Result<()>
{
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let (first, _) = Run::registered(&project, guid, "first").await?;
    let id = project.submit_plain("rust").await?;
    first.claims(json!({"start": true})).await?;
    let (second, _) = Run::registered(&project, guid, "second").await?;
    for run in [&first, &second] {
        let mut headers = async_nats::HeaderMap::new();
        let message_id = names::report_id(id, 1, Some(&run.id));
        headers.insert("Nats-Msg-Id", message_id.as_str());
        let report = run.published(id, 1, &run.id).to_string();
        let subject = names::work_completed(project.id());
        let stream = project.jetstream();
        let published = stream.publish_with_headers(subject, headers, report.into());
        assert!(!published.await?.await?.duplicate, "{}", run.id);
        wait_until_taken_over(&project).await?;
    }
    let item = project.work(id).await?;
    assert_eq!(
        item.result.and_then(|r| r.summary).as_deref(),
        Some("second")
    );
    Ok(())
}

/// Seen from the coordinator, times of messages are those of another clock.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_wrong_clock_of_the_coordinator_decides_about_no_report() -> Result<()> {
    const MINUTE_MS: i64 = 60_000;
    for ahead in [MINUTE_MS, -MINUTE_MS] {
        let clock = Clock::ahead_by(ahead);
        let fleet = Fleet::builder().clock(clock).start().await?;
        let project = fleet.project().await?;
        let guid = AgentGuid::generate();
        let completed = names::work_completed(project.id());
        let (first, _) = Run::registered(&project, guid, "first").await?;
        let id = project.submit_plain("rust").await?;
        first.claims(json!({})).await?;
        let (second, _) = Run::registered(&project, guid, "second").await?;
        let report = first.published(id, 1, "of the replaced run");
        // deliberate sleep: the other clock is known only so exactly
        tokio::time::sleep(EXACTLY_ENOUGH).await;
        project.publish(completed.clone(), &report).await?;
        wait_until_taken_over(&project).await?;
        assert_eq!(
            project.work(id).await?.status,
            WorkStatus::Assigned,
            "{ahead}"
        );

        // Without an attempt the time decides.
        let other = project.submit_plain("rust").await?;
        let report = json!({"workItemId": other, "agentGuid": guid, "instanceId": "second"});
        second.claims(json!({})).await?;
        // deliberate sleep: as above
        tokio::time::sleep(EXACTLY_ENOUGH).await;
        project.publish(completed.clone(), &report).await?;
        wait_until_taken_over(&project).await?;
        assert_eq!(
            project.work(other).await?.status,
            WorkStatus::Completed,
            "{ahead}"
        );
    }
    Ok(())
}
