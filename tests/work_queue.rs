//! The group "Work Queue": one test per line of the integration-test document, as a program outside does it: by
//! JetStream publish where it knows nothing but NATS, and over requests and REST.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::RetentionPolicy;
use loom_protocol::event::{Event, WorkEventKind};
use loom_protocol::work::{ClaimedItem, PurgeAnswer, QueueInfo, Reason, WorkItem, WorkStatus};
use loom_protocol::{WorkId, names};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::{Fleet, Signals, TestProject};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn publish_work_to_capability_queue() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("node.js").spawn().await?;
    let mut signals = project.signals().await?;
    let queue = names::work_queue(project.id(), "node.js");
    assert!(queue.ends_with(".node=2Ejs"), "{queue}");

    // Everything else gets its default.
    project
        .publish(queue.clone(), &json!({"description": "bare"}))
        .await?;
    let submitted = next_submitted(&mut signals, "bare").await?;
    let item = project.work(submitted).await?;
    assert_eq!(
        (item.capability.as_str(), item.boundary.as_str()),
        ("node.js", "default")
    );
    assert_eq!((item.priority, item.status), (5, WorkStatus::Pending));
    assert_eq!((item.attempt, item.attempts), (0, 0));

    // A known id changes nothing.
    let id = WorkId::generate();
    let described = |text| json!({"id": id, "taskId": "t", "description": text});
    project.publish(queue.clone(), &described("first")).await?;
    project.publish(queue, &described("second")).await?;
    wait_until_taken_over(&project).await?;
    let item = project.work(id).await?;
    assert_eq!(
        (item.description.as_str(), item.task_id.as_str()),
        ("first", "t")
    );

    let taken: Vec<_> = [agent.claim_one().await?.work_item.id].into();
    assert_eq!(taken, [submitted], "the older one first");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_cannot_be_taken_from_the_queue_is_kept_with_its_bytes() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    project.agent("rust").spawn().await?;
    let queue = names::work_queue(project.id(), "rust");
    let bytes = "{\"description\": ";
    let stored = project
        .jetstream()
        .publish(queue.clone(), bytes.into())
        .await?;
    stored.await?;
    project
        .publish(
            queue.clone(),
            &json!({"description": "d", "capability": "go"}),
        )
        .await?;
    project
        .publish(queue.clone(), &json!({"description": "d", "priority": 11}))
        .await?;
    project
        .publish(queue, &json!({"description": "d", "budget": {}}))
        .await?;
    wait_until_taken_over(&project).await?;

    let kept = project.all_work().await?;
    assert_eq!(kept.len(), 4);
    for (item, (reason, word)) in kept.iter().zip([
        (Reason::Poison, "JSON"),
        (Reason::Rejected, "capability"),
        (Reason::Rejected, "priority"),
        (Reason::Rejected, "budget"),
    ]) {
        assert_eq!(item.status, WorkStatus::Failed);
        let item = project.work(item.id).await?;
        let error = item.error.as_ref().expect("an error");
        assert_eq!(error.reason, reason, "{error:?}");
        assert!(error.message.contains(word), "{error:?}");
        assert!(item.context_data.is_some(), "its bytes are kept");
    }
    let poison = project.work(kept[0].id).await?;
    let kept_bytes: String =
        serde_json::from_slice(poison.context_data.expect("bytes").as_bytes())?;
    assert_eq!(kept_bytes, bytes);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn work_with_different_priorities() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(10).spawn().await?;
    let queue = names::work_queue(project.id(), "rust");
    for priority in [1, 10, 5] {
        let item = json!({"description": format!("published {priority}"), "priority": priority});
        project.publish(queue.clone(), &item).await?;
    }
    wait_until_taken_over(&project).await?;
    for priority in [7, 10] {
        let description = format!("submitted {priority}");
        let item = json!({"description": description, "capability": "rust", "priority": priority});
        project.submit(item).await?;
    }

    let mut served = Vec::new();
    for _ in 0..2 {
        served.push(agent.claim_one().await?.work_item.description);
    }
    for item in agent.claim(json!({"max": 10})).await? {
        served.push(item.work_item.description);
    }
    let expected = [
        "published 10",
        "submitted 10",
        "submitted 7",
        "published 5",
        "published 1",
    ];
    assert_eq!(served, expected);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn create_consumer_for_capability() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let rust = project.submit_plain("rust").await?;
    let go = project.submit_plain("go").await?;

    // A capability's consumer is its claims…
    let agent = project
        .agent("rust")
        .capability("go")
        .slots(5)
        .spawn()
        .await?;
    let of = async |capability: &str| -> Result<Vec<WorkId>> {
        let claim = json!({"capabilities": [capability], "max": 5});
        let items = agent.claim(claim).await?;
        Ok(items.iter().map(|item| item.work_item.id).collect())
    };
    assert_eq!(of("go").await?, [go]);
    assert_eq!(of("go").await?, []);
    assert_eq!(of("rust").await?, [rust]);
    // …of what the agent can do: it cannot claim what it has not registered.
    project.submit_plain("java").await?;
    assert_eq!(of("java").await?, []);

    // Nobody else binds to the stream: the server refuses a consumer beside ours.
    let stream = project
        .jetstream()
        .get_stream(names::work_stream(project.id()))
        .await?;
    let config = pull::Config {
        durable_name: Some("mine".into()),
        filter_subject: names::work_queue(project.id(), "rust"),
        ..pull::Config::default()
    };
    let refused = stream.create_consumer(config).await;
    assert!(refused.is_err(), "a foreign consumer was let in");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn competing_consumers() -> Result<()> {
    const ITEMS: usize = 60;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let mut agents = Vec::new();
    for slots in 1..=3 {
        let agent = project
            .agent("rust")
            .slots(slots)
            .behaviour(Behaviour::Diligent);
        agents.push(agent.spawn().await?);
    }
    let items: Vec<_> = (0..ITEMS)
        .map(|n| json!({"description": format!("item {n}"), "capability": "rust"}))
        .collect();
    let answer = project
        .request("work.submit", json!({ "items": items }))
        .await?;
    let submitted = answer["items"].as_array().expect("answers").iter();
    let submitted: HashSet<WorkId> = submitted
        .map(|answer| serde_json::from_value(answer["id"].clone()))
        .collect::<Result<_, _>>()?;
    assert_eq!(submitted.len(), ITEMS);
    for id in &submitted {
        signals.work(WorkEventKind::Completed, *id).await?;
    }

    // Each item went to exactly one of them, once.
    let done: Vec<_> = agents.iter().map(FakeAgent::done).collect();
    let leases: Vec<_> = done.iter().flat_map(|done| &done.claimed).collect();
    assert_eq!(leases.len(), ITEMS);
    assert!(leases.iter().all(|lease| lease.attempt == 1));
    let claimed: HashSet<_> = leases.iter().map(|lease| lease.id).collect();
    assert_eq!(claimed, submitted);
    assert!(done.iter().all(|done| done.refused.is_empty()), "{done:?}");
    let all = project.all_work().await?;
    assert!(
        all.iter()
            .all(|item| item.status == WorkStatus::Completed && item.attempt == 1)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn completion_events() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let published = project.submit_plain("rust").await?;
    let requested = project.submit_plain("rust").await?;
    let items = agent.claim(json!({"max": 2})).await?;

    // By a durable publish, as a program reports that makes no requests…
    let report = json!({
        "workItemId": published, "taskId": items[0].work_item.task_id, "agentGuid": agent.guid(),
        "attempt": items[0].lease.attempt,
        "result": {"summary": "published", "output": {"files": [1, 2]}, "artifacts": ["a.txt"]},
    });
    project
        .publish(names::work_completed(project.id()), &report)
        .await?;
    let event = signals.work(WorkEventKind::Completed, published).await?;
    assert_eq!(event.summary.as_deref(), Some("published"));
    assert_eq!(event.assigned_to, Some(agent.guid()));
    assert_eq!(event.status, WorkStatus::Completed);
    // …and by request.
    agent.complete(&items[1], "requested").await?;
    let event = signals.work(WorkEventKind::Completed, requested).await?;
    assert_eq!(event.summary.as_deref(), Some("requested"));

    let item = project
        .request("work.get", json!({ "id": published }))
        .await?;
    assert_eq!(item["status"], "completed");
    assert_eq!(item["terminal"], true);
    assert_eq!(item["result"]["output"], json!({"files": [1, 2]}));
    assert_eq!(item["result"]["artifacts"], json!(["a.txt"]));
    let by_rest: Value = project
        .api()?
        .get(&["work", &published.to_string()], &[])
        .await?;
    assert_eq!(by_rest, item);

    // The same report again changes nothing.
    project
        .publish(names::work_completed(project.id()), &report)
        .await?;
    wait_until_taken_over(&project).await?;
    let again = project
        .request("work.get", json!({ "id": published }))
        .await?;
    assert_eq!(again, item);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn error_events() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let errors = names::work_errors(project.id());
    let id = project.submit_plain("rust").await?;
    let report = |attempt: u32, recoverable: bool, message: &str| {
        json!({
            "workItemId": id, "agentGuid": agent.guid(), "attempt": attempt,
            "error": {"message": message, "code": "E1", "recoverable": recoverable},
        })
    };

    // A recoverable error puts it back…
    let first = agent.claim_one().await?;
    project
        .publish(
            errors.clone(),
            &report(first.lease.attempt, true, "no disk"),
        )
        .await?;
    let event = signals.work(WorkEventKind::Retried, id).await?;
    assert_eq!(event.reason, Some(Reason::AgentError));
    let item = project.work(id).await?;
    assert_eq!((item.attempt, item.attempts), (1, 1));
    assert_eq!(item.errors[0].message, "no disk");

    // …a late repetition of it changes nothing…
    let second = claim_soon(&agent, id).await?;
    assert_eq!(second.lease.attempt, 2);
    project
        .publish(errors.clone(), &report(1, false, "late"))
        .await?;
    wait_until_taken_over(&project).await?;
    assert_eq!(project.work(id).await?.status, WorkStatus::Assigned);

    // …and another one ends it.
    project
        .publish(errors, &report(2, false, "the task makes no sense"))
        .await?;
    let event = signals.work(WorkEventKind::Failed, id).await?;
    assert_eq!(
        event.error_message.as_deref(),
        Some("the task makes no sense")
    );
    assert_eq!(event.recoverable, Some(false));
    let item = project.work(id).await?;
    assert_eq!(item.status, WorkStatus::Failed);
    let error = item.error.expect("an error");
    assert_eq!(
        (error.code.as_deref(), error.recoverable),
        (Some("E1"), false)
    );
    assert_eq!(item.errors.len(), 2);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn stream_operations_info_and_purge() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for capability in ["rust", "rust", "rust", "go"] {
        project.submit_plain(capability).await?;
    }
    let agent = project.agent("rust").spawn().await?;
    let taken = agent.claim_one().await?.work_item.id;

    let info: QueueInfo = project.call("queue.info", &json!({})).await?;
    assert_eq!(info.stream, names::work_stream(project.id()));
    assert_eq!(info.messages, 0);
    assert_eq!(info.pending, [("go".into(), 1), ("rust".into(), 2)].into());
    let oldest = project.all_work().await?[1].offered_at;
    assert_eq!(info.oldest_pending, Some(oldest));
    let by_rest: QueueInfo = project.api()?.get(&["queue"], &[]).await?;
    assert_eq!(by_rest.pending, info.pending);

    let mut stream = project.jetstream().get_stream(&info.stream).await?;
    let raw = stream.info().await?;
    assert_eq!(raw.config.retention, RetentionPolicy::WorkQueue);
    assert_eq!(
        raw.config.subjects,
        names::work_stream_subjects(project.id())
    );

    // A purge calls off what waits and matches, nothing else.
    let purged: PurgeAnswer = project
        .call("queue.purge", &json!({"capability": "rust"}))
        .await?;
    assert_eq!(purged.purged, 2);
    let purged: PurgeAnswer = project
        .api()?
        .post(&["queue", "purge"], &json!({"all": true}))
        .await?;
    assert_eq!(purged.purged, 1);
    let status = |item: WorkItem| (item.capability, item.status, item.id == taken);
    let all: Vec<_> = project.all_work().await?.into_iter().map(status).collect();
    let cancelled = |capability: &str| (capability.to_owned(), WorkStatus::Cancelled, false);
    assert_eq!(all[0], ("rust".to_owned(), WorkStatus::Assigned, true));
    assert_eq!(
        all[1..],
        [cancelled("rust"), cancelled("rust"), cancelled("go")]
    );
    let info: QueueInfo = project.call("queue.info", &json!({})).await?;
    assert!(info.pending.is_empty() && info.oldest_pending.is_none());
    Ok(())
}

/// Waits until everything that was published is in the ledger.
async fn wait_until_taken_over(project: &TestProject) -> Result<()> {
    project
        .eventually("the stream is empty", async || {
            let info: QueueInfo = project.call("queue.info", &json!({})).await.ok()?;
            (info.messages == 0).then_some(())
        })
        .await
}

/// Waits until an item of this description is told.
async fn next_submitted(signals: &mut Signals, description: &str) -> Result<WorkId> {
    let what = format!("work:submitted of {description:?}");
    signals
        .find(&what, |event| match event {
            Event::Work(event)
                if event.kind == WorkEventKind::Submitted
                    && event.description.as_deref() == Some(description) =>
            {
                Some(event.work_id)
            }
            _ => None,
        })
        .await
}

/// Claims an item that may be held back for a moment.
async fn claim_soon(agent: &FakeAgent, id: WorkId) -> Result<ClaimedItem> {
    let items = agent.claim(json!({"waitMs": 10_000})).await?;
    let item = items.into_iter().find(|item| item.work_item.id == id);
    item.context("the item was not offered again")
}
