//! Clients that have consumers of their own on the work stream.

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::stream::{RetentionPolicy, Stream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use loom_protocol::agent::AgentStatus;
use loom_protocol::work::WorkStatus;
use loom_protocol::{ProjectId, names};
use loom_testkit::agent::Behaviour;
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::json;

use crate::client::{fleet, is};
use crate::streams::{make_stream, make_work_queue, publish, until_items};

async fn process() -> Result<(TestNats, LoomProcess, TestProject)> {
    let nats = TestNats::start().await?;
    let loom = LoomUp::new(env!("CARGO_BIN_EXE_loom"));
    let loom = loom.on_nats(nats.url()).start().await?;
    let id = ProjectId::new("theirs")?;
    let project = TestProject::of_process(id, &nats.url()).await?;
    Ok((nats, loom, project))
}

/// A consumer of somebody else; no filter means everything.
async fn make_consumer(stream: &Stream, name: &str, filter: String) -> Result<PullConsumer> {
    let config = pull::Config {
        durable_name: Some(name.to_owned()),
        filter_subject: filter,
        ..Default::default()
    };
    Ok(stream.create_consumer(config).await?)
}

/// Takes so many messages, and acknowledges them.
async fn work_off(consumer: &PullConsumer, count: usize) -> Result<()> {
    let mut messages = consumer.messages().await?;
    for _ in 0..count {
        let message = messages.next().await.context("no more messages")?;
        let message = message?;
        message
            .double_ack()
            .await
            .map_err(anyhow::Error::from_boxed)?;
    }
    Ok(())
}

async fn has_consumer_of_ours(project: &TestProject, stream: &Stream) -> Result<()> {
    let look = async || {
        let names: Vec<String> = stream.consumer_names().try_collect().await.ok()?;
        let ours = names.iter().any(|name| name.starts_with("loom-queue-"));
        ours.then_some(())
    };
    project.eventually("Loom has its consumer", look).await
}

fn times_said(loom: &LoomProcess, what: &str) -> usize {
    loom.stderr()
        .lines()
        .filter(|line| line.contains(what))
        .count()
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn where_a_consumer_of_somebody_else_holds_our_subjects_that_is_said_once_and_requests_are_answered()
-> Result<()> {
    let (_nats, loom, project) = process().await?;
    let stream = make_work_queue(&project).await?;
    let filter = names::work_queue(project.id(), "rust");
    let worker = make_consumer(&stream, "worker", filter).await?;
    let before = stream.consumer_info("worker").await?.config;
    let said = r#"published queue are left to consumer "worker" of stream LOOM_WORK_THEIRS"#;

    // Whatever does not come through the stream goes on.
    let requested = project.submit_plain("rust").await?;
    loom.until_it_logs(said).await?;
    let agent = project
        .agent("rust")
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    let item = agent.claim_one().await?;
    assert_eq!(item.work_item.id, requested);
    // Reports are judged apart: nobody else takes them.
    let report = json!({
        "workItemId": requested, "agentGuid": agent.guid(), "attempt": item.lease.attempt,
        "result": {"summary": "published"},
    });
    let subject = names::work_completed(project.id());
    project.publish(subject, &report).await?;
    let done = async || {
        let item = project.work(requested).await.ok()?;
        (item.status == WorkStatus::Completed).then_some(())
    };
    project.eventually("the report is taken over", done).await?;

    // What is published is theirs, and another look finds the same.
    publish(&project, "rust", "theirs").await?;
    publish(&project, "go", "nobody's").await?;
    work_off(&worker, 1).await?;
    for name in ["zzz", "aaa"] {
        // Both hold something; the first by name is told of, and the change is told.
        let filter = names::work_queue(project.id(), name);
        make_consumer(&stream, name, filter).await?;
    }
    loom.until_it_logs(r#"left to consumer "aaa""#).await?;
    for name in ["zzz", "aaa"] {
        stream.delete_consumer(name).await?;
    }
    assert_eq!(project.all_work().await?.len(), 1);
    let now = stream.consumer_info("worker").await?.config;
    assert_eq!(now, before);

    // When it is gone, Loom takes over, and says so.
    stream.delete_consumer("worker").await?;
    loom.until_it_logs("takes none of the published queue any more")
        .await?;
    let of_go = async || {
        let all = project.all_work().await.ok()?;
        all.iter()
            .any(|item| item.description == "nobody's")
            .then_some(all.len())
    };
    let count = project.eventually("taken over", of_go).await?;
    assert_eq!(count, 2, "what their worker took is not ours");
    assert!(times_said(&loom, said) <= 2, "{}", loom.stderr());
    assert_eq!(times_said(&loom, "is interrupted"), 0, "{}", loom.stderr());
    assert_eq!(times_said(&loom, "published reports are left"), 0);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn where_somebody_else_holds_the_reports_a_silent_agent_is_found_and_its_work_goes_back()
-> Result<()> {
    let fleet = fleet().start().await?;
    let project = fleet.project().await?;
    let stream = make_work_queue(&project).await?;
    make_consumer(&stream, "worker", String::new()).await?;
    let id = project.submit_plain("rust").await?;
    let agent = project.agent("rust").spawn().await?;
    assert_eq!(agent.claim_one().await?.work_item.id, id);
    is(&project, agent.guid(), AgentStatus::Offline).await?;
    let back = async || {
        let item = project.work(id).await.ok()?;
        (item.status == WorkStatus::Pending).then_some(())
    };
    project.eventually("the item is back", back).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_new_ownership_does_not_take_over_again_what_a_stream_has_kept() -> Result<()> {
    let mut fleet = crate::client::fleet()
        .settings(|settings| settings.work.retention = std::time::Duration::from_secs(1))
        .start()
        .await?;
    let project = fleet.project().await?;
    let subjects = names::work_stream_subjects(project.id());
    let stream = make_stream(&project, RetentionPolicy::Limits, subjects).await?;
    let agent = project
        .agent("rust")
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    publish(&project, "rust", "done long ago").await?;
    until_items(&project, &["done long ago"]).await?;
    let item = agent.claim_one().await?;
    agent.complete(&item, "done").await?;
    until_items(&project, &[]).await?;

    fleet.crash().await?;
    // Left by an ownership before the last one, which died when it had just made its own.
    make_consumer(&stream, "loom-queue-1", names::queue_filter(project.id())).await?;
    publish(&project, "rust", "meanwhile").await?;
    fleet.start_again().await?;
    until_items(&project, &["meanwhile"]).await?;
    publish(&project, "rust", "new").await?;
    until_items(&project, &["meanwhile", "new"]).await?;
    let names: Vec<String> = stream.consumer_names().try_collect().await?;
    let of_queue = names.iter().filter(|name| name.starts_with("loom-queue-"));
    assert_eq!(of_queue.count(), 1, "{names:?}");
    assert_eq!(stream.get_info().await?.state.messages, 3, "all are kept");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn work_is_not_taken_twice_where_a_consumer_comes_later_on_a_stream_that_keeps_it()
-> Result<()> {
    let (_nats, loom, project) = process().await?;
    let subjects = names::work_stream_subjects(project.id());
    let stream = make_stream(&project, RetentionPolicy::Limits, subjects).await?;
    project.agent("rust").spawn().await?;
    publish(&project, "rust", "1 ours").await?;
    until_items(&project, &["1 ours"]).await?;

    let worker = make_consumer(&stream, "worker", String::new()).await?;
    loom.until_it_logs(r#"published queue are left to consumer "worker""#)
        .await?;
    publish(&project, "rust", "2 theirs").await?;
    work_off(&worker, 2).await?;
    // Another one makes Loom look, and say what it saw.
    make_consumer(&stream, "aaa", String::new()).await?;
    loom.until_it_logs(r#"published queue are left to consumer "aaa""#)
        .await?;
    publish(&project, "rust", "3 nobody's").await?;
    for name in ["worker", "aaa"] {
        stream.delete_consumer(name).await?;
    }
    until_items(&project, &["1 ours", "3 nobody's"]).await?;
    publish(&project, "rust", "4 ours").await?;
    until_items(&project, &["1 ours", "3 nobody's", "4 ours"]).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn published_work_is_taken_over_once_from_a_foreign_stream_of_any_retention_with_fewer_subjects()
-> Result<()> {
    let mut fleet = fleet().start().await?;
    for retention in [
        RetentionPolicy::WorkQueue,
        RetentionPolicy::Limits,
        RetentionPolicy::Interest,
    ] {
        let project = fleet.project().await?;
        let subjects = vec![names::work_queue(project.id(), "rust")];
        let stream = make_stream(&project, retention, subjects).await?;
        let before = stream.get_info().await?.config;
        project.agent("rust").spawn().await?;
        has_consumer_of_ours(&project, &stream).await?;
        publish(&project, "rust", "1").await?;
        until_items(&project, &["1"]).await?;
        fleet.crash().await?;
        publish(&project, "rust", "2").await?;
        fleet.start_again().await?;
        publish(&project, "rust", "3").await?;
        until_items(&project, &["1", "2", "3"]).await?;
        assert_eq!(stream.get_info().await?.config, before);
    }
    Ok(())
}
