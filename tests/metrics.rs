//! `/metrics`: what has happened can be read there, under the names that the dashboard asks for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use loom_actors::domain::targets::OwnedNewborn;
use loom_protocol::target::BirthTicket;
use loom_protocol::{AgentGuid, names};
use loom_testkit::agent::Behaviour;
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::{Value, json};
use tempfile::TempDir;

const DASHBOARD: &str = include_str!("../docs/grafana-dashboard.json");

/// Everything that `/metrics` shows of a fleet.
async fn shown(fleet: &Fleet) -> Result<String> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/metrics", fleet.api_address()?);
    let response = client.get(url).send().await?;
    assert_eq!(response.status().as_u16(), 200);
    Ok(response.text().await?)
}

/// The sample of a project: `name` with its labels beside the project, in the order of the text.
fn sample(text: &str, project: &TestProject, name: &str, labels: &[&str]) -> Option<f64> {
    let of_project = format!("project=\"{}\"", project.id());
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .find(|(key, _)| {
            key.split('{').next() == Some(name)
                && key.contains(&of_project)
                && labels.iter().all(|label| key.contains(label))
        })
        .and_then(|(_, value)| value.parse().ok())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_happened_to_work_can_be_counted() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project
        .agent("rust")
        .behaviour(Behaviour::Diligent)
        .spawn()
        .await?;
    let id = project.submit_plain("rust").await?;
    agent.wait_until_completed(id).await?;
    let released = project.agent("idle").spawn().await?;
    project.submit_plain("idle").await?;
    let item = released.claim_one().await?;
    released.release(&item).await?;
    project.kill(Role::WorkDispatcher)?;
    project
        .wait_until_restarted(Role::WorkDispatcher, 1)
        .await?;

    let text = shown(&fleet).await?;
    for (name, labels, expected) in [
        ("loom_work_submitted_total", &[][..], 2.0),
        (
            "loom_work_finished_total",
            &["status=\"completed\""][..],
            1.0,
        ),
        ("loom_work_returns_total", &["reason=\"released\""], 1.0),
        ("loom_work_items", &["status=\"completed\""], 1.0),
        ("loom_work_items", &["status=\"pending\""], 1.0),
        ("loom_agents", &["status=\"online\""], 2.0),
        ("loom_dead_letters", &[], 0.0),
        ("loom_dead_letters_expired_total", &[], 0.0),
        ("loom_unreadable_records", &["place=\"ledger\""], 0.0),
        (
            "loom_actor_restarts_total",
            &["actor=\"work-dispatcher\""],
            1.0,
        ),
        ("loom_work_claim_wait_seconds_count", &[], 2.0),
        ("loom_work_run_seconds_count", &[], 1.0),
        ("loom_ledger_operations", &[], 0.0),
    ] {
        let found = sample(&text, &project, name, labels);
        assert_eq!(found, Some(expected), "{name} {labels:?} in\n{text}");
    }
    let writes = sample(&text, &project, "loom_ledger_write_seconds_count", &[]);
    assert!(writes >= Some(5.0), "{writes:?} in\n{text}");
    assert!(text.lines().any(|line| line == "loom_ready 1"), "{text}");
    Ok(())
}

