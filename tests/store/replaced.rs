use anyhow::Result;
use futures_util::StreamExt as _;
use loom_protocol::readiness::ProblemKind;
use loom_protocol::work::WorkStatus;
use loom_protocol::{VerbName, names};
use loom_testkit::fleet::{Fleet, everybody};
use loom_testkit::nats::until_subscribed;
use serde_json::json;

use super::house::{assert_takes_nothing_in, ledger, loom_store, streams, until_green, until_red};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_empty_store_under_the_same_url_is_red_and_takes_nothing_in_until_it_is_accepted()
-> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let named = json!({"description": "d", "capability": "rust", "taskId": "TASK-7"});
    let leased = project.submit(named).await?.id;
    agent.claim_one().await?;
    let pending = project.submit_plain("other").await?;
    drop(agent);

    fleet.nats().lose_the_store().await?;
    until_red(&fleet, &project).await?;
    let service = fleet.service()?;
    assert_takes_nothing_in(&service, project.id()).await;
    assert_eq!(
        streams(&project).await?,
        Vec::<String>::new(),
        "nothing is made"
    );
    // The ownership lies in that store too; its end comes later than any word on a majority.
    let no_owner = async || {
        service
            .readiness()
            .kinds
            .contains(&ProblemKind::NotOwner)
            .then_some(())
    };
    project
        .eventually("the ownership is over", no_owner)
        .await?;
    let problems = service.readiness().problems.join("\n");
    assert!(
        !problems.contains("majority"),
        "every server is there: {problems}"
    );

    let lost = service
        .lost(&everybody(VerbName::StoreLost, Some(project.id()))?)
        .await?;
    let told: Vec<_> = lost
        .items
        .iter()
        .map(|i| (i.id, i.status, i.in_store))
        .collect();
    assert!(
        told.contains(&(leased, WorkStatus::Assigned, None)),
        "{told:?}"
    );
    assert!(
        told.contains(&(pending, WorkStatus::Pending, None)),
        "{told:?}"
    );
    let (code, text) = loom_store(&fleet, &["lost"]).await?;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("TASK-7") && text.contains(&pending.to_string()),
        "{text}"
    );

    let (code, text) = loom_store(&fleet, &["accept"]).await?;
    assert_eq!(code, 2, "nobody was asked back: {text}");
    assert!(text.contains("--yes"), "{text}");
    assert_eq!(
        streams(&project).await?,
        Vec::<String>::new(),
        "nothing is made"
    );
    let (code, text) = loom_store(&fleet, &["accept", "--yes"]).await?;
    assert_eq!(code, 0, "{text}");
    until_green(&fleet, &project).await?;
    let item = json!({"description": "goes on", "capability": "rust"});
    project.insist("work.submit", item).await?;
    let still = fleet
        .service()?
        .lost(&everybody(VerbName::StoreLost, Some(project.id()))?)
        .await?;
    assert_eq!(still.total, lost.total, "it can be looked up afterwards");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_older_copy_is_red_and_what_it_lacks_is_listed() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let changed = project.submit_plain("rust").await?;
    let copy = fleet.nats().keep_a_copy().await?;
    let item = json!({"description": "d", "capability": "other"});
    let newer = project.insist("work.submit", item).await?["id"].clone();
    let claimed = project.eventually("a claim", async || agent.claim_one().await.ok());
    agent.complete(&claimed.await?, "done").await?;
    drop(agent);

    fleet.nats().go_back_to(&copy).await?;
    let sentence = until_red(&fleet, &project).await?;
    assert!(sentence.contains("older copy"), "{sentence}");
    let before = ledger(&project).await?.state.last_sequence;
    let service = fleet.service()?;
    assert_takes_nothing_in(&service, project.id()).await;
    let lost = service
        .lost(&everybody(VerbName::StoreLost, Some(project.id()))?)
        .await?;
    let told: Vec<_> = lost
        .items
        .iter()
        .map(|i| (json!(i.id), i.in_store))
        .collect();
    assert!(told.contains(&(newer, None)), "{told:?}");
    assert!(
        told.contains(&(json!(changed), Some(WorkStatus::Pending))),
        "{told:?}"
    );
    assert_eq!(
        ledger(&project).await?.state.last_sequence,
        before,
        "nothing is written"
    );

    let (code, text) = loom_store(&fleet, &["accept", "--yes"]).await?;
    assert_eq!(code, 0, "{text}");
    until_green(&fleet, &project).await?;
    let pending = async || {
        let item = project.work(changed).await.ok()?;
        (item.status == WorkStatus::Pending).then_some(())
    };
    project.eventually("the ledger is read anew", pending).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_right_store_back_is_green_without_anybody_accepting_anything() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    let copy = fleet.nats().keep_a_copy().await?;
    fleet.nats().lose_the_store().await?;
    until_red(&fleet, &project).await?;
    fleet.nats().go_back_to(&copy).await?;
    until_green(&fleet, &project).await?;
    let there = async || project.work(id).await.ok().map(drop);
    project.eventually("the item is there", there).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ledger_that_is_removed_under_us_is_red_though_somebody_listens() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let mut listening = project.client().subscribe(">").await?;
    until_subscribed(project.client()).await?;
    tokio::spawn(async move { while listening.next().await.is_some() {} });
    let id = project.submit_plain("rust").await?;
    let bucket = names::work_bucket(project.id());
    project
        .jetstream()
        .delete_stream(format!("KV_{bucket}"))
        .await?;
    let item = json!({"description": "d", "capability": "rust"});
    project.request("work.submit", item).await.unwrap_err();
    let sentence = until_red(&fleet, &project).await?;
    assert!(sentence.contains(project.id().as_str()), "{sentence}");
    let service = fleet.service()?;
    assert_takes_nothing_in(&service, project.id()).await;
    let refused = service
        .get_work(&everybody(VerbName::WorkGet, None)?, &id.to_string())
        .await
        .unwrap_err();
    assert_eq!(
        refused.code,
        loom_protocol::ErrorCode::Unavailable,
        "not `not-found`"
    );

    let accepted = service
        .accept_store(&everybody(VerbName::StoreAccept, Some(project.id()))?)
        .await?;
    assert_eq!((accepted.whole, accepted.lost), (false, 1));
    until_green(&fleet, &project).await?;
    project.submit_plain("rust").await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_project_whose_ledger_is_gone_holds_up_no_other() -> Result<()> {
    let fleet = Fleet::own().await?;
    let (project, other) = (fleet.project().await?, fleet.project().await?);
    project.submit_plain("rust").await?;
    other.submit_plain("rust").await?;
    let bucket = names::work_bucket(project.id());
    project
        .jetstream()
        .delete_stream(format!("KV_{bucket}"))
        .await?;
    let item = json!({"description": "d", "capability": "rust"});
    project.request("work.submit", item).await.unwrap_err();
    until_red(&fleet, &project).await?;
    other.submit_plain("rust").await?;
    assert_eq!(other.all_work().await?.len(), 2);
    Ok(())
}
