use anyhow::Result;
use loom_protocol::work::WorkStatus;
use loom_protocol::{ErrorCode, names};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use super::house::{fail_one, get, letter_of, stored};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stream_of_letters_that_was_removed_is_an_empty_list_and_made_again() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let (first, second) = (
        fail_one(&project, &agent).await?,
        fail_one(&project, &agent).await?,
    );
    letter_of(&project, first).await?;
    letter_of(&project, second).await?;
    let stream = names::dead_letter_stream(project.id());
    project.jetstream().delete_stream(&stream).await?;

    let listed = project.request("dlq.list", json!({})).await?;
    assert_eq!(listed, json!([]));
    let gone = get(&project, first).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound, "{gone:?}");
    let there = async || project.jetstream().get_stream(&stream).await.ok().map(drop);
    project
        .eventually("the stream is made again", there)
        .await?;

    let agent = project.agent("other").spawn().await?;
    let third = fail_one(&project, &agent).await?;
    assert_eq!(letter_of(&project, third).await?.id, third);
    assert_eq!(stored(&project).await?, (1, 1));
    let gone = project
        .request("dlq.retry", json!({"id": second}))
        .await
        .unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound, "{gone:?}");
    assert_eq!(
        get(&project, third).await?.id,
        third,
        "nothing was deleted by an old place"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_is_put_back_though_its_letter_is_gone_with_the_stream() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail_one(&project, &agent).await?;
    letter_of(&project, id).await?;
    drop(agent);
    let stream = names::dead_letter_stream(project.id());
    project.jetstream().delete_stream(&stream).await?;
    // Whoever asks before anybody has looked is served from the record; later there is no letter to put back.
    match project.request("dlq.retry", json!({"id": id})).await {
        Ok(retried) => {
            assert_eq!(retried["retried"], 1);
            assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
        }
        Err(error) => assert_eq!(error.code, ErrorCode::NotFound, "{error:?}"),
    }
    let there = async || project.jetstream().get_stream(&stream).await.ok().map(drop);
    project
        .eventually(
            "the stream is made again, though nobody lists or writes",
            there,
        )
        .await
}
