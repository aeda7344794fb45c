use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::stream;
use loom_actors::nats::stamp::STAMP_KEY;
use loom_protocol::{VerbName, names};
use loom_testkit::fleet::{Fleet, TestProject, everybody};
use serde_json::json;

use super::house::{NOT_THE_ONE, ledger, until_green};

fn assert_content(fleet: &Fleet) -> Result<()> {
    let problems = fleet.service()?.readiness().problems;
    assert!(
        !problems.iter().any(|p| p.contains(NOT_THE_ONE)),
        "{problems:?}"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_server_that_is_killed_and_started_again_is_never_another_store() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let mut turns = fleet.service()?.projects().terms().stores.turns();
    turns.mark_unchanged();
    for _ in 0..3 {
        let item = json!({"description": "d", "capability": "rust"});
        project.insist("work.submit", item).await?;
        fleet.nats().kill().await?;
        fleet.nats().restart().await?;
        until_green(&fleet, &project).await?;
        assert_content(&fleet)?;
    }
    let count = async || (project.all_work().await.ok()?.len() >= 3).then_some(());
    project.eventually("all items are there", count).await?;
    assert!(!turns.has_changed()?, "it was taken for another store");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn expired_and_purged_records_are_no_older_store() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| settings.work.retention = Duration::from_secs(1))
        .start()
        .await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    project.submit_plain("rust").await?;
    let claimed = agent.claim_one().await?;
    agent.complete(&claimed, "done").await?;
    let empty = async || (ledger(&project).await.ok()?.state.messages == 0).then_some(());
    project.eventually("all records expire", empty).await?;
    drop(agent);
    fleet.nats().kill().await?;
    fleet.nats().restart().await?;
    until_green(&fleet, &project).await?;
    let agent = project.agent("rust").spawn().await?;
    let item = json!({"description": "d", "capability": "rust"});
    project.insist("work.submit", item.clone()).await?;
    let claimed = project.eventually("a claim", async || agent.claim_one().await.ok());
    agent.complete(&claimed.await?, "done").await?;
    drop(agent);

    let name = format!("KV_{}", names::work_bucket(project.id()));
    project.jetstream().get_stream(&name).await?.purge().await?;
    fleet.nats().kill().await?;
    fleet.nats().restart().await?;
    project.insist("work.submit", item).await?;
    assert_content(&fleet)
}

/// Takes the stamp away, as it was before streams had one.
async fn without_stamp(project: &TestProject, name: &str) -> Result<()> {
    let stream = project.jetstream().get_stream(name).await?;
    let mut config: stream::Config = stream.cached_info().config.clone();
    config.metadata.remove(STAMP_KEY);
    project.jetstream().update_stream(config).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_store_of_an_older_version_is_given_its_stamps_once_and_loses_nothing() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    fleet.stop().await?;
    let name = format!("KV_{}", names::work_bucket(project.id()));
    without_stamp(&project, &name).await?;
    without_stamp(&project, "KV_LOOM_OWNERS").await?;
    std::fs::remove_dir_all(fleet.data_dir())?;
    std::fs::create_dir_all(fleet.data_dir())?;

    fleet.start_again().await?;
    project.work(id).await?;
    assert_content(&fleet)?;
    let stamp = ledger(&project).await?.config.metadata[STAMP_KEY].clone();
    let store_id = fleet
        .service()?
        .info(&everybody(VerbName::Info, None)?)
        .store_id;
    fleet.crash().await?;
    fleet.start_again().await?;
    project.work(id).await?;
    assert_content(&fleet)?;
    assert_eq!(
        ledger(&project).await?.config.metadata[STAMP_KEY],
        stamp,
        "once"
    );
    let info = fleet.service()?.info(&everybody(VerbName::Info, None)?);
    assert_eq!((info.store_id, info.warnings), (store_id, Vec::new()));
    Ok(())
}
