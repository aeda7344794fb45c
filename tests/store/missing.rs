use anyhow::{Context as _, Result};
use loom_protocol::work::WorkStatus;
use loom_protocol::{ErrorCode, VerbName, WorkId, names};
use loom_testkit::fleet::{Fleet, TestProject, everybody};
use serde_json::json;

use super::house::{assert_takes_nothing_in, ledger, until_green, until_red};

async fn stream(project: &TestProject) -> Result<async_nats::jetstream::stream::Stream> {
    let name = format!("KV_{}", names::work_bucket(project.id()));
    Ok(project.jetstream().get_stream(name).await?)
}

async fn put(project: &TestProject, id: WorkId, bytes: &'static str) -> Result<u64> {
    let subject = format!("$KV.{}.{id}", names::work_bucket(project.id()));
    let stored = project.jetstream().publish(subject, bytes.into()).await?;
    Ok(stored.await?.sequence)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ledger_that_was_purged_is_red_and_lists_what_was_in_it_until_that_is_accepted()
-> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let held = project.submit_plain("rust").await?;
    agent.claim_one().await?;
    let pending = project.submit_plain("other").await?;
    drop(agent);
    stream(&project).await?.purge().await?;

    let sentence = until_red(&fleet, &project).await?;
    assert!(sentence.contains("2 items"), "{sentence}");
    let service = fleet.service()?;
    assert_takes_nothing_in(&service, project.id()).await;
    let lost = service
        .lost(&everybody(VerbName::StoreLost, Some(project.id()))?)
        .await?;
    let told: Vec<_> = lost
        .items
        .iter()
        .map(|item| (item.id, item.status))
        .collect();
    assert!(told.contains(&(held, WorkStatus::Assigned)), "{told:?}");
    assert!(told.contains(&(pending, WorkStatus::Pending)), "{told:?}");

    let accepted = service
        .accept_store(&everybody(VerbName::StoreAccept, Some(project.id()))?)
        .await?;
    assert_eq!(accepted.lost, 2);
    until_green(&fleet, &project).await?;
    let id = project.submit_plain("rust").await?;
    let agent = project.agent("rust").spawn().await?;
    assert_eq!(agent.claim_one().await?.work_item.id, id);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_message_that_was_deleted_is_told_among_many() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(project.submit_plain("rust").await?);
    }
    let deleted = project.work(ids[7]).await?;
    stream(&project)
        .await?
        .delete_message(deleted.revision)
        .await?;
    let sentence = until_red(&fleet, &project).await?;
    assert!(sentence.contains("1 items"), "{sentence}");
    let lost = fleet
        .service()?
        .lost(&everybody(VerbName::StoreLost, Some(project.id()))?)
        .await?;
    let lost: Vec<_> = lost.items.iter().map(|item| item.id).collect();
    assert_eq!(lost, [ids[7]]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_claim_that_meets_a_deleted_or_unreadable_item_is_given_the_next_one() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let deleted = project.submit_plain("rust").await?;
    let garbage = project.submit_plain("rust").await?;
    let good = project.submit_plain("rust").await?;
    let bucket = names::work_bucket(project.id());
    let store = project.jetstream().get_key_value(&bucket).await?;
    store.delete(deleted.to_string()).await?;
    let revision = put(&project, garbage, "garbage").await?;

    let agent = project.agent("rust").spawn().await?;
    assert_eq!(agent.claim_one().await?.work_item.id, good);
    let gone = project.work(deleted).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound, "{gone:?}");
    for refused in [
        project.work(garbage).await.map(drop).unwrap_err(),
        project
            .request("work.cancel", json!({"id": garbage}))
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        for part in [
            &garbage.to_string(),
            &bucket,
            &revision.to_string(),
            "nats kv purge",
        ] {
            assert!(
                refused.message.contains(part),
                "{part:?} is not in {refused:?}"
            );
        }
        assert!(!refused.message.contains("newer"), "{refused:?}");
    }
    let listed = project.all_work().await?;
    let pending = listed
        .iter()
        .filter(|item| item.status == WorkStatus::Pending);
    assert_eq!(pending.count(), 0, "neither can be claimed");
    let service = fleet.service()?;
    assert!(
        service.readiness().ready,
        "one key that somebody deletes is no lost store"
    );
    let warnings = service.info(&everybody(VerbName::Info, None)?).warnings;
    assert!(
        warnings.iter().any(|w| w.contains(&deleted.to_string())),
        "{warnings:?}"
    );

    store.purge(garbage.to_string()).await?;
    let again = json!({"id": garbage, "description": "again", "capability": "rust"});
    project.submit(again).await?;
    assert_eq!(project.work(garbage).await?.status, WorkStatus::Pending);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_unreadable_record_is_told_though_nobody_touches_the_item() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    put(&project, id, "garbage").await?;
    let told = async || {
        let refused = project.work(id).await.err()?;
        refused.message.contains("cannot be read").then_some(())
    };
    project
        .eventually("the item is told to be unreadable", told)
        .await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn records_that_expire_and_are_removed_by_us_are_never_missing() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.work.retention = std::time::Duration::from_secs(1);
            settings.work.max_finished = 5;
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let mut turns = fleet.service()?.projects().terms().stores.turns();
    turns.mark_unchanged();
    let kept = project.submit_plain("nobody").await?;
    let agent = project.agent("rust").spawn().await?;
    for _ in 0..40 {
        project.submit_plain("rust").await?;
        let claimed = agent.claim_one().await?;
        agent.complete(&claimed, "done").await?;
    }
    let one_is_left = async || (ledger(&project).await.ok()?.state.messages == 1).then_some(());
    project.eventually("all others expire", one_is_left).await?;
    // Every change of the stream makes the ledger look at it.
    let name = format!("KV_{}", names::work_bucket(project.id()));
    let mut config = stream(&project).await?.cached_info().config.clone();
    config.max_messages = 1_000;
    project.jetstream().update_stream(&config).await?;
    let looked = async || {
        let stream = project.jetstream().get_stream(&name).await.ok()?;
        (stream.cached_info().config.max_messages < 1).then_some(())
    };
    project.eventually("the ledger has looked", looked).await?;
    project.work(kept).await.context("what is kept")?;
    assert!(!turns.has_changed()?, "it was taken for another store");
    Ok(())
}
