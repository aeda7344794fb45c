//! Targets of the configuration file, and projects that sleep with theirs.

use std::time::Duration;

use anyhow::Result;
use loom_actors::projects::Projects;
use loom_actors::settings::Scalar as _;
use loom_coordinator::coordinator::{Coordinator, UpOptions};
use loom_coordinator::settings::{DefinedTargets, ServerUrl, Settings};
use loom_protocol::rest::Stats;
use loom_protocol::target::{Mechanism, TargetStatus};
use loom_protocol::{AgentGuid, ProjectId};
use loom_testkit::births::{Place, a_while};
use loom_testkit::fleet::{Fleet, TestProject};
use loom_testkit::nats::TestNats;
use serde_json::json;

use crate::{all, get, local, register, with};

/// What a file defines: two targets.
pub(crate) fn defined(capability: &str) -> DefinedTargets {
    let text = format!(
        r#"
        [[define]]
        name = "of-the-file"
        agent_type = "claude-code"
        capabilities = ["{capability}"]
        mechanism = "local"
        config = {{ command = "run" }}
        [[define]]
        name = "Both"
        agent_type = "claude-code"
        capabilities = ["{capability}"]
        mechanism = "local"
        config = {{ command = "run" }}
        "#
    );
    let mut table: toml::Table = toml::from_str(&text).expect("it is TOML");
    let tables = table.remove("define").expect("there are some");
    DefinedTargets::read(tables).expect("they are targets")
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn targets_of_the_file_follow_it_and_those_of_others_are_left_alone() -> Result<()> {
    let nats = TestNats::start().await?;
    let data = tempfile::tempdir()?;
    let id: ProjectId = TestNats::unique_project();
    let mut settings = Settings::default();
    settings.nats.url = Some(ServerUrl::new(nats.url()));
    settings.nats.data_dir = Some(data.path().into());
    settings.api.port = 0;
    settings.projects.default = id.clone();
    let project = TestProject::of_process(id, &nats.url()).await?;

    let coordinator = Coordinator::start(&settings, UpOptions::default()).await?;
    let theirs = register(&project, local("both")).await?;
    coordinator.shut_down().await;

    settings.targets.define = defined("rust");
    let coordinator = Coordinator::start(&settings, UpOptions::default()).await?;
    let look = async || get(&project, "of-the-file").await.ok();
    let first = project.eventually("it is defined", look).await?;
    project
        .insist("targets.disable", json!({"target": "of-the-file"}))
        .await?;
    coordinator.shut_down().await;

    settings.targets.define = defined("go");
    let coordinator = Coordinator::start(&settings, UpOptions::default()).await?;
    let look = async || {
        let target = get(&project, "of-the-file").await.ok()?;
        (target.capabilities == ["go"]).then_some(target)
    };
    let second = project.eventually("it follows the file", look).await?;
    assert_eq!(
        (second.id, second.status),
        (first.id, TargetStatus::Disabled)
    );
    assert_eq!(get(&project, "both").await?, theirs);
    coordinator.shut_down().await;

    settings.targets.define = DefinedTargets::default();
    let coordinator = Coordinator::start(&settings, UpOptions::default()).await?;
    assert_eq!(
        all(&project).await?.len(),
        2,
        "what is defined no longer stays"
    );
    coordinator.shut_down().await;
    Ok(())
}

/// What a file defines: a target of this mechanism, with this configuration.
fn defined_as(mechanism: &str, config: &str) -> DefinedTargets {
    let text = format!(
        r#"
        [[define]]
        name = "here"
        agent_type = "claude-code"
        capabilities = ["rust"]
        mechanism = "{mechanism}"
        config = {config}
        "#
    );
    let mut table: toml::Table = toml::from_str(&text).expect("it is TOML");
    let tables = table.remove("define").expect("there is one");
    DefinedTargets::read(tables).expect("it is a target")
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn another_mechanism_in_the_file_waits_until_the_agents_of_the_former_one_have_ended()
-> Result<()> {
    let (nats, place) = (TestNats::start().await?, Place::new()?);
    let data = tempfile::tempdir()?;
    let id: ProjectId = TestNats::unique_project();
    let mut settings = Settings::default();
    settings.nats.url = Some(ServerUrl::new(nats.url()));
    settings.nats.data_dir = Some(data.path().into());
    settings.api.port = 0;
    settings.projects.default = id.clone();
    settings.agents.idle_grace = Duration::from_secs(1);
    let ran = toml::Value::try_from(&place.target("here", 1)["config"])?;
    settings.targets.define = defined_as("local", &ran.to_string());
    let project = TestProject::of_process(id, &nats.url()).await?;

    let coordinator = Coordinator::start(&settings, UpOptions::default()).await?;
    let look = async || get(&project, "here").await.ok();
    let first = project.eventually("it is defined", look).await?;
    project.submit_plain("rust").await?;
    let process = place.started(&project, 1).await?.remove(0);
    let guid = AgentGuid::generate();
    let registration = process.registration(guid);
    process.register_insistently(&project, guid).await?;
    project.request("queue.purge", json!({"all": true})).await?;
    coordinator.shut_down().await;

    let hook = r#"{ url = "https://hooks.example/start" }"#;
    settings.targets.define = defined_as("webhook", hook);
    let coordinator = Coordinator::start(&settings, UpOptions::default()).await?;
    // Its agent is known again, and its process is the former mechanism's.
    let again = project.insist("agents.register", registration).await?;
    assert_eq!(again["targetId"], json!(first.id.to_string()));
    a_while().await;
    let target = get(&project, "here").await?;
    assert_eq!((target.id, target.mechanism), (first.id, Mechanism::Local));
    assert_eq!(target.config, first.config, "nothing of it is changed");
    assert_eq!(target.current_agent_guids, [guid]);
    assert!(process.lives());

    project
        .request("agents.deregister", json!({"guid": guid}))
        .await?;
    let look = async || {
        let target = get(&project, "here").await.ok()?;
        (target.mechanism == Mechanism::Webhook).then_some(target)
    };
    let second = project.eventually("it is as the file says", look).await?;
    assert_eq!(second.id, first.id);
    // What the former one has started is ended by that, though its target has another one by then.
    place.until_empty(&project).await?;
    coordinator.shut_down().await;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_with_targets_sleeps_is_counted_and_is_woken_by_a_look_at_them() -> Result<()> {
    let fleet = Fleet::builder().settings(|settings| {
        settings.projects.sleep_after = Duration::from_millis(300);
    });
    let fleet = fleet.start().await?;
    let project = fleet.project().await?;
    register(&project, local("here")).await?;
    project
        .request(
            "targets.register",
            with(local("off"), &json!({"enabled": false})),
        )
        .await?;
    let projects = fleet.service()?.projects();
    let of_id = Projects::is_asleep;
    let slumbers = || of_id(&projects, project.id());
    let look = async || slumbers().then_some(());
    project.eventually("it is asleep", look).await?;
    let stats: Stats = project.call("stats", &json!({})).await?;
    assert_eq!(
        (stats.asleep, stats.targets.total, stats.targets.disabled),
        (1, 2, 1)
    );
    assert!(slumbers(), "it was only counted");
    assert_eq!(all(&project).await?.len(), 2);
    assert!(!slumbers());
    Ok(())
}
