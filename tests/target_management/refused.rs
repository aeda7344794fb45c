//! What is refused, and what is never told.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use loom_coordinator::api_client::ApiError;
use loom_protocol::target::Mechanism;
use loom_protocol::{ErrorCode, names};
use loom_testkit::fleet::{Fleet, TestProject};
use loom_testkit::nats::until_subscribed;
use serde_json::{Value, json};

use crate::file::defined;
use crate::{SECRET, all, get, local, names_of, register, with};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn bad_input_is_refused_by_the_name_of_its_field_and_leaves_nothing() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let api = project.api()?;
    register(&project, local("taken")).await?;
    for (changes, named) in [
        (json!({"mechanism": "carrier-pigeon"}), "mechanism"),
        (json!({"mechanism": null}), "mechanism"),
        (
            json!({"config": {"mechanism": "ssh", "ssh": {"host": "h"}}}),
            "config",
        ),
        (
            json!({"mechanism": "ssh", "config": {"user": "me", "command": "x"}}),
            "host",
        ),
        (json!({"config": {"command": ""}}), "command"),
        (json!({"name": "with a space"}), "name"),
        (json!({"name": "n".repeat(300)}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "a/b"}), "name"),
        (json!({"name": ".."}), "name"),
        (json!({"name": "deadbeef"}), "name"),
        (json!({"maxAgents": 0}), "maxAgents"),
        (json!({"maxAgents": 100_000}), "maxAgents"),
        (json!({"capabilities": []}), "capabilities"),
        (
            json!({"config": {"command": "x", "env": {"no name": SECRET}}}),
            "env",
        ),
        (json!({"config": {"command": "x", "env": SECRET}}), "env"),
        (
            json!({"config": {"command": "x".repeat(100_000)}}),
            "config",
        ),
    ] {
        let bad = with(local("bad"), &changes);
        let over_nats = register(&project, bad.clone())
            .await
            .expect_err("it is refused");
        let over_rest: Result<Value, ApiError> = api.post(&["targets"], &bad).await;
        let Err(ApiError::Refused(over_rest)) = over_rest else {
            panic!("{changes} is taken");
        };
        for error in [over_nats, over_rest] {
            let said = error.to_string();
            assert!((400..500).contains(&error.code.status()), "{said}");
            assert!(
                said.contains(named) && !said.contains(SECRET),
                "{changes}: {said}"
            );
        }
    }
    // 10 MB do not come as far as that.
    let huge = with(
        local("bad"),
        &json!({"config": {"command": "x".repeat(10_000_000)}}),
    );
    let huge: Result<Value, ApiError> = api.post(&["targets"], &huge).await;
    assert!(huge.is_err());
    let wrong = json!({"target": "taken", "updates": {"maxAgents": 0}});
    let wrong = project.request("targets.update", wrong).await;
    assert_eq!(
        wrong.expect_err("it is refused").code,
        ErrorCode::InvalidRequest
    );
    for nobody in ["nobody", "", "01a203ca", "*", ">", "a b"] {
        let error = get(&project, nobody).await.expect_err("there is none");
        assert!(error.code.status() < 500, "{nobody}: {error}");
    }
    assert_eq!(names_of(&all(&project).await?), ["taken"]);
    assert_eq!(get(&project, "taken").await?.max_agents, 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_secret_is_in_no_answer_and_in_no_event() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut events = project
        .client()
        .subscribe(names::all_events(project.id()))
        .await?;
    until_subscribed(project.client()).await?;
    let mut said = Vec::new();
    said.push(project.request("targets.register", local("here")).await?);
    let update = json!({"target": "here", "updates": {"config": {"env": {"MORE": SECRET}}}});
    said.push(project.request("targets.update", update).await?);
    said.push(
        project
            .request("targets.get", json!({"target": "here"}))
            .await?,
    );
    said.push(project.request("targets.list", json!({})).await?);
    said.push(
        project
            .request("targets.disable", json!({"target": "here"}))
            .await?,
    );
    let api = project.api()?;
    said.push(
        api.get(&["targets"], &[("includeDisabled", "true".into())])
            .await?,
    );
    said.push(api.get(&["targets", "here"], &[]).await?);
    said.push(api.post(&["targets", "here", "enable"], &json!({})).await?);
    let taken = project.request("targets.register", local("HERE")).await;
    said.push(serde_json::to_value(taken.expect_err("it is taken"))?);
    said.push(api.delete(&["targets", "here"]).await?);
    for answer in &said {
        assert!(!answer.to_string().contains(SECRET), "{answer}");
    }
    assert!(
        said[0].to_string().contains("***"),
        "its name is told: {}",
        said[0]
    );
    for _ in 0..5 {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await?;
        let event = event.context("the connection is closed")?;
        let text = String::from_utf8_lossy(&event.payload).into_owned();
        assert!(
            event.subject.contains(".events.target."),
            "{}",
            event.subject
        );
        assert!(!text.contains(SECRET) && !text.contains("TOKEN"), "{text}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_may_not_come_by_request_is_forbidden_by_both_doors() -> Result<()> {
    let fleet = Fleet::builder().settings(|settings| {
        settings.targets.api_mechanisms = vec![Mechanism::Webhook];
        settings.targets.define = defined("rust");
    });
    let fleet = fleet.start().await?;
    let project = fleet.project().await?;
    let refused = register(&project, local("here"))
        .await
        .expect_err("it is forbidden");
    assert_eq!(refused.code, ErrorCode::Forbidden);
    assert!(
        refused.message.contains("targets.api_mechanisms"),
        "{refused}"
    );
    let by_rest: Result<Value, ApiError> = project.api()?.post(&["targets"], &local("here")).await;
    assert!(matches!(by_rest, Err(ApiError::Refused(error)) if error.code == ErrorCode::Forbidden));
    let hook = json!({
        "name": "hook", "agentType": "t", "capabilities": ["c"], "mechanism": "webhook",
        "config": {"url": "https://hooks.example/start"},
    });
    register(&project, hook).await?;

    // What the file defines is there, and how it starts agents cannot be changed by request; the rest can.
    let default = fleet.service()?.default_project().clone();
    let default = TestProject::of_process(default, &fleet.nats().url()).await?;
    let look = async || get(&default, "of-the-file").await.ok();
    let of_file = default.eventually("it is defined", look).await?;
    assert_eq!(of_file.registered_by, "config");
    let config = json!({"target": "of-the-file", "updates": {"config": {"command": "rm"}}});
    let config = default.request("targets.update", config).await;
    assert_eq!(
        config.expect_err("it is forbidden").code,
        ErrorCode::Forbidden
    );
    let more = json!({"target": "of-the-file", "updates": {"maxAgents": 2}});
    default.request("targets.update", more).await?;
    Ok(())
}
