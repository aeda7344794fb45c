use anyhow::Result;
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::event::{Event, WorkEventKind};
use loom_protocol::work::{ClaimedItem, QueueInfo, Reason, WorkStatus, limits};
use loom_protocol::{AgentGuid, ErrorCode, names};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn reports_published_durably_are_consumed() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let done = project.submit_plain("rust").await?;
    let failed = project.submit_plain("rust").await?;
    let items = agent.claim(json!({"max": 2})).await?;

    // Nobody answers requests; the stream takes the reports.
    fleet.stop().await?;
    assert!(agent.complete(&items[0], "not heard").await.is_err());
    let body = json!({"result": {"summary": "while you were away"}});
    complete(&project, agent.guid(), &items[0], body).await?;
    let error = json!({
        "workItemId": failed, "agentGuid": agent.guid(), "attempt": 1,
        "error": {"message": "hopeless", "recoverable": false},
    });
    project
        .publish(names::work_errors(project.id()), &error)
        .await?;

    fleet.start_again().await?;
    wait_until_taken_over(&project).await?;
    let item = project.work(done).await?;
    assert_eq!(item.status, WorkStatus::Completed);
    assert_eq!(
        item.result.and_then(|r| r.summary).as_deref(),
        Some("while you were away")
    );
    assert_eq!(project.work(failed).await?.status, WorkStatus::Failed);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn report_without_attempt_counts_only_for_the_assignee() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let holder = project.agent("rust").spawn().await?;
    let other = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let report = |guid: AgentGuid| json!({"workItemId": id, "agentGuid": guid});
    let completed = names::work_completed(project.id());

    // Earlier than the assignment: it cannot be about this lease.
    project
        .publish(completed.clone(), &report(holder.guid()))
        .await?;
    wait_until_taken_over(&project).await?;
    assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
    holder.claim_one().await?;
    // Of another agent.
    project
        .publish(completed.clone(), &report(other.guid()))
        .await?;
    wait_until_taken_over(&project).await?;
    assert_eq!(project.work(id).await?.status, WorkStatus::Assigned);
    // Of the assignee, later.
    project.publish(completed, &report(holder.guid())).await?;
    wait_until_taken_over(&project).await?;
    assert_eq!(project.work(id).await?.status, WorkStatus::Completed);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stale_report_is_dropped_and_an_unreadable_one_kept_as_it_came() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let mut item = agent.claim_one().await?;
    let before = project.work(id).await?;
    let kinds = [
        ("work.completed", names::work_completed(project.id())),
        ("work.errors", names::work_errors(project.id())),
    ];
    item.lease.attempt += 1;
    complete(&project, agent.guid(), &item, json!({})).await?;
    let unreadable = ["half {", "[]", "{}", "null", "\u{0}"];
    for (_, subject) in &kinds {
        for bytes in unreadable {
            project
                .jetstream()
                .publish(subject.clone(), bytes.into())
                .await?
                .await?;
        }
    }
    wait_until_taken_over(&project).await?;
    assert_eq!(project.work(id).await?, before);
    for (kind, _) in kinds {
        let letters = project.eventually("a letter each", async || {
            let of_kind = json!({"capability": kind, "reason": "poison"});
            let list = project.request("dlq.list", of_kind).await.ok()?;
            let letters: Vec<DeadLetter> = serde_json::from_value(list).ok()?;
            (letters.len() == unreadable.len()).then_some(letters)
        });
        let mut kept = Vec::new();
        for letter in letters.await? {
            let named = json!({"id": letter.id});
            let whole: DeadLetter = project.call("dlq.get", &named).await?;
            assert!(whole.work_item.description.contains("report"));
            kept.push(whole.submission.expect("its bytes").base64.0.to_vec());
            let refused = project.request("dlq.retry", named.clone()).await;
            assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidRequest);
            project.request("dlq.discard", named).await?;
        }
        // Letters that are written side by side stand in any order.
        kept.sort_unstable();
        let mut published = unreadable.map(|bytes| bytes.as_bytes().to_vec());
        published.sort_unstable();
        assert_eq!(kept, published);
    }
    Ok(())
}

