//! What `work.explain` and the answer to a submission say of targets and of starts.

use anyhow::{Context as _, Result, ensure};
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_protocol::work::ExplainAnswer;
use loom_testkit::births::Place;
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

use crate::register;
use crate::starts::{give_birth, until, waiting};

async fn explain(project: &TestProject, item: &str) -> Result<ExplainAnswer> {
    Ok(project.call("work.explain", &json!({"id": item})).await?)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn explain_names_every_target_with_its_rule_and_what_is_being_started() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    for (name, changes) in [
        ("able", json!({})),
        ("other-type", json!({"agentType": "claude-code"})),
        ("other-place", json!({"boundaries": ["us"]})),
        ("other-skill", json!({"capabilities": ["go"]})),
        ("off", json!({"enabled": false})),
    ] {
        register(&project, waiting(&place, name, &changes)).await?;
    }
    // Not offered yet: nothing is started for it, and all is explained.
    let later = json!({
        "description": "d", "capability": "rust", "requiredAgentType": "codex", "notBefore": "2100-01-01T00:00:00Z",
    });
    let later = project.submit(later).await?;
    assert!(!later.spin_up_triggered, "nobody may claim it yet");
    let answer = explain(&project, &later.id.to_string()).await?;
    let rules: Vec<(&str, Option<&str>)> = answer
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.rule.as_deref()))
        .collect();
    let expected = [
        ("able", None),
        ("off", Some("disabled")),
        ("other-type", Some("agent-type")),
        ("other-place", Some("boundary")),
        ("other-skill", Some("capability")),
    ];
    assert_eq!(rules, expected);
    assert_eq!((answer.targets_total, answer.targets_eligible), (5, 1));
    ensure!(
        answer
            .targets
            .iter()
            .all(|target| !target.message.is_empty())
    );
    ensure!(
        answer.summary.contains("not offered before"),
        "{}",
        answer.summary
    );

    // One that waits: an agent is started for it, and is told by its target and operation.
    let now = json!({"description": "d", "capability": "rust", "requiredAgentType": "codex"});
    let now = project.submit(now).await?;
    assert!(
        now.spin_up_triggered,
        "nobody is there, and able may start one"
    );
    assert_eq!(
        (now.target_agent_type.as_str(), now.estimated_wait_seconds),
        ("codex", None)
    );
    let id = now.id.to_string();
    let starting = async || {
        let answer = explain(&project, &id).await.ok()?;
        (!answer.being_started.is_empty()).then_some(answer)
    };
    let answer = project
        .eventually("an agent is being started", starting)
        .await?;
    let start = &answer.being_started[0];
    assert_eq!(start.target_name, "able");
    let operation = start.operation_id.to_string();
    for part in ["is being started by target able", &operation] {
        ensure!(
            answer.summary.contains(part),
            "{part} is not in {}",
            answer.summary
        );
    }
    let able = &answer.targets[0];
    assert_eq!(
        (able.name.as_str(), able.rule.as_deref()),
        ("able", Some("full"))
    );
    ensure!(able.message.contains(&operation), "{}", able.message);
    // Whoever submits the same need now is told of that start.
    let again = json!({"description": "d", "capability": "rust", "requiredAgentType": "codex"});
    ensure!(project.submit(again).await?.spin_up_triggered);

    // Why an item waits is not what is done about it.
    let item = project.work(now.id).await?;
    assert_eq!(item.pending_reason, None);
    let cancelled = project.request("work.cancel", json!({"id": id})).await?;
    assert_eq!(cancelled["status"], "cancelled");
    let answer = explain(&project, &id).await?;
    ensure!(
        answer
            .targets
            .iter()
            .all(|t| t.rule.as_deref() == Some("not-pending"))
    );
    ensure!(answer.being_started.is_empty() && answer.targets_eligible == 0);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_answer_to_a_submission_says_whether_an_agent_is_started_and_how_soon() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let submit = async |fields: Value| {
        let item = crate::with(json!({"description": "d", "capability": "rust"}), &fields);
        project.submit(item).await
    };
    // Nobody, and no target.
    let alone = submit(json!({})).await?;
    assert_eq!(
        (
            alone.spin_up_triggered,
            alone.target_agent_type.as_str(),
            alone.estimated_wait_seconds
        ),
        (false, "claude-code", Some(30))
    );
    project
        .request("work.cancel", json!({"id": alone.id}))
        .await?;
    // A target that may not serve it; then one that may.
    register(&project, waiting(&place, "off", &json!({"enabled": false}))).await?;
    ensure!(
        !submit(json!({"boundary": "nowhere"}))
            .await?
            .spin_up_triggered
    );
    project.request("queue.purge", json!({"all": true})).await?;
    register(&project, waiting(&place, "here", &json!({"maxAgents": 2}))).await?;
    let many = json!({"items": (0..100).map(|_| json!({"description": "d", "capability": "rust"})).collect::<Vec<_>>()});
    let many = project.request("work.submit", many).await?;
    let many = many["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(many.len(), 100);
    for one in &many {
        assert_eq!(
            (
                &one["spinUpTriggered"],
                &one["targetAgentType"],
                one.get("estimatedWaitSeconds")
            ),
            (&json!(true), &json!("codex"), None),
            "none was born yet: how long it takes is not known"
        );
    }
    let preferred = submit(json!({"preferredAgentType": "gemini"})).await?;
    assert_eq!(
        (
            preferred.target_agent_type.as_str(),
            preferred.spin_up_triggered
        ),
        ("gemini", true)
    );
    let required = submit(json!({"requiredAgentType": "gemini"})).await?;
    assert_eq!(
        (
            required.target_agent_type.as_str(),
            required.spin_up_triggered
        ),
        ("gemini", false)
    );

    // One is born: from now on it is known how long it takes.
    let list = async || -> Option<Vec<SpinUpOperation>> {
        let all: Vec<SpinUpOperation> = project.call("spin-up.list", &json!({})).await.ok()?;
        (all.len() == 2).then_some(all)
    };
    let births = project.eventually("two are being started", list).await?;
    give_birth(&project, &place, births[0].operation_id).await?;
    let born = until(&project, births[0].operation_id, SpinUpStatus::Success).await?;
    let took = born
        .ended_at
        .context("it has ended")?
        .since(born.started_at);
    // The agent is linked, and nobody is registered: the other start is under way.
    let known = submit(json!({})).await?;
    let wait = known.estimated_wait_seconds.context("one was born")?;
    ensure!(
        known.spin_up_triggered && (1..=took.as_secs() + 1).contains(&wait),
        "{wait} of {took:?}"
    );

    // An agent that is there takes it, and none is started for it.
    let _agent = project.agent("rust").agent_type("kimi").spawn().await?;
    let there = submit(json!({})).await?;
    ensure!(!there.spin_up_triggered && there.estimated_wait_seconds.is_some());
    assert_eq!(there.target_agent_type, "kimi");
    Ok(())
}
