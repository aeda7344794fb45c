//! Clients that make the work stream of their project by themselves.

use std::time::Duration;

use anyhow::Result;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{self, RetentionPolicy, Stream};
use loom_protocol::{ProjectId, names};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::json;
use tokio::time::Instant;

/// How long a submission waits at least before it is a sign of life.
const NOBODY_CAME: Duration = Duration::from_secs(10);

/// A work stream as a client makes it.
pub async fn make_stream(
    project: &TestProject,
    retention: RetentionPolicy,
    subjects: Vec<String>,
) -> Result<Stream> {
    let config = stream::Config {
        name: names::work_stream(project.id()),
        subjects,
        retention,
        ..Default::default()
    };
    Ok(project.jetstream().create_stream(config).await?)
}

pub async fn make_work_queue(project: &TestProject) -> Result<Stream> {
    let subjects = names::work_stream_subjects(project.id());
    make_stream(project, RetentionPolicy::WorkQueue, subjects).await
}

/// Publishes a submission, as such a client does.
pub async fn publish(project: &TestProject, capability: &str, description: &str) -> Result<u64> {
    let subject = names::work_queue(project.id(), capability);
    let item = json!({ "description": description });
    project.publish(subject, &item).await
}

/// What is to be done in the project, by description.
pub async fn descriptions(project: &TestProject) -> Vec<String> {
    let all = project.all_work().await.unwrap_or_default();
    let mut all: Vec<_> = all.into_iter().map(|item| item.description).collect();
    all.sort();
    all
}

/// Waits until these are the items of the project.
pub async fn until_items(project: &TestProject, expected: &[&str]) -> Result<()> {
    let what = format!("the items are {expected:?}");
    let look = async || (descriptions(project).await == expected).then_some(());
    project.eventually(&what, look).await
}

async fn named(fleet: &Fleet, id: &str) -> Result<TestProject> {
    TestProject::of_process(ProjectId::new(id)?, &fleet.nats().url()).await
}

fn is_awake(fleet: &Fleet, project: &TestProject) -> Result<bool> {
    Ok(fleet.service()?.projects().get(project.id()).is_some())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_foreign_stream_is_a_sign_of_life_when_a_submission_has_waited_ten_seconds_and_it_has_no_consumer()
-> Result<()> {
    let mut fleet = Fleet::own().await?;
    // Somebody works on this one.
    let served = named(&fleet, "served").await?;
    let stream = make_work_queue(&served).await?;
    let worker = pull::Config {
        durable_name: Some("worker".into()),
        ..Default::default()
    };
    stream.create_consumer(worker).await?;
    publish(&served, "rust", "of their worker").await?;
    // Nothing lies on this one but a report…
    let reported = named(&fleet, "reported").await?;
    make_work_queue(&reported).await?;
    let report = json!({"workItemId": uuid::Uuid::new_v4(), "agentGuid": uuid::Uuid::new_v4()});
    let subject = names::work_completed(reported.id());
    reported.publish(subject, &report).await?;
    // …and on this one the work of a project that has another stream.
    let strange = named(&fleet, "strange").await?;
    let elsewhere = named(&fleet, "elsewhere").await?;
    let subjects = names::work_stream_subjects(elsewhere.id());
    make_stream(&strange, RetentionPolicy::Limits, subjects).await?;
    publish(&elsewhere, "rust", "of nobody").await?;

    // The stream's name has lost how the project is written.
    let waiting = named(&fleet, "My_own-App").await?;
    make_work_queue(&waiting).await?;
    let before = Instant::now();
    publish(&waiting, "rust", "waits").await?;
    until_items(&waiting, &["waits"]).await?;
    let waited = before.elapsed();
    assert!(waited >= NOBODY_CAME, "taken over after {waited:?}");

    for project in [&served, &reported, &strange, &elsewhere] {
        assert!(!is_awake(&fleet, project)?, "{} is awake", project.id());
    }
    assert_eq!(stream.get_info().await?.state.messages, 1);

    // Its worker is gone for good.
    stream.delete_consumer("worker").await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    until_items(&served, &["of their worker"]).await?;
    assert!(!is_awake(&fleet, &strange)?);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_work_stream_that_says_whose_it_is_wakes_its_project() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = named(&fleet, "Mine_and-yours").await?;
    let lying = named(&fleet, "lying").await?;
    let config = |name: &TestProject| stream::Config {
        name: names::work_stream(name.id()),
        subjects: names::work_stream_subjects(name.id()),
        retention: RetentionPolicy::WorkQueue,
        metadata: [("loom.project".to_owned(), project.id().to_string())].into(),
        ..Default::default()
    };
    project.jetstream().create_stream(config(&lying)).await?;
    project.jetstream().create_stream(config(&project)).await?;
    let look = async || is_awake(&fleet, &project).ok()?.then_some(());
    project.eventually("the project is awake", look).await?;
    assert!(!is_awake(&fleet, &lying)?);
    Ok(())
}