/// The lease stays, as with a request, but nobody can be told: the bytes stay too.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_published_result_that_is_too_large_is_kept() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    let long = "x".repeat(limits::RESULT + 1);
    let report = json!({"result": {"summary": long}});
    complete(&project, agent.guid(), &item, report).await?;
    let letter = project.eventually("its letter", async || {
        let list = project.request("dlq.list", json!({})).await.ok()?;
        serde_json::from_value::<Vec<DeadLetter>>(list).ok()?.pop()
    });
    let letter = letter.await?;
    assert_eq!(letter.reason, Reason::Rejected);
    assert_eq!(project.work(id).await?.status, WorkStatus::Assigned);
    agent.complete(&item, "shorter").await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn events_tell_every_transition_in_order() -> Result<()> {
    use WorkEventKind::{
        Assigned, Cancelled, Completed, Failed, Progress, Retried, Started, Submitted,
    };
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let agent = project.agent("rust").spawn().await?;

    // Failed once, then done.
    let done = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    agent.progress(&item, 40).await?;
    agent.fail(&item, "no disk", true).await?;
    let item = agent
        .claim(json!({"start": true, "waitMs": 10_000}))
        .await?
        .remove(0);
    agent.complete(&item, "done").await?;
    // Given up.
    let failed = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.fail(&item, "hopeless", false).await?;
    // Called off.
    let cancelled = project.submit_plain("rust").await?;
    project
        .request("work.cancel", json!({ "id": cancelled }))
        .await?;
    signals.work(Cancelled, cancelled).await?;

    let kinds = |id| -> Vec<_> { signals.told_of(id).iter().map(|event| event.kind).collect() };
    let expected = [
        Submitted, Assigned, Started, Progress, Retried, Assigned, Started, Completed,
    ];
    assert_eq!(kinds(done), expected);
    assert_eq!(kinds(failed), [Submitted, Assigned, Failed]);
    assert_eq!(kinds(cancelled), [Submitted, Cancelled]);
    for id in [done, failed, cancelled] {
        let told = signals.told_of(id);
        assert!(told.is_sorted_by_key(|event| event.revision), "{told:?}");
        let last = told.last().expect("an event");
        let item = project.work(id).await?;
        // That its dead letter is noted is a write, and no transition.
        assert!(last.revision <= item.revision, "{last:?}");
        assert_eq!(last.status, item.status);
        let holders = told.iter().filter(|event| event.kind == Assigned);
        assert!(
            holders
                .clone()
                .all(|event| event.assigned_to == Some(agent.guid()))
        );
    }
    let told = signals.told_of(done);
    assert_eq!(told[3].progress, Some(40.0));
    assert!(signals.told().iter().all(|event| match event {
        Event::Work(event) => event.project_id == project.id().as_str(),
        Event::Agent(event) => event.project_id == project.id().as_str(),
        Event::Target(event) => event.project_id == project.id().as_str(),
        Event::SpinUp(event) => event.project_id == project.id().as_str(),
    }));
    Ok(())
}

async fn complete(
    project: &TestProject,
    guid: AgentGuid,
    item: &ClaimedItem,
    mut report: Value,
) -> Result<()> {
    report["workItemId"] = json!(item.work_item.id);
    report["taskId"] = json!(item.work_item.task_id);
    report["agentGuid"] = json!(guid);
    report["attempt"] = json!(item.lease.attempt);
    project
        .publish(names::work_completed(project.id()), &report)
        .await?;
    Ok(())
}

pub(super) async fn wait_until_taken_over(project: &TestProject) -> Result<()> {
    project
        .eventually("the stream is empty", async || {
            let info: QueueInfo = project.call("queue.info", &json!({})).await.ok()?;
            (info.messages == 0).then_some(())
        })
        .await
}
