//! Targets of the configuration file, and projects that sleep with theirs.

use std::time::Duration;

use anyhow::Result;
use loom_actors::projects::Projects;
use loom_actors::settings::Scalar as _;
use loom_coordinator::coordinator::{Coordinator, UpOptions};
use loom_coordinator::settings::{DefinedTargets, ServerUrl, Settings};
use loom_protocol::ProjectId;
use loom_protocol::rest::Stats;
use loom_protocol::target::TargetStatus;
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
