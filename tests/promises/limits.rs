use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_protocol::agent::{Agent, AgentStatus, DirectiveKind};
use loom_protocol::event::AgentEventKind;
use loom_protocol::gc::{GcAction, GcReport};
use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{AgentGuid, Timestamp, WorkId};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::{Value, json};
use tokio::time::Instant;

const BEAT: Duration = Duration::from_millis(200);

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_usage_limit_pauses_all_who_share_it_and_nobody_else() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let spender = of_group(&project, "account").await?;
    let partner = of_group(&project, "account").await?;
    let other = of_group(&project, "another").await?;
    let id = project.submit_plain("rust").await?;
    let item = spender.claim_one().await?;
    let pause = Duration::from_secs(4);
    let until = in_the_future(&project, pause).await?;
    let limit = json!({"reason": "usage-limit", "notBefore": until});
    spender.report("release", &item, limit).await?;
    let released = Instant::now();

    let returned = project.work(id).await?;
    assert_eq!(
        (returned.status, returned.attempts),
        (WorkStatus::Pending, 0)
    );
    assert_eq!(returned.pending_reason, Some(Reason::UsageLimit));
    for agent in [&spender, &partner] {
        let seen = agent.seen().await?;
        assert_eq!(seen.status, AgentStatus::Paused);
        assert_eq!(seen.paused_until, Some(until));
        assert_eq!(orders(agent).await?, [DirectiveKind::Pause]);
    }
    assert_eq!(other.seen().await?.status, AgentStatus::Online);
    let why = why_not(&project, id, partner.guid()).await?;
    let ends_it = format!("`loom agents resume {}`", partner.guid());
    assert!(
        why.contains(&format!("paused until {until}")) && why.contains(&ends_it),
        "{why}"
    );
    let late = of_group(&project, "account").await?;
    assert_eq!(
        late.seen().await?.status,
        AgentStatus::Paused,
        "born after the limit was met"
    );

    // Nothing is offered to the paused ones, whatever waits; the others go on.
    for _ in 0..2 {
        project.submit_plain("rust").await?;
    }
    let before = partner.claim(json!({})).await?;
    assert!(before.is_empty(), "{before:?}");
    let item = other.claim_one().await?;
    other.complete(&item, "not concerned").await?;
    let item = other.claim_one().await?;
    other.complete(&item, "not concerned").await?;

    // A restart in the middle changes nothing; then the time comes by itself.
    fleet.crash().await?;
    fleet.start_again().await?;
    let mut signals = project.signals().await?;
    let seen = project
        .eventually("the agent is known again", async || {
            partner.seen().await.ok()
        })
        .await?;
    assert_eq!(seen.status, AgentStatus::Paused);
    let waiting = project
        .eventually("the claim is taken", async || {
            partner.claim(json!({"waitMs": 20_000})).await.ok()
        })
        .await?;
    assert_eq!(waiting[0].work_item.id, id);
    let took = released.elapsed();
    assert!(took + BEAT >= pause, "after {took:?}");
    assert!(took <= pause + Duration::from_secs(1), "after {took:?}");
    signals
        .agent(AgentEventKind::Updated, spender.guid())
        .await?;
    assert_eq!(spender.seen().await?.status, AgentStatus::Online);
    assert_eq!(orders(&spender).await?, [DirectiveKind::Resume]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn failing_without_spending_the_attempt_pauses_too() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    let limit = json!({"error": "limit", "spendsAttempt": false, "retryAfterMs": 60_000});
    agent.report("fail", &item, limit).await?;
    let returned = project.work(id).await?;
    assert_eq!(
        (returned.status, returned.attempts),
        (WorkStatus::Pending, 0)
    );
    let seen = agent.seen().await?;
    assert_eq!(seen.status, AgentStatus::Paused);
    assert_eq!(seen.pause_reason.as_deref(), Some("limit"));

    // Neither what it says of itself nor silence ends a pause; an operator does.
    agent.heartbeat(json!({"status": "online"})).await?;
    assert_eq!(agent.seen().await?.status, AgentStatus::Paused);
    let resumed = resume(&project, agent.guid()).await?;
    assert_eq!(
        (resumed.status, resumed.paused_until),
        (AgentStatus::Online, None)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_limit_that_has_passed_is_no_reason_to_go_on_at_once() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let passed = in_the_future(&project, Duration::ZERO).await?;
    for (verb, limit) in [
        (
            "release",
            json!({"reason": "usage-limit", "pauseUntil": passed}),
        ),
        (
            "release",
            json!({"reason": "usage-limit", "notBefore": "2020-01-01T00:00:00Z"}),
        ),
        (
            "fail",
            json!({"error": "limit", "spendsAttempt": false, "retryAfterMs": 0}),
        ),
    ] {
        let agent = project.agent("rust").spawn().await?;
        project.submit_plain("rust").await?;
        let item = agent.claim_one().await?;
        let met = in_the_future(&project, Duration::ZERO).await?;
        agent.report(verb, &item, limit).await?;
        let seen = agent.seen().await?;
        let rest = seen.paused_until.context("not paused")?.since(met);
        assert!(rest >= Duration::from_mins(1), "{verb}: {rest:?}");
        assert!(agent.claim(json!({})).await?.is_empty());
        project
            .request("work.cancel", json!({"id": item.work_item.id}))
            .await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_limit_is_believed_of_the_holder_only() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let holder = of_group(&project, "account").await?;
    let liar = of_group(&project, "account").await?;
    project.submit_plain("rust").await?;
    let item = holder.claim_one().await?;
    let limit = json!({"reason": "usage-limit"});
    liar.report("release", &item, limit).await.unwrap_err();
    for agent in [&holder, &liar] {
        assert_eq!(agent.seen().await?.status, AgentStatus::Online);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn usage_limits_never_use_up_an_item() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    for _ in 0..10 {
        let agent = project.agent("rust").spawn().await?;
        let item = agent.claim_one().await?;
        let limit = json!({"reason": "usage-limit"});
        agent.report("release", &item, limit).await?;
    }
    let item = project.work(id).await?;
    assert_eq!(
        (item.status, item.attempt, item.attempts),
        (WorkStatus::Pending, 10, 0)
    );
    Ok(())
}

/// Why `work.explain` says that an agent may not take an item.
async fn why_not(project: &TestProject, id: WorkId, guid: AgentGuid) -> Result<String> {
    let explained = project.request("work.explain", json!({ "id": id })).await?;
    let verdicts = explained["agents"].as_array().context("no agents")?;
    let verdict = verdicts
        .iter()
        .find(|verdict| verdict["guid"] == json!(guid));
    let message = verdict.and_then(|verdict| verdict["message"].as_str());
    Ok(message.context("no verdict")?.to_owned())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_broken_agent_is_quarantined_and_disturbs_nobody() -> Result<()> {
    let mut fleet = Fleet::builder()
        .settings(|settings| settings.agents.quarantine_after = 3)
        .start()
        .await?;
    let project = fleet.project().await?;
    let broken = project.agent("rust").spawn().await?;
    let sound = project.agent("rust").spawn().await?;
    // A success ends a row.
    fail_one(&project, &broken).await?;
    fail_one(&project, &broken).await?;
    project.submit_plain("rust").await?;
    let item = broken.claim_one().await?;
    broken.complete(&item, "for once").await?;
    fail_one(&project, &broken).await?;
    fail_one(&project, &broken).await?;
    assert_eq!(broken.seen().await?.status, AgentStatus::Online);
    fail_one(&project, &broken).await?;
    let quarantined = |agent: &FakeAgent| {
        let guid = agent.guid();
        let project = project.clone();
        async move {
            let look = async || {
                let body = json!({ "guid": guid });
                let seen: Agent = project.call("agents.get", &body).await.ok()?;
                (seen.status == AgentStatus::Quarantined).then_some(seen)
            };
            project.eventually("it is quarantined", look).await
        }
    };
    let seen = quarantined(&broken).await?;
    let waits = project.submit_plain("rust").await?;
    let why = why_not(&project, waits, broken.guid()).await?;
    let ends_it = format!("`loom agents resume {}`", broken.guid());
    assert!(
        why.contains("quarantined since") && why.contains(&ends_it),
        "{why}"
    );
    let item = sound.claim_one().await?;
    sound.complete(&item, "explained").await?;
    assert!(seen.quarantine.context("the reason")?.reason.contains('3'));

    project.submit_plain("rust").await?;
    let refused = broken.claim(json!({})).await?;
    assert!(refused.is_empty(), "{refused:?}");
    fleet.crash().await?;
    fleet.start_again().await?;
    quarantined(&broken).await?;
    let item = sound.claim_one().await?;
    sound.complete(&item, "goes on").await?;
    let resumed = resume(&project, broken.guid()).await?;
    assert_eq!(resumed.status, AgentStatus::Online);
    project.submit_plain("rust").await?;
    broken.claim_one().await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_idle_agent_is_sent_home_and_then_made_to() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| settings.agents.idle_grace = Duration::from_millis(600))
        .start()
        .await?;
    let project = fleet.project().await?;
    let idle = |capability: &str| {
        let agent = project.agent(capability).heartbeat_every(BEAT);
        agent
            .field("spindownAfterIdleMs", json!(500))
            .behaviour(Behaviour::Beat)
    };
    let busy = idle("rust").spawn().await?;
    let wanted = idle("python").spawn().await?;
    project.submit_plain("rust").await?;
    project.submit_plain("python").await?;
    let item = busy.claim_one().await?;
    let agent = idle("rust").spawn().await?;
    let patient = project
        .agent("rust")
        .heartbeat_every(BEAT)
        .behaviour(Behaviour::Beat);
    let patient = patient.spawn().await?;

    let drains = async |agent: &FakeAgent| {
        let look = async || {
            let seen = agent.seen().await.ok()?;
            (seen.status == AgentStatus::Draining).then_some(())
        };
        project.eventually("it is told to end", look).await
    };
    drains(&agent).await?;
    let forced = async || {
        let answer = agent.heartbeat(json!({})).await.ok()?;
        let mut orders = answer.directives.into_iter();
        orders.find(|order| order.kind == DirectiveKind::Shutdown && order.grace_ms == Some(0))
    };
    project.eventually("a forced order", forced).await?;
    // So much time has passed that they would have been sent home too.
    for agent in [&busy, &wanted, &patient] {
        assert_eq!(agent.seen().await?.status, AgentStatus::Online);
    }
    busy.complete(&item, "done").await?;
    drains(&busy).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_reaper_says_what_is_to_come_and_what_it_did() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.agents.heartbeat_every = BEAT;
            settings.agents.stale_after = Duration::from_secs(1);
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let alive = project
        .agent("rust")
        .heartbeat_every(BEAT)
        .behaviour(Behaviour::Beat);
    let alive = alive.spawn().await?;
    let silent = project.agent("rust").spawn().await?;
    let foreseen = project.eventually("the silent one is foreseen", async || {
        let report: GcReport = project.call("gc.report", &json!({})).await.ok()?;
        let agent = report
            .agents
            .iter()
            .find(|agent| agent.guid == silent.guid());
        agent
            .cloned()
            .filter(|_| report.dry_run && report.examined == 2)
    });
    let foreseen = foreseen.await?;
    assert_eq!(foreseen.action, GcAction::MarkOffline);
    assert!(foreseen.due_in_ms <= 1_000);
    project
        .eventually("a burial is foreseen", async || {
            let report: GcReport = project.api().ok()?.get(&["gc"], &[]).await.ok()?;
            let of = |guid| report.agents.iter().find(|agent| agent.guid == guid);
            assert!(of(alive.guid()).is_none_or(|alive| alive.due_in_ms > 0));
            let agent = of(silent.guid())?;
            (agent.action == GcAction::Bury && report.graves == 1).then_some(())
        })
        .await?;
    project.kill(Role::GcReaper)?;
    let ran = project
        .eventually("a run is answered", async || {
            let api = project.api().ok()?;
            api.post::<GcReport>(&["gc"], &json!({})).await.ok()
        })
        .await?;
    assert!(!ran.dry_run && ran.examined == 2, "{ran:?}");
    assert_eq!(alive.seen().await?.status, AgentStatus::Online);
    Ok(())
}

async fn of_group(project: &TestProject, group: &str) -> Result<FakeAgent> {
    project
        .agent("rust")
        .field("limitGroup", json!(group))
        .spawn()
        .await
}

async fn resume(project: &TestProject, guid: AgentGuid) -> Result<Agent> {
    let agent = project
        .insist("agents.resume", json!({ "guid": guid }))
        .await?;
    Ok(serde_json::from_value(agent)?)
}

/// By the coordinator's clock.
async fn in_the_future(project: &TestProject, after: Duration) -> Result<Timestamp> {
    let stats: Value = project.request("stats", json!({})).await?;
    let now: Timestamp = serde_json::from_value(stats["timestamp"].clone())?;
    Ok(now.after(after))
}

async fn orders(agent: &FakeAgent) -> Result<Vec<DirectiveKind>> {
    let answer = agent.heartbeat(json!({})).await?;
    Ok(answer.directives.iter().map(|order| order.kind).collect())
}

/// Submits an item and fails it at once and for good.
async fn fail_one(project: &TestProject, agent: &FakeAgent) -> Result<()> {
    project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.fail(&item, "broken", false).await?;
    Ok(())
}
