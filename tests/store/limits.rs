use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use async_nats::jetstream::response::Response;
use loom_protocol::{ProjectId, VerbName, names};
use loom_testkit::fleet::{Fleet, TestProject, everybody};
use serde_json::{Value, json};

use super::house::until_red;

async fn api(jetstream: &jetstream::Context, subject: String, body: &Value) -> Result<Value> {
    match jetstream.request(subject, body).await? {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => anyhow::bail!("{error}"),
    }
}

async fn config(project: &TestProject, stream: &str) -> Result<Value> {
    let info = api(
        project.jetstream(),
        format!("STREAM.INFO.{stream}"),
        &json!({}),
    )
    .await?;
    Ok(info["config"].clone())
}

/// Changes a stream as an operator does.
async fn change(project: &TestProject, stream: &str, fields: Value) -> Result<()> {
    let mut config = config(project, stream).await?;
    for (name, value) in fields.as_object().context("fields")? {
        config[name] = value.clone();
    }
    api(
        project.jetstream(),
        format!("STREAM.UPDATE.{stream}"),
        &config,
    )
    .await?;
    Ok(())
}

async fn until(project: &TestProject, stream: &str, fields: Value) -> Result<()> {
    let as_they_were = async || {
        let now = config(project, stream).await.ok()?;
        let mut fields = fields.as_object().into_iter().flatten();
        fields
            .all(|(name, value)| now[name] == *value)
            .then_some(())
    };
    let what = format!("{stream} is {fields}");
    project.eventually(&what, as_they_were).await
}

fn ledger_of(project: &ProjectId) -> String {
    format!("KV_{}", names::work_bucket(project))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ledger_that_was_made_with_limits_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let name = ledger_of(project.id());
    fleet.stop().await?;
    let _gone = project.jetstream().delete_stream(&name).await;
    let made = json!({
        "name": name, "subjects": [format!("$KV.{}.>", names::work_bucket(project.id()))], "max_msgs_per_subject": 1,
        "discard": "old", "max_msgs": 3, "max_age": 3_000_000_000_i64, "duplicate_window": 1_000_000_000,
        "allow_direct": true, "allow_rollup_hdrs": true, "allow_msg_ttl": true, "storage": "file",
        "retention": "limits", "num_replicas": 1, "metadata": {"made": "by hand"}, "max_bytes": 100_000_000,
    });
    api(project.jetstream(), format!("STREAM.CREATE.{name}"), &made).await?;
    fleet.start_again().await?;
    for _ in 0..10 {
        project.submit_plain("rust").await?;
    }
    let now = config(&project, &name).await?;
    assert_eq!(now["max_msgs"], -1, "{now}");
    assert_eq!(now["max_age"], 0, "{now}");
    assert_eq!(now["discard"], "new", "{now}");
    assert_eq!(now["max_bytes"], 100_000_000, "a budget is the operator's");
    assert_eq!(now["metadata"]["made"], "by hand", "{now}");
    assert_eq!(project.all_work().await?.len(), 10);
    let agent = project.agent("rust").slots(64).spawn().await?;
    let claimed = project
        .request("work.claim", json!({"guid": agent.guid(), "max": 64}))
        .await?;
    assert_eq!(claimed["items"].as_array().map(Vec::len), Some(10));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn limits_that_are_set_on_running_streams_are_set_back() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    let name = ledger_of(project.id());
    change(
        &project,
        &name,
        json!({"max_msgs": 1_000, "max_age": 3_600_000_000_000_i64, "description": "mine"}),
    )
    .await?;
    until(
        &project,
        &name,
        json!({"max_msgs": -1, "max_age": 0, "description": "mine"}),
    )
    .await?;

    let letters = names::dead_letter_stream(project.id());
    let agent = project.agent("doomed").spawn().await?;
    let item = json!({"description": "d", "capability": "doomed", "maxAttempts": 1});
    project.submit(item).await?;
    let claimed = agent.claim_one().await?;
    agent.fail(&claimed, "broken", false).await?;
    let there = async || {
        project
            .jetstream()
            .get_stream(&letters)
            .await
            .ok()
            .map(drop)
    };
    project.eventually("the stream of letters", there).await?;
    change(&project, &letters, json!({"max_msgs": 1})).await?;
    until(&project, &letters, json!({"max_msgs": -1})).await?;
    ensure!(fleet.service()?.readiness().ready, "nothing was lost");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn items_that_an_age_has_taken_away_are_told_and_the_age_is_gone() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    let name = ledger_of(project.id());
    change(
        &project,
        &name,
        json!({"max_age": 100_000_000, "duplicate_window": 100_000_000}),
    )
    .await?;
    until(&project, &name, json!({"max_age": 0})).await?;
    let lost = async || {
        let info = super::house::ledger(&project).await.ok()?;
        Some(info.state.messages == 0)
    };
    if project.eventually("the ledger is looked at", lost).await? {
        until_red(&fleet, &project).await?;
        let lost = fleet
            .service()?
            .lost(&everybody(VerbName::StoreLost, Some(project.id()))?)
            .await?;
        assert_eq!(lost.items[0].id, id);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ledger_in_memory_is_a_warning() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    let name = ledger_of(project.id());
    fleet.stop().await?;
    let mut made = config(&project, &name).await?;
    project.jetstream().delete_stream(&name).await?;
    made["storage"] = json!("memory");
    api(project.jetstream(), format!("STREAM.CREATE.{name}"), &made).await?;
    std::fs::remove_dir_all(fleet.data_dir())?;
    std::fs::create_dir_all(fleet.data_dir())?;
    fleet.start_again().await?;
    project.submit_plain("rust").await?;
    let service = fleet.service()?;
    for warnings in [
        service.info(&everybody(VerbName::Info, None)?).warnings,
        service.store(&everybody(VerbName::Store, None)?).warnings,
    ] {
        let told = warnings
            .iter()
            .any(|w| w.contains(&name) && w.contains("memory"));
        assert!(told, "{warnings:?}");
    }
    assert!(service.readiness().ready, "it may be meant");
    Ok(())
}
