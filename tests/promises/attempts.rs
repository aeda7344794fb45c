//! What agents say of their attempts stays with the item: what was used, in which conversation, what was checked; and
//! the next attempt is told of it.

use anyhow::{Context as _, Result};
use loom_protocol::work::{CostSource, FeedbackKind, Reason, WorkItem, WorkStatus};
use loom_protocol::{ErrorCode, WorkId, names};
use loom_testkit::agent::FakeAgent;
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::{Value, json};

fn session(id: &str) -> Value {
    json!({
        "agentType": "claude-code", "id": id, "hostId": "h-1", "hostname": "build-2", "store": "ab12",
        "path": "/w/shop",
    })
}

/// The item as REST shows it.
async fn by_rest(project: &TestProject, id: WorkId) -> Result<WorkItem> {
    Ok(project.api()?.get(&["work", &id.to_string()], &[]).await?)
}

async fn cost_and_tokens(project: &TestProject, id: WorkId) -> Result<(Option<u64>, Option<f64>)> {
    let usage = project.work(id).await?.usage.context("usage")?;
    Ok((usage.tokens, usage.cost_usd))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_attempts_use_adds_up_whatever_becomes_of_them() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let other = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;

    // The first attempt says it several times, and less the last time; then it gives the item back.
    let first = agent.claim_one().await?;
    agent.start(&first).await?;
    for (input, cost) in [(60, 0.25), (90, 0.5), (10, 0.125)] {
        let usage =
            json!({"inputTokens": input, "outputTokens": 10, "costUsd": cost, "model": "m-1"});
        agent
            .report("progress", &first, json!({"usage": usage}))
            .await?;
    }
    assert_eq!(cost_and_tokens(&project, id).await?, (Some(100), Some(0.5)));
    project.kill(Role::WorkLedger)?;
    project.wait_until_restarted(Role::WorkLedger, 1).await?;
    let usage = json!({"usage": {"tokens": 100, "costUsd": 0.5}});
    agent.report("release", &first, usage.clone()).await?;
    agent.report("release", &first, usage.clone()).await?;
    assert_eq!(cost_and_tokens(&project, id).await?, (Some(100), Some(0.5)));

    // The second one is another agent's: it adds, and a late word of the first one changes nothing.
    let second = other.claim_one().await?;
    let stale = agent.report("progress", &first, json!({"usage": {"tokens": 5_000}}));
    let stale = stale.await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::StaleLease);
    let failure = json!({"error": "no", "retryAfterMs": 0, "usage": {"tokens": 11}});
    other.report("fail", &second, failure).await?;
    assert_eq!(cost_and_tokens(&project, id).await?, (Some(111), Some(0.5)));

    // What cannot be is refused with a sentence, and the lease stays.
    let last = project.agent("rust").spawn().await?;
    let third = project
        .eventually("it is offered again", async || last.claim_one().await.ok())
        .await?;
    for (usage, field) in [
        (json!({"tokens": -1}), "tokens"),
        (
            json!({"outputTokens": 10_000_000_000_000_000_u64}),
            "usage.outputTokens",
        ),
        (json!({"costUsd": -0.5}), "usage.costUsd"),
    ] {
        let body = json!({"result": "done", "usage": usage});
        let error = last.report("complete", &third, body).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        assert!(error.message.contains(field), "{}", error.message);
    }
    let cancelled = project.request("work.cancel", json!({"id": id})).await?;
    assert_eq!(cancelled["status"], "cancelled");
    let stopped = json!({"usage": {"tokens": 9, "costUsd": 0.25}});
    last.report("stopped", &third, stopped.clone()).await?;
    last.report("stopped", &third, stopped).await?;
    let shown = by_rest(&project, id).await?.usage.context("usage")?;
    assert_eq!((shown.tokens, shown.cost_usd), (Some(120), Some(0.75)));
    assert_eq!(
        shown.cost_source,
        Some(CostSource::Unknown),
        "one said nothing of money"
    );
    assert_eq!(shown.model.as_deref(), Some("m-1"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_next_attempt_has_the_conversation_and_knows_what_went_wrong() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let first = agent.claim_one().await?;
    assert_eq!(first.work_item.feedback, []);
    agent
        .report("start", &first, json!({"session": session("s-1")}))
        .await?;
    // It is durable at once.
    fleet.crash().await?;
    fleet.start_again().await?;
    let kept = project
        .eventually("the item is known again", async || {
            project.work(id).await.ok()
        })
        .await?;
    let kept = kept.session.context("a conversation")?;
    assert_eq!(
        (kept.id.as_str(), kept.agent_guid),
        ("s-1", Some(agent.guid()))
    );

    let odd = json!({"session": session("a\nb")});
    let refused = agent.report("progress", &first, odd).await.unwrap_err();
    assert!(
        refused.message.contains("session.id"),
        "{}",
        refused.message
    );
    checks_fail(&agent, &first, &project).await?;

    let second = project
        .eventually("it is offered again", async || agent.claim_one().await.ok())
        .await?;
    let told = &second.work_item;
    assert_eq!(
        told.session.as_ref().map(|session| session.id.as_str()),
        Some("s-1")
    );
    let feedback: Vec<_> = told
        .feedback
        .iter()
        .map(|told| (told.kind, told.attempt))
        .collect();
    assert_eq!(
        feedback,
        [
            (FeedbackKind::Check, Some(1)),
            (FeedbackKind::Error, Some(1))
        ]
    );
    assert!(
        told.feedback[0].message.ends_with("boom"),
        "{:?}",
        told.feedback
    );
    assert_eq!(told.feedback[1].reason, Some(Reason::Checks));

    let evidence =
        json!([{"name": "tests", "command": "make test", "exitCode": 0, "durationMs": 5}]);
    let done = json!({"result": "done", "evidence": evidence, "session": session("s-2")});
    agent.report("complete", &second, done).await?;
    let shown = by_rest(&project, id).await?;
    assert_eq!(shown.status, WorkStatus::Completed);
    assert_eq!(shown.session.context("a conversation")?.id, "s-2");
    let checks: Vec<_> = shown
        .evidence
        .iter()
        .map(|check| (check.exit_code, check.attempt))
        .collect();
    assert_eq!(checks, [(0, 2)], "those of the last attempt");
    assert_eq!(shown.feedback, [], "only who claims is told");
    Ok(())
}

async fn checks_fail(
    agent: &FakeAgent,
    item: &loom_protocol::work::ClaimedItem,
    project: &TestProject,
) -> Result<()> {
    let check = |name: &str, code: i32| json!({"name": name, "command": "make", "exitCode": code, "outputTail": format!("{}boom", "x".repeat(9_000))});
    let many: Vec<Value> = (0..17).map(|n| check(&format!("c{n}"), 1)).collect();
    let failure = |evidence: Value| json!({"error": "the checks failed", "reason": "checks", "retryAfterMs": 0, "evidence": evidence});
    let refused = agent
        .report("fail", item, failure(json!(many)))
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert!(
        refused.message.contains("17 entries"),
        "{}",
        refused.message
    );
    let two = json!([check("lint", 0), check("tests", 2)]);
    agent.report("fail", item, failure(two)).await?;
    let failed = project.work(item.work_item.id).await?;
    assert_eq!(failed.pending_reason, Some(Reason::Checks));
    assert_eq!(failed.evidence.len(), 2);
    assert!(failed.evidence[1].output_tail.len() <= 4 * 1024);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn outages_and_accounts_pause_the_agent_and_cost_no_attempt() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for (reason, days) in [("outage", 0), ("account", 30)] {
        let agent = project.agent(reason).spawn().await?;
        let id = project.submit_plain(reason).await?;
        let item = agent.claim_one().await?;
        agent
            .report("release", &item, json!({"reason": reason}))
            .await?;
        let returned = project.work(id).await?;
        assert_eq!(
            (returned.status, returned.attempts),
            (WorkStatus::Pending, 0)
        );
        assert_eq!(returned.pending_reason.map(Reason::as_str), Some(reason));
        let seen = agent.seen().await?;
        assert_eq!(seen.pause_reason.as_deref(), Some(reason));
        let paused = seen
            .paused_until
            .context("paused")?
            .since(returned.updated_at);
        let day = std::time::Duration::from_hours(24);
        assert!(paused >= day * days, "{paused:?}");
        assert!(days > 0 || paused < day, "{paused:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_published_end_carries_the_same_and_counts_although_some_of_it_is_odd() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    agent.claim_one().await?;
    let report = json!({
        "workItemId": id, "agentGuid": agent.guid(), "attempt": 1, "result": {"summary": "done"},
        "usage": {"tokens": -5}, "session": session("s-1"),
        "evidence": [{"name": "tests", "exitCode": 0}],
    });
    project
        .publish(names::work_completed(project.id()), &report)
        .await?;
    let done = project.eventually("it is completed", async || {
        let item = project.work(id).await.ok()?;
        item.terminal.then_some(item)
    });
    let done = done.await?;
    assert_eq!((done.status, done.usage), (WorkStatus::Completed, None));
    assert_eq!(done.session.context("a conversation")?.id, "s-1");
    assert_eq!(done.evidence.len(), 1);
    Ok(())
}
