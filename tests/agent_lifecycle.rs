//! The group "Agent Lifecycle": one test per line of the integration-test document, as a program outside does it:
//! first one that knows nothing but NATS, then the same over requests and REST.

use anyhow::{Context as _, Result};
use async_nats::jetstream::kv;
use futures_util::TryStreamExt as _;
use loom_coordinator::api_client::ApiError;
use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::event::{AgentEventKind, Event};
use loom_protocol::rest::AgentsPage;
use loom_protocol::verbs::{Role, Subjects, VERBS};
use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, Timestamp, WorkId, names};
use loom_testkit::fleet::{Fleet, Signals, TestProject};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn register_an_agent_in_kv_store() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;

    // Nobody has spoken to the coordinator; the bucket brings the project to life.
    let bucket = make_bucket(&project).await?;
    let guid = AgentGuid::generate();
    let entry = json!({
        "guid": guid, "handle": "bare", "agentType": "claude-code", "capabilities": ["rust", "node.js"],
        "boundaries": ["corporate"], "scope": "team", "status": "online",
    });
    put(&bucket, guid, &entry).await?;
    signals.agent(AgentEventKind::Registered, guid).await?;

    let agent = seen(&project, guid).await?;
    assert_eq!(
        (agent.handle.as_str(), agent.status),
        ("bare", AgentStatus::Online)
    );
    assert_eq!(agent.boundaries, ["corporate"]);
    assert_eq!(agent.visibility.as_deref(), Some("team"));
    assert_eq!(agent.project_id, project.id().as_str());
    assert_eq!(agent.max_concurrent_tasks, 1);
    let by_rest: Agent = project
        .api()?
        .get(&["agents", &guid.to_string()], &[])
        .await?;
    assert_eq!(by_rest, agent);

    // The entry is the client's, and stays as it wrote it.
    assert_eq!(read(&bucket, guid).await, Some(entry));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn register_an_agent_by_request() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(3).spawn().await?;

    // Answered when it is durable: the entry is there.
    let bucket = project.agents_bucket().await?;
    let entry = read(&bucket, agent.guid()).await.context("no entry")?;
    assert_eq!(entry["guid"], json!(agent.guid()));
    assert_eq!(entry["maxConcurrentTasks"], 3);
    assert_eq!(entry["status"], "online");
    let terms = agent.registered();
    assert!(terms.leases.is_empty());
    assert!(terms.stale_after_ms >= 3 * terms.agent.heartbeat_interval_ms.unwrap_or_default());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_is_heard_of_by_the_verbs_that_the_table_calls_a_sign_of_life() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    // Enough for each verb to know its sender; most refuse it all the same, for the item that is not there.
    let body = json!({
        "guid": guid, "handle": "h", "agentType": "t", "capabilities": ["rust"],
        "id": WorkId::generate(), "attempt": 1, "error": "none",
    });
    project.request("agents.register", body.clone()).await?;
    let heard = async || anyhow::Ok(seen(&project, guid).await?.last_heartbeat);
    for row in VERBS.iter().filter(|row| row.sender.is_sign_of_life()) {
        let before = heard().await?;
        let later = async || {
            let _perhaps_refused = project.request(row.name, body.clone()).await;
            (heard().await.ok()? > before).then_some(())
        };
        project.eventually(row.name, later).await?;
    }
    let before = heard().await?;
    let over_nats = VERBS.iter().filter(|row| row.subjects == Subjects::Project);
    for row in over_nats.filter(|row| row.role == Role::Read || row.role == Role::Submit) {
        let _perhaps_refused = project.request(row.name, body.clone()).await;
        assert_eq!(heard().await?, before, "{}", row.name);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_bare_entry_needs_guid_and_capabilities_only() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let bucket = make_bucket(&project).await?;
    let (bare, described) = (AgentGuid::generate(), AgentGuid::generate());
    put(
        &bucket,
        bare,
        &json!({"guid": bare, "capabilities": ["rust"]}),
    )
    .await?;
    let metadata = json!({"agentType": "codex", "boundaries": ["personal"]});
    let entry = json!({"guid": described, "capabilities": ["rust"], "metadata": metadata});
    put(&bucket, described, &entry).await?;

    signals.agent(AgentEventKind::Registered, bare).await?;
    signals.agent(AgentEventKind::Registered, described).await?;
    assert_eq!(seen(&project, bare).await?.boundaries, ["default"]);
    let described = seen(&project, described).await?;
    assert_eq!(described.agent_type, "codex");
    assert_eq!(described.boundaries, ["personal"]);

    // It can work: a claim is all that it needs.
    let id = project.submit_plain("rust").await?;
    let items = project.claim(bare, json!({})).await?;
    assert_eq!(items[0].work_item.id, id);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn update_agent_status_online_busy_offline() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let bucket = make_bucket(&project).await?;
    let guid = AgentGuid::generate();
    let entry = |status| json!({"guid": guid, "capabilities": ["rust"], "status": status});

    put(&bucket, guid, &entry("online")).await?;
    signals.agent(AgentEventKind::Registered, guid).await?;
    assert_eq!(seen(&project, guid).await?.status, AgentStatus::Online);
    for status in [AgentStatus::Busy, AgentStatus::Offline] {
        put(&bucket, guid, &entry(status.as_str())).await?;
        told_status(&mut signals, guid, status).await?;
        assert_eq!(seen(&project, guid).await?.status, status);
    }

    // Any request that names it is a sign of life.
    project.claim(guid, json!({})).await?;
    assert_eq!(seen(&project, guid).await?.status, AgentStatus::Online);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn update_agent_status_by_heartbeat() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    for (said, then) in [
        ("busy", AgentStatus::Busy),
        // The coordinator decides about these.
        ("offline", AgentStatus::Busy),
        ("quarantined", AgentStatus::Busy),
        ("online", AgentStatus::Online),
        ("draining", AgentStatus::Draining),
    ] {
        agent
            .heartbeat(json!({"status": said, "currentTaskCount": 2}))
            .await?;
        let seen = agent.seen().await?;
        assert_eq!(
            (seen.status, seen.current_task_count),
            (then, 2),
            "after {said}"
        );
    }

    // One that drains takes nothing more.
    project.submit_plain("rust").await?;
    assert!(agent.claim(json!({})).await?.is_empty());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn deregister_an_agent() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;

    // By removing its entry.
    let bucket = make_bucket(&project).await?;
    let guid = AgentGuid::generate();
    put(
        &bucket,
        guid,
        &json!({"guid": guid, "capabilities": ["rust"]}),
    )
    .await?;
    signals.agent(AgentEventKind::Registered, guid).await?;
    bucket.delete(guid.to_string()).await?;
    signals.agent(AgentEventKind::Shutdown, guid).await?;
    assert_eq!(
        seen(&project, guid).await.unwrap_err().code,
        ErrorCode::NotFound
    );

    // By request: its leases go back at once.
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let lease = agent.claim_one().await?.lease;
    let guid = agent.guid();
    let answer = agent.deregister().await?;
    assert_eq!(
        answer["released"],
        json!([{"id": id, "attempt": lease.attempt}])
    );
    let item = project.work(id).await?;
    assert_eq!(
        (item.status, item.pending_reason),
        (WorkStatus::Pending, Some(Reason::Released))
    );
    assert_eq!(read(&bucket, guid).await, None);
    let by_rest = project
        .api()?
        .get::<Agent>(&["agents", &guid.to_string()], &[])
        .await;
    assert_eq!(by_rest.unwrap_err().code(), Some(ErrorCode::NotFound));
    let refused = project.claim(guid, json!({})).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotRegistered);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn discover_agents_by_scanning_kv() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let bare = AgentGuid::generate();
    let bucket = make_bucket(&project).await?;
    put(
        &bucket,
        bare,
        &json!({"guid": bare, "capabilities": ["rust"]}),
    )
    .await?;
    signals.agent(AgentEventKind::Registered, bare).await?;
    let mut expected = vec![bare];
    let mut agents = Vec::new();
    for _ in 0..3 {
        let agent = project.agent("rust").spawn().await?;
        expected.push(agent.guid());
        agents.push(agent);
    }
    let gone = agents.swap_remove(0);
    expected.retain(|guid| *guid != gone.guid());
    gone.deregister().await?;
    expected.sort_unstable();

    let mut scanned = Vec::new();
    let mut keys = bucket.keys().await?;
    while let Some(key) = keys.try_next().await? {
        let guid: AgentGuid = key.parse()?;
        let agent = seen(&project, guid).await?;
        scanned.push(agent.guid);
    }
    scanned.sort_unstable();
    assert_eq!(scanned, expected);
    assert_eq!(listed(&project, json!({})).await?, expected);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn filter_agents_by_capability() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let both = project.agent("rust").capability("c++").spawn().await?;
    let rust = project.agent("rust").agent_type("codex").spawn().await?;
    let apart = project
        .agent("c++")
        .boundaries(&["corporate"])
        .spawn()
        .await?;

    let sorted = |mut guids: Vec<AgentGuid>| {
        guids.sort_unstable();
        guids
    };
    for (filter, expected) in [
        (
            json!({"capability": "rust"}),
            vec![both.guid(), rust.guid()],
        ),
        (
            json!({"capability": "c++"}),
            vec![both.guid(), apart.guid()],
        ),
        (
            json!({"capability": "c++", "boundary": "corporate"}),
            vec![apart.guid()],
        ),
        (
            json!({"capability": "rust", "agentType": "codex"}),
            vec![rust.guid()],
        ),
        (json!({"capability": "go"}), vec![]),
    ] {
        assert_eq!(
            listed(&project, filter.clone()).await?,
            sorted(expected),
            "{filter}"
        );
    }

    let query = [("capability", "c++".to_owned())];
    let page: AgentsPage = project.api()?.get(&["agents"], &query).await?;
    let guids = page.agents.iter().map(|agent| agent.guid).collect();
    assert_eq!(sorted(guids), sorted(vec![both.guid(), apart.guid()]));
    assert_eq!(page.page.count, 2);
    let query = [("status", "asleep".to_owned())];
    let refused = project.api()?.get::<AgentsPage>(&["agents"], &query).await;
    assert!(matches!(refused, Err(ApiError::Refused(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn heartbeat_timestamp_updates() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let guid = agent.guid();
    let bucket = project.agents_bucket().await?;
    let beat = names::heartbeat(project.id(), guid);

    let mut last = agent.seen().await?.last_heartbeat;
    last = until_later(&project, guid, last, async || {
        agent.heartbeat(json!({})).await?;
        Ok(())
    })
    .await?;
    last = until_later(&project, guid, last, async || {
        let body = json!({"guid": guid}).to_string();
        Ok(project.client().publish(beat.clone(), body.into()).await?)
    })
    .await?;
    last = until_later(&project, guid, last, async || {
        let entry = json!({"guid": guid, "capabilities": ["rust"]});
        put(&bucket, guid, &entry).await
    })
    .await?;

    // A put is a heartbeat, and its time is merged back into the entry.
    project
        .eventually("the entry has the time of the heartbeat", async || {
            let entry = read(&bucket, guid).await?;
            let written: Timestamp = entry.get("lastHeartbeat")?.as_str()?.parse().ok()?;
            (written >= last).then_some(())
        })
        .await
}

/// The agents bucket as a program makes it that knows nothing but NATS.
async fn make_bucket(project: &TestProject) -> Result<kv::Store> {
    let config = kv::Config {
        bucket: names::agents_bucket(project.id()),
        ..kv::Config::default()
    };
    Ok(project.jetstream().create_key_value(config).await?)
}

async fn put(bucket: &kv::Store, guid: AgentGuid, entry: &Value) -> Result<()> {
    bucket
        .put(guid.to_string(), entry.to_string().into())
        .await?;
    Ok(())
}

async fn read(bucket: &kv::Store, guid: AgentGuid) -> Option<Value> {
    let value = bucket.get(guid.to_string()).await.ok()??;
    serde_json::from_slice(&value).ok()
}

async fn seen(project: &TestProject, guid: AgentGuid) -> Result<Agent, loom_protocol::WireError> {
    project.call("agents.get", &json!({ "guid": guid })).await
}

/// The guids that `agents.list` gives, in order.
async fn listed(project: &TestProject, filter: Value) -> Result<Vec<AgentGuid>> {
    let agents: Vec<Agent> = project.call("agents.list", &filter).await?;
    let mut guids: Vec<_> = agents.iter().map(|agent| agent.guid).collect();
    guids.sort_unstable();
    Ok(guids)
}

/// Waits until an agent's new status is told.
async fn told_status(signals: &mut Signals, guid: AgentGuid, status: AgentStatus) -> Result<()> {
    let what = format!("agent:updated of {guid} to {status}");
    let is_it = |event: &Event| match event {
        Event::Agent(event) if event.agent.guid == guid && event.new_status == Some(status) => {
            Some(())
        }
        _ => None,
    };
    signals.find(&what, is_it).await
}

/// Gives signs of life until the coordinator shows one that is later than `before`.
async fn until_later(
    project: &TestProject,
    guid: AgentGuid,
    before: Timestamp,
    mut give: impl AsyncFnMut() -> Result<()>,
) -> Result<Timestamp> {
    project
        .eventually("a later lastHeartbeat", async || {
            give().await.ok()?;
            let shown = seen(project, guid).await.ok()?.last_heartbeat;
            (shown > before).then_some(shown)
        })
        .await
}
