use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_actors::clock::Clock;
use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{Timestamp, WorkId};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};
use tokio::time::Instant;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn priority_then_creation_order() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut submitted: Vec<(u8, WorkId)> = Vec::new();
    for priority in [5, 1, 10, 5, 10, 3, 1, 5] {
        submitted.push((
            priority,
            submit(&project, json!({ "priority": priority })).await?,
        ));
    }
    submitted.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));

    let agent = project.agent("rust").slots(64).spawn().await?;
    let mut served = ids(&agent, json!({"max": 3})).await?;
    served.extend(ids(&agent, json!({"max": 1})).await?);
    served.extend(ids(&agent, json!({"max": 64})).await?);
    let expected: Vec<_> = submitted.into_iter().map(|(_, id)| id).collect();
    assert_eq!(served, expected);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_comes_back_keeps_its_place() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let first = submit(&project, json!({})).await?;
    let second = submit(&project, json!({})).await?;
    let agent = project.agent("rust").spawn().await?;
    let item = agent.claim_one().await?;
    assert_eq!(item.work_item.id, first);
    agent.release(&item).await?;

    let other = project.agent("rust").slots(2).spawn().await?;
    assert_eq!(ids(&other, json!({"max": 2})).await?, [first, second]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn boundary_is_never_crossed() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let corporate = submit(&project, json!({"boundary": "corporate", "priority": 10})).await?;
    let default = submit(&project, json!({"priority": 1})).await?;

    let outside = project.agent("rust").slots(5).spawn().await?;
    assert_eq!(ids(&outside, json!({"max": 5})).await?, [default]);
    let inside = project.agent("rust").boundaries(&["corporate"]).slots(5);
    let inside = inside.spawn().await?;
    // Not by preference, not by waiting, not when it comes back.
    let request = json!({"boundary": "personal", "preferredAgentType": "fake"});
    let personal = submit(&project, request).await?;
    assert_eq!(ids(&outside, json!({"max": 5, "waitMs": 200})).await?, []);
    let item = inside.claim_one().await?;
    assert_eq!(item.work_item.id, corporate);
    inside.release(&item).await?;
    assert_eq!(ids(&outside, json!({"max": 5, "waitMs": 200})).await?, []);
    for id in [corporate, personal] {
        assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
    }

    let explained = project
        .request("work.explain", json!({ "id": personal }))
        .await?;
    for verdict in explained["agents"].as_array().expect("verdicts") {
        assert_eq!(
            (&verdict["eligible"], &verdict["rule"]),
            (&json!(false), &json!("boundary"))
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn required_agent_type_is_never_crossed() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let required = submit(
        &project,
        json!({"requiredAgentType": "codex", "priority": 10}),
    )
    .await?;
    let open = submit(&project, json!({"priority": 1})).await?;

    let fake = project.agent("rust").slots(5).spawn().await?;
    assert_eq!(ids(&fake, json!({"max": 5})).await?, [open]);
    assert_eq!(ids(&fake, json!({"max": 5, "waitMs": 200})).await?, []);
    let codex = project.agent("rust").agent_type("codex").spawn().await?;
    assert_eq!(ids(&codex, json!({})).await?, [required]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn preferred_agent_type_is_served_first_and_bars_nobody() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let preferred = submit(&project, json!({"preferredAgentType": "codex"})).await?;
    let fake = project.agent("rust").spawn().await?;
    assert_eq!(ids(&fake, json!({})).await?, [preferred]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn capability_is_never_crossed() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let tokens = ["c", "c++", "C", "c+", "node.js", "node", "js"];
    for token in tokens {
        project.submit_plain(token).await?;
    }
    for token in tokens {
        let agent = project.agent(token).slots(9).spawn().await?;
        let items = agent.claim(json!({"max": 9})).await?;
        let got: Vec<_> = items
            .iter()
            .map(|item| &*item.work_item.capability)
            .collect();
        assert_eq!(got, [token]);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn not_before_holds_back() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let due = Clock::system().now().after(Duration::from_millis(800));
    let held = submit(&project, json!({"notBefore": due, "priority": 10})).await?;
    assert_eq!(ids(&agent, json!({})).await?, []);
    let explained = project
        .request("work.explain", json!({ "id": held }))
        .await?;
    assert!(
        explained["summary"]
            .as_str()
            .is_some_and(|s| s.contains("not offered before"))
    );

    let item = agent.claim(json!({"waitMs": 10_000})).await?.remove(0);
    assert_eq!(item.work_item.id, held);
    assert!(assigned_at(&project, held).await? >= due);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_released_item_is_not_offered_to_the_same_agent() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let released = submit(&project, json!({"priority": 10})).await?;
    let item = agent.claim_one().await?;
    agent.release(&item).await?;

    assert_eq!(ids(&agent, json!({"waitMs": 200})).await?, []);
    let explained = project
        .request("work.explain", json!({ "id": released }))
        .await?;
    assert_eq!(explained["agents"][0]["rule"], json!("held-off"));
    let next = submit(&project, json!({"priority": 1})).await?;
    assert_eq!(ids(&agent, json!({})).await?, [next]);
    let other = project.agent("rust").spawn().await?;
    assert_eq!(ids(&other, json!({})).await?, [released]);
    let item = project.work(released).await?;
    assert_eq!(
        (item.attempt, item.attempts),
        (2, 0),
        "a release costs no attempt"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_waiting_claim_does_not_get_what_its_own_agent_gives_back() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    submit(&project, json!({"priority": 10})).await?;
    let item = agent.claim_one().await?;
    // Requests are taken in order: the claim waits when the release is applied.
    let release = async {
        agent.release(&item).await?;
        submit(&project, json!({"priority": 1})).await
    };
    let (given, next) = tokio::try_join!(ids(&agent, json!({"waitMs": 20_000})), release)?;
    assert_eq!(given, [next]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_sixth_return_costs_an_attempt() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let id = submit(&project, json!({})).await?;
    for times in 1..=6 {
        let agent = project.agent("rust").spawn().await?;
        let item = agent.claim(json!({"waitMs": 10_000})).await?.remove(0);
        agent.release(&item).await?;
        let attempts = project.work(id).await?.attempts;
        assert_eq!(attempts, u32::from(times == 6), "after {times} releases");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn slots_are_counted_by_leases() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for _ in 0..5 {
        submit(&project, json!({})).await?;
    }
    let agent = project.agent("rust").slots(2).spawn().await?;
    // What it says of itself does not matter.
    agent.heartbeat(json!({"currentTaskCount": 0})).await?;
    let (one, two) = tokio::try_join!(
        agent.claim(json!({"max": 5, "claimId": "a"})),
        agent.claim(json!({"max": 5, "claimId": "b"})),
    )?;
    assert_eq!(one.len() + two.len(), 2);
    assert_eq!(agent.claim(json!({"max": 5})).await?, []);
    assert_eq!(agent.seen().await?.current_task_count, 2);

    let held = one.first().or(two.first()).expect("an item");
    agent.complete(held, "done").await?;
    assert_eq!(agent.claim(json!({"max": 5})).await?.len(), 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_cancelled_item_keeps_its_slot_until_the_agent_has_stopped() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let cancelled = submit(&project, json!({})).await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    let next = submit(&project, json!({})).await?;
    project
        .request(
            "work.cancel",
            json!({"id": cancelled, "reason": "changed my mind"}),
        )
        .await?;
    assert_eq!(ids(&agent, json!({})).await?, []);

    // The order is repeated until it is obeyed.
    let order = project
        .eventually("the agent is told to stop", async || {
            agent.heartbeat(json!({})).await.ok()?.directives.pop()
        })
        .await?;
    assert_eq!(
        (order.work_item_id, order.attempt),
        (Some(cancelled), Some(1))
    );
    assert_eq!(order.reason.as_deref(), Some("changed my mind"));
    assert_eq!(agent.heartbeat(json!({})).await?.directives, [order]);
    agent.report("stopped", &item, json!({})).await?;
    assert_eq!(agent.heartbeat(json!({})).await?.directives, []);
    assert_eq!(ids(&agent, json!({"waitMs": 10_000})).await?, [next]);
    let cancel = project
        .work(cancelled)
        .await?
        .cancel
        .expect("a cancellation");
    assert!(cancel.stopped_at.is_some() && cancel.delivered_at.is_some());
    Ok(())
}

/// Takes as long as the rule: a lease younger than 5 s may be unknown to its agent. The first heartbeat after
/// that takes it back, unless something stood still meanwhile.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn heartbeat_holding_returns_what_is_not_named() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let forgotten = submit(&project, json!({"priority": 10})).await?;
    let kept = submit(&project, json!({})).await?;
    let items = agent.claim(json!({"max": 2})).await?;
    let given = Instant::now();
    let (id, unknown) = (json!(kept), WorkId::generate());
    let holding = json!({"holding": [{"id": id, "attempt": 1}, {"id": unknown, "attempt": 4}]});

    // What it names and does not hold is lost; what it does not name may be on its way.
    let answer = agent.heartbeat(holding.clone()).await?;
    assert_eq!(json!(answer.lost), json!([{"id": unknown, "attempt": 4}]));
    assert_eq!(project.work(forgotten).await?.status, WorkStatus::Assigned);
    let parts = project.parts()?;
    let grace = parts.barrier.grace();
    let returned = project
        .eventually("the item that is not named goes back", async || {
            let since = grace.since();
            let is_due = since.max(given).elapsed() > Duration::from_millis(5_010);
            agent.heartbeat(holding.clone()).await.ok()?;
            let item = project.work(forgotten).await.ok()?;
            let is_back = item.status == WorkStatus::Pending;
            assert!(is_back || !is_due || grace.since() > since, "not at once");
            is_back.then_some(item)
        })
        .await?;
    let held_for = returned
        .updated_at
        .since(items[0].work_item.assigned_at.expect("a time"));
    assert!(
        held_for >= Duration::from_secs(5),
        "it went back after {held_for:?}"
    );
    assert_eq!(returned.pending_reason, Some(Reason::NotStarted));
    assert_eq!(project.work(kept).await?.status, WorkStatus::Assigned);
    agent.complete(&items[1], "done").await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn long_poll_claim_is_woken_by_submit() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let asked = Clock::system().now();
    let waiting = agent.claim(json!({"waitMs": 30_000}));
    let submitting = submit(&project, json!({}));
    let (items, id) = tokio::join!(waiting, submitting);
    assert_eq!(items?[0].work_item.id, id?);
    assert!(Clock::system().now().since(asked) < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_claim_that_waits_in_vain_is_answered_empty() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let asked = Clock::system().now();
    assert_eq!(ids(&agent, json!({"waitMs": 300})).await?, []);
    assert!(Clock::system().now().since(asked) >= Duration::from_millis(300));

    // One open claim per agent: a newer one takes the place of the one before.
    let older = agent.claim(json!({"waitMs": 30_000, "claimId": "older"}));
    let newer = async {
        loop {
            let claim = json!({"waitMs": 20, "claimId": WorkId::generate()});
            if let Err(error) = agent.claim(claim).await {
                return error;
            }
        }
    };
    tokio::select! {
        older = older => assert_eq!(older?, []),
        refused = newer => return Err(refused.into()),
    }
    assert!(Clock::system().now().since(asked) < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn then_claim_gives_the_next_item() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let mut submitted = Vec::new();
    for _ in 0..4 {
        submitted.push(submit(&project, json!({})).await?);
    }
    let items = agent.claim(json!({"max": 2})).await?;

    // After one…
    let more = json!({"thenClaim": {"start": true}});
    let answer = agent.report("complete", &items[0], more).await?;
    assert_eq!(answer["id"], json!(submitted[0]));
    assert_eq!(answer["claimed"][0]["workItem"]["id"], json!(submitted[2]));
    assert_eq!(answer["claimed"][0]["workItem"]["status"], "in-progress");
    // …and after several, of which one is refused.
    let ended = |id: WorkId, attempt: u32| json!({"id": id, "attempt": attempt});
    let request = json!({
        "guid": agent.guid(),
        "items": [ended(submitted[1], 1), ended(submitted[2], 7)],
        "thenClaim": {"max": 5},
    });
    let answer = project.request("work.complete", request).await?;
    assert_eq!(answer["items"][0]["status"], "completed");
    assert_eq!(answer["items"][1]["code"], "stale-lease");
    let claimed = answer["claimed"].as_array().expect("a claim");
    assert_eq!(claimed.len(), 1, "one slot is free");
    assert_eq!(claimed[0]["workItem"]["id"], json!(submitted[3]));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_answers_late_loses_nothing() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let late = Behaviour::Late(Duration::from_millis(500));
    let agent = project.agent("rust").behaviour(late).spawn().await?;
    let id = submit(&project, json!({})).await?;
    let done = agent.wait_until_completed(id).await?;
    assert!(done.refused.is_empty(), "{done:?}");
    assert_eq!(project.work(id).await?.attempt, 1);
    Ok(())
}

async fn submit(project: &TestProject, more: Value) -> Result<WorkId> {
    let mut item = json!({"description": "something to do", "capability": "rust"});
    for (field, value) in more.as_object().into_iter().flatten() {
        item[field] = value.clone();
    }
    Ok(project.submit(item).await?.id)
}

async fn ids(agent: &FakeAgent, claim: Value) -> Result<Vec<WorkId>> {
    let items = agent.claim(claim).await?;
    Ok(items.iter().map(|item| item.work_item.id).collect())
}

async fn assigned_at(project: &TestProject, id: WorkId) -> Result<Timestamp> {
    let item = project.work(id).await?;
    item.assigned_at.context("it was never assigned")
}
