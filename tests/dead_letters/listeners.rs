//! Whoever listens, and whoever has streams over our subjects, stops no dead letter and is not believed.

use anyhow::{Context as _, Result};
use async_nats::jetstream::stream;
use futures_util::StreamExt as _;
use loom_protocol::{ErrorCode, names};
use loom_testkit::fleet::{Fleet, TestProject};
use loom_testkit::nats::until_subscribed;
use serde_json::{Value, json};

use super::house::{fail_one, letter_of, stored};

/// What `/ready` says is wrong.
fn problems(fleet: &Fleet) -> Result<Vec<String>> {
    Ok(fleet.service()?.readiness().problems)
}

/// A stream of somebody else.
async fn their_stream(project: &TestProject, name: &str, subject: &str) -> Result<()> {
    let config = stream::Config {
        name: name.into(),
        subjects: vec![subject.into()],
        no_ack: false,
        ..Default::default()
    };
    project.jetstream().create_stream(config).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_listener_on_everything_does_not_stop_the_first_dead_letter() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    for subject in [">", "loom.>"] {
        let mut listening = project.client().subscribe(subject).await?;
        tokio::spawn(async move { while listening.next().await.is_some() {} });
    }
    until_subscribed(project.client()).await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail_one(&project, &agent).await?;
    letter_of(&project, id).await?;
    assert_eq!(stored(&project).await?, (1, 1), "published once");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stream_that_was_removed_is_made_again_though_somebody_listens() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let first = fail_one(&project, &agent).await?;
    letter_of(&project, first).await?;
    let mut listening = project.client().subscribe(">").await?;
    tokio::spawn(async move { while listening.next().await.is_some() {} });
    until_subscribed(project.client()).await?;
    let stream = names::dead_letter_stream(project.id());
    project.jetstream().delete_stream(stream).await?;
    let second = fail_one(&project, &agent).await?;
    letter_of(&project, second).await?;
    assert_eq!(
        stored(&project).await?.0,
        1,
        "the first went with its stream"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stream_of_somebody_else_over_the_dead_letters_is_named_and_not_believed() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    their_stream(&project, "THEIRS", "loom.*.dlq.>").await?;
    let id = fail_one(&project, &agent).await?;
    let named = async || {
        let problems = problems(&fleet).ok()?;
        problems
            .into_iter()
            .find(|problem| problem.contains("THEIRS"))
    };
    let problem = project.eventually("/ready names the stream", named).await?;
    assert!(problem.contains("dlq"), "{problem}");
    let refused = project.request("dlq.list", json!({})).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("THEIRS"), "{refused:?}");

    project.jetstream().delete_stream("THEIRS").await?;
    letter_of(&project, id).await?;
    assert_eq!(stored(&project).await?, (1, 1), "published once");
    let gone = async || problems(&fleet).ok()?.is_empty().then_some(());
    project.eventually("/ready is content again", gone).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_stream_of_somebody_else_takes_is_no_dead_letter() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let first = fail_one(&project, &agent).await?;
    letter_of(&project, first).await?;
    // Ours goes and theirs takes its place, while the project believes that there is one.
    let ours = names::dead_letter_stream(project.id());
    project.jetstream().delete_stream(ours).await?;
    their_stream(&project, "THEIRS", "loom.*.dlq.>").await?;
    let id = fail_one(&project, &agent).await?;
    let named = async || {
        let problems = problems(&fleet).ok()?;
        problems
            .into_iter()
            .find(|problem| problem.contains("THEIRS"))
    };
    project.eventually("/ready names the stream", named).await?;
    let unnoted = super::house::record(&project, id).await?.dead_letter;
    assert_eq!(unnoted, None, "what they took counts as ours");
    project.jetstream().delete_stream("THEIRS").await?;
    letter_of(&project, id).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stream_of_somebody_else_over_the_ledger_is_named_and_gone_around_when_it_goes()
-> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let bucket = names::work_bucket(project.id());
    their_stream(&project, "THEIRS", &format!("$KV.{bucket}.>")).await?;
    let item = json!({"description": "d", "capability": "rust"});
    let refused = project
        .request("work.submit", item.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    assert!(refused.message.contains("THEIRS"), "{refused:?}");
    let problems = problems(&fleet)?;
    assert!(
        problems.iter().any(|p| p.contains("THEIRS")),
        "{problems:?}"
    );
    project.jetstream().delete_stream("THEIRS").await?;
    let answer: Value = project.insist("work.submit", item).await?;
    answer.get("id").context("it has no id")?;
    Ok(())
}
