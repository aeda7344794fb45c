//! What the tests of this group do again and again.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use loom_actors::domain::work::{WorkRecord, decode, encode};
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::work::WorkStatus;
use loom_protocol::{WireError, WorkId, names};
use loom_testkit::agent::FakeAgent;
use loom_testkit::fleet::TestProject;
use serde_json::{Value, json};

/// Submits an item that one failure uses up, and lets the agent fail it.
pub async fn fail_one(project: &TestProject, agent: &FakeAgent) -> Result<WorkId> {
    fail(project, agent, json!({})).await
}

/// As [`fail_one`], with other fields of the item.
pub async fn fail(project: &TestProject, agent: &FakeAgent, more: Value) -> Result<WorkId> {
    let seen = agent.seen().await?;
    let mut item = json!({
        "description": "bound to fail", "capability": seen.capabilities[0], "maxAttempts": 1,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        item[name] = value.clone();
    }
    let id = project.submit(item).await?.id;
    let claimed = agent.claim_one().await?;
    assert_eq!(claimed.work_item.id, id);
    agent.fail(&claimed, "the build is broken", true).await?;
    Ok(id)
}

/// `dlq.get`
pub async fn get(project: &TestProject, id: WorkId) -> Result<DeadLetter, WireError> {
    project.call("dlq.get", &json!({ "id": id })).await
}

/// Waits for an item's letter, and until the ledger has noted it.
pub async fn letter_of(project: &TestProject, id: WorkId) -> Result<DeadLetter> {
    project
        .eventually(&format!("a dead letter of {id}"), async || {
            let noted = record(project, id).await.ok()?.dead_letter;
            let letter = get(project, id).await.ok()?;
            noted.map(|_| letter)
        })
        .await
}

/// Waits until there is no letter of an item.
pub async fn no_letter_of(project: &TestProject, id: WorkId) -> Result<()> {
    project
        .eventually(&format!("no dead letter of {id}"), async || {
            get(project, id).await.err().map(drop)
        })
        .await
}

/// How many letters the stream holds, and how many were ever published to it.
pub async fn stored(project: &TestProject) -> Result<(u64, u64)> {
    let stream = names::dead_letter_stream(project.id());
    let stream = project.jetstream().get_stream(stream).await?;
    let state = &stream.cached_info().state;
    Ok((state.messages, state.last_sequence))
}

/// An item's record, as the bucket holds it.
pub async fn record(project: &TestProject, id: WorkId) -> Result<WorkRecord> {
    let bucket = names::work_bucket(project.id());
    let store = project.jetstream().get_key_value(bucket).await?;
    let bytes = store.get(id.to_string()).await?.context("no record")?;
    Ok(decode(&bytes)?)
}

/// Puts a record into the bucket as it was at some moment of a crash.
pub async fn put_record(project: &TestProject, record: &WorkRecord) -> Result<()> {
    let subject = format!("$KV.{}.{}", names::work_bucket(project.id()), record.id);
    let bytes: Bytes = encode(record)?;
    let stored = project.jetstream().publish(subject, bytes).await?;
    stored.await?;
    Ok(())
}

/// Removes an item's record, as its TTL does.
pub async fn expire_record(project: &TestProject, id: WorkId) -> Result<()> {
    let stream = format!("KV_{}", names::work_bucket(project.id()));
    let stream = project.jetstream().get_stream(stream).await?;
    let subject = format!("$KV.{}.{id}", names::work_bucket(project.id()));
    let purged = stream.purge().filter(subject).await?;
    assert_eq!(purged.purged, 1);
    Ok(())
}

/// Every failed item has its letter and every letter its failed item; gives how many there are.
pub async fn one_letter_each(project: &TestProject) -> Result<usize> {
    let all = project.all_work().await?;
    let failed: Vec<_> = all
        .iter()
        .filter(|item| item.status == WorkStatus::Failed)
        .collect();
    for item in &failed {
        letter_of(project, item.id).await?;
    }
    let (messages, _) = stored(project).await?;
    assert_eq!(messages, failed.len() as u64, "a letter without its item");
    Ok(failed.len())
}