/// A target with one agent that was born from it, and one whose only start failed.
async fn births(project: &TestProject) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("started");
    let line =
        "echo \"$$ $LOOM_TICKET\" > \"$FILE.new\"; mv \"$FILE.new\" \"$FILE\"; exec sleep 60";
    for (name, line) in [("good", line), ("bad", "exit 3")] {
        let target = json!({
            "name": name, "agentType": "codex", "capabilities": ["none-waits"], "mechanism": "local",
            "config": {"command": "sh", "args": ["-c", line], "env": {"FILE": file}},
        });
        project.request("targets.register", target).await?;
        project
            .request("spin-up.trigger", json!({"target": name}))
            .await?;
    }
    let written = async || std::fs::read_to_string(&file).ok();
    let written = project
        .eventually("a process has its ticket", written)
        .await?;
    let (number, ticket) = written
        .trim()
        .split_once(' ')
        .context("a number and a ticket")?;
    let newborn = OwnedNewborn {
        guid: AgentGuid::generate(),
        instance_id: Some("run-1".into()),
        agent_type: "codex".into(),
        capabilities: vec!["none-waits".into()],
        boundaries: vec!["default".into()],
    };
    let ticket = BirthTicket::from_text(ticket.to_owned());
    project
        .parts()?
        .target_manager
        .redeem(&ticket, newborn)
        .await?;
    std::process::Command::new("kill").arg(number).status()?;
    let ended = async || {
        let failed: Vec<Value> = project
            .call("spin-up.list", &json!({"status": "failed"}))
            .await
            .ok()?;
        (failed.len() == 1).then_some(())
    };
    project
        .eventually("the start at bad has failed", ended)
        .await?;
    Ok(folder)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn starts_of_agents_and_the_agents_of_each_target_can_be_counted() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let _folder = births(&project).await?;
    let text = shown(&fleet).await?;
    let local = "mechanism=\"local\"";
    for (name, labels, expected) in [
        (
            "loom_spin_ups_total",
            &[local, "outcome=\"success\""][..],
            Some(1.0),
        ),
        (
            "loom_spin_ups_total",
            &[local, "outcome=\"failed\""],
            Some(1.0),
        ),
        ("loom_spin_ups_total", &["outcome=\"timeout\""], None),
        ("loom_spin_up_birth_seconds_count", &[local], Some(1.0)),
        ("loom_spin_ups_under_way", &[], Some(0.0)),
        ("loom_targets", &["status=\"in-use\""], Some(1.0)),
        ("loom_targets", &["status=\"error\""], Some(1.0)),
        ("loom_targets", &["status=\"available\""], Some(0.0)),
        ("loom_target_agents", &["target=\"good\""], Some(1.0)),
        ("loom_target_agents", &["target=\"bad\""], None),
    ] {
        let found = sample(&text, &project, name, labels);
        assert_eq!(found, expected, "{name} {labels:?} in\n{text}");
    }
    let stats = project.request("stats", json!({})).await?;
    let targets = json!({"total": 2, "available": 0, "inUse": 1, "disabled": 0, "error": 1});
    assert_eq!(stats["targets"], targets);
    // A target that is gone leaves no sample behind.
    project
        .request("targets.disable", json!({"target": "bad"}))
        .await?;
    project
        .request("targets.remove", json!({"target": "bad"}))
        .await?;
    let text = shown(&fleet).await?;
    let left = sample(&text, &project, "loom_targets", &["status=\"error\""]);
    assert_eq!(left, Some(0.0));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn entries_of_the_bucket_of_all_projects_that_are_no_agents_are_counted() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    let jetstream = async_nats::jetstream::new(project.client().clone());
    let config = async_nats::jetstream::kv::Config {
        bucket: names::SHARED_AGENTS_BUCKET.to_owned(),
        ..Default::default()
    };
    let bucket = jetstream.create_key_value(config).await?;
    let bad = |of: &str| json!({"projectId": of, "maxConcurrentTasks": "few"}).to_string();
    let own = AgentGuid::generate().to_string();
    bucket.put(&own, bad(project.id().as_str()).into()).await?;
    for entry in [bad("asleep"), "{".to_owned()] {
        let key = AgentGuid::generate().to_string();
        bucket.put(key, entry.into()).await?;
    }
    let counted = async |of: &str, count: f64| {
        let start =
            format!("loom_unreadable_records{{project=\"{of}\",place=\"agent-registry\"}} ");
        let look = async || {
            let text = shown(&fleet).await.ok()?;
            let mut values = text.lines().filter_map(|line| line.strip_prefix(&start));
            let value: f64 = values.next()?.parse().ok()?;
            ((value - count).abs() < 0.5).then_some(())
        };
        project.eventually(&format!("{start}{count}"), look).await
    };
    counted(project.id().as_str(), 1.0).await?;
    counted("default", 2.0).await?;
    bucket.delete(&own).await?;
    counted(project.id().as_str(), 0.0).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_dashboard_asks_only_for_what_is_there() -> Result<()> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let asked: BTreeSet<String> = queries(&dashboard)
        .flat_map(|query| names_in(query).collect::<Vec<_>>())
        .collect();
    assert!(asked.len() > 8, "{asked:?}");

    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    project
        .submit(json!({"description": "d", "capability": "rust"}))
        .await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    agent.complete(&item, "done").await?;
    project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.release(&item).await?;
    let _folder = births(&project).await?;
    let text = shown(&fleet).await?;
    for name in asked {
        // Counted only when it happens, which this test does not let it.
        if name == "loom_lease_expiries_total" {
            continue;
        }
        assert!(text.contains(&name), "nothing is called {name} in\n{text}");
    }
    Ok(())
}

fn queries(dashboard: &Value) -> impl Iterator<Item = &str> {
    dashboard["panels"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["expr"].as_str())
}

fn names_in(query: &str) -> impl Iterator<Item = String> {
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("loom_"))
        .map(ToOwned::to_owned)
}
