//! Entries as they come.

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use loom_protocol::agent::{AgentStatus, UnreadableEntry};
use loom_protocol::rest::UnreadablePage;
use loom_protocol::{AgentGuid, ErrorCode};
use loom_testkit::fleet::Fleet;
use serde_json::{Value, json};

use crate::client::{Client, fleet, house, is, is_gone, make_bucket, seen, unreadable};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_entry_brings_its_project_to_life_and_its_agent_works() -> Result<()> {
    let fleet = fleet().start().await?;
    let (one, other) = (fleet.project().await?, fleet.project().await?);
    let bucket = make_bucket(&one).await?;
    for project in [&one, &other] {
        let mut client = Client::new(&bucket, project.id());
        client.put().await?;
        let agent = is(project, client.guid, AgentStatus::Online).await?;
        assert_eq!(agent.handle, "old client");
        assert_eq!(agent.boundaries, ["work"]);
        assert_eq!(agent.project_id, project.id().to_string());
        assert_eq!(agent.heartbeat_interval_ms, None);
        let item = json!({"description": "d", "capability": "rust", "boundary": "work"});
        let id = project.submit(item).await?.id;
        let items = project.claim(client.guid, json!({})).await?;
        assert_eq!(items[0].work_item.id, id);
        client.assert_untouched().await?;
    }
    let listed: Vec<Value> = one.call("agents.list", &json!({})).await?;
    assert_eq!(listed.len(), 1, "only its own");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_always_has_the_fields_that_such_clients_read() -> Result<()> {
    let (_fleet, project, bucket) = house(fleet()).await?;
    let guid = AgentGuid::generate();
    let entry = json!({"projectId": project.id()}).to_string();
    bucket.put(guid.to_string(), entry.into()).await?;
    is(&project, guid, AgentStatus::Online).await?;
    let by_request: Value = project.call("agents.get", &json!({"guid": guid})).await?;
    let by_rest: Value = project
        .api()?
        .get(&["agents", &guid.to_string()], &[])
        .await?;
    for agent in [by_request, by_rest] {
        assert_eq!(agent["hostname"], "");
        assert_eq!(agent["username"], "");
        assert_eq!(agent["visibility"], "project-only");
        assert_eq!(agent["spindownAfterIdleMs"], 0);
        assert_eq!(agent["capabilities"], json!([]));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_cannot_be_used_is_listed_with_the_reason_and_left_as_it_is() -> Result<()> {
    let (_fleet, project, bucket) = house(fleet()).await?;
    let key = || AgentGuid::generate().to_string();
    let of = project.id();
    let bad = [
        (key(), json!({"handle": "a"}).to_string(), "projectId"),
        (key(), json!({"projectId": "a b"}).to_string(), "a b"),
        (key(), "{".to_owned(), "JSON"),
        (
            "not-a-guid".to_owned(),
            json!({"projectId": of}).to_string(),
            "UUID",
        ),
        (
            key(),
            json!({"projectId": of, "capabilities": ["a\tb"]}).to_string(),
            "control",
        ),
        (
            key(),
            json!({"projectId": of, "maxConcurrentTasks": "few"}).to_string(),
            "whole number",
        ),
    ];
    for (key, entry, _) in &bad {
        bucket.put(key, entry.clone().into()).await?;
    }
    let mut good = Client::new(&bucket, of);
    good.put().await?;
    is(&project, good.guid, AgentStatus::Online).await?;
    // Those of the project by REST, those that name none with the default one, by request.
    let own = async || {
        let api = project.api().ok()?;
        let query = [("unreadable", "true".to_owned())];
        let page: UnreadablePage = api.get(&["agents"], &query).await.ok()?;
        (page.total == 3).then_some(page.unreadable)
    };
    let own = project.eventually("the project's are listed", own).await?;
    let default = async || {
        let payload = json!({"unreadable": true}).to_string().into();
        let request = project
            .client()
            .request("coord.default.agents.list", payload);
        let answer = request.await.ok()?;
        let listed: Vec<UnreadableEntry> = serde_json::from_slice(&answer.payload).ok()?;
        (listed.len() == 3).then_some(listed)
    };
    let default = project.eventually("the others are listed", default).await?;
    for (n, (key, entry, reason)) in bad.iter().enumerate() {
        let listed = if n < 3 { &default } else { &own };
        let listed = listed.iter().find(|entry| entry.key == *key);
        let listed = listed.with_context(|| format!("{key} is not listed"))?;
        assert!(listed.reason.contains(reason), "{listed:?}");
        assert_eq!(
            bucket.get(key).await?.context("an entry")?,
            entry.as_bytes()
        );
    }

    // Mended it is an agent; deleted it is nothing.
    let mended = json!({"projectId": of}).to_string();
    bucket.put(&bad[4].0, mended.into()).await?;
    is(&project, bad[4].0.parse()?, AgentStatus::Online).await?;
    for (key, ..) in [&bad[3], &bad[5]] {
        bucket.delete(key).await?;
    }
    project
        .eventually("nothing of the project is unreadable", async || {
            unreadable(&project).await.ok()?.is_empty().then_some(())
        })
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn two_spellings_of_one_id_are_one_agent_and_the_later_one_counts() -> Result<()> {
    let (mut fleet, project, bucket) = house(fleet()).await?;
    let guid = AgentGuid::generate();
    let entry = |handle: &str| json!({"projectId": project.id(), "handle": handle}).to_string();
    let (upper, digits) = (
        guid.to_string().to_uppercase(),
        guid.to_string().replace('-', ""),
    );
    let named = async |handle: &str| {
        let look = async || {
            let agent = seen(&project, guid).await.ok()?;
            (agent.handle == handle).then_some(())
        };
        project.eventually(handle, look).await
    };
    bucket.put(&upper, entry("upper").into()).await?;
    named("upper").await?;
    bucket.put(&digits, entry("digits").into()).await?;
    named("digits").await?;
    let superseded = unreadable(&project).await?;
    assert_eq!(superseded.len(), 1, "{superseded:?}");
    assert_eq!(superseded[0].key, upper);
    assert!(superseded[0].reason.contains(&digits), "{superseded:?}");
    fleet.crash().await?;
    fleet.start_again().await?;
    named("digits").await?;
    let listed: Vec<Value> = project.call("agents.list", &json!({})).await?;
    assert_eq!(listed.len(), 1);

    bucket.delete(&digits).await?;
    named("upper").await?;
    bucket.delete(&upper).await?;
    is_gone(&project, guid).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_moves_to_another_project_leaves_its_former_one() -> Result<()> {
    let fleet = fleet().start().await?;
    let (one, other) = (fleet.project().await?, fleet.project().await?);
    let bucket = make_bucket(&one).await?;
    let client = Client::online(&bucket, &one).await?;
    let mut moved = Client::new(&bucket, other.id());
    (moved.guid, moved.key) = (client.guid, client.key);
    moved.put().await?;
    is(&other, moved.guid, AgentStatus::Online).await?;
    is_gone(&one, moved.guid).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn five_thousand_entries_are_read_at_the_start_and_in_a_running_coordinator() -> Result<()> {
    const EACH: usize = 2_500;
    let mut fleet = Fleet::builder().start().await?;
    let projects = [fleet.project().await?, fleet.project().await?];
    let bucket = make_bucket(&projects[0]).await?;
    for project in &projects {
        let mut clients: Vec<_> = (0..EACH)
            .map(|_| Client::new(&bucket, project.id()))
            .collect();
        for some in clients.chunks_mut(250) {
            try_join_all(some.iter_mut().map(Client::put)).await?;
        }
    }
    let all_there = async |fleet: &Fleet| {
        for project in &projects {
            let count = async || {
                let service = fleet.service().ok()?;
                let found = service.projects().get(project.id())?;
                (found.agents.totals().by_status.get("online") == Some(&EACH)).then_some(())
            };
            project.eventually("all agents are online", count).await?;
        }
        anyhow::Ok(())
    };
    all_there(&fleet).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    all_there(&fleet).await?;
    fleet.nats().kill().await?;
    fleet.nats().restart().await?;
    all_there(&fleet).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_bucket_is_not_read_where_the_setting_says_so() -> Result<()> {
    let builder = fleet().settings(|settings| settings.compat.agent_registry = false);
    let (_fleet, project, bucket) = house(builder).await?;
    let mut client = Client::new(&bucket, project.id());
    client.put().await?;
    // A dead one is found out in spite of it: no barrier waits for what nobody reads.
    let silent = project.agent("rust").spawn().await?;
    is(&project, silent.guid(), AgentStatus::Offline).await?;
    let error = seen(&project, client.guid).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    Ok(())
}
