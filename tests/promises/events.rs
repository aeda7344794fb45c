//! An event is told only when reads see what it tells: whoever looks at once upon an event finds it so.

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::kv;
use loom_actors::events::Heard;
use loom_protocol::agent::{Agent, AgentStatus};
use loom_protocol::event::{AgentEventKind, Event, WorkEvent, WorkEventKind};
use loom_protocol::work::{QueueInfo, WorkItem, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, VerbName, WorkId, names};
use loom_testkit::fleet::{Fleet, PATIENCE, Role, Signals, TestProject, everybody};
use serde_json::{Value, json};
use tokio::join;
use tokio::time::timeout;

/// How many projects are brought to life in each way.
const FRESH: usize = 10;
const ROUNDS: usize = 4;

async fn agent(project: &TestProject, guid: AgentGuid) -> Result<Agent> {
    let found = project.call("agents.get", &json!({ "guid": guid })).await;
    found.context("an agent of which an event was told")
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_brings_a_project_to_life_by_its_entry_is_found_when_its_event_is_told()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    for _ in 0..FRESH {
        let project = fleet.project().await?;
        let mut signals = project.signals().await?;
        let bucket = kv::Config {
            bucket: names::agents_bucket(project.id()),
            ..kv::Config::default()
        };
        let bucket = project.jetstream().create_key_value(bucket).await?;
        let guid = AgentGuid::generate();
        let entry = json!({ "guid": guid, "capabilities": ["rust"] });
        bucket
            .put(guid.to_string(), entry.to_string().into())
            .await?;
        signals.agent(AgentEventKind::Registered, guid).await?;
        agent(&project, guid).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_brings_a_project_to_life_by_request_is_found_when_its_event_is_told() -> Result<()> {
    let fleet = Fleet::shared().await?;
    for _ in 0..FRESH {
        let project = fleet.project().await?;
        let mut signals = project.signals().await?;
        let guid = AgentGuid::generate();
        let registering = register(&project, guid);
        let looking = async {
            signals.agent(AgentEventKind::Registered, guid).await?;
            agent(&project, guid).await
        };
        let (registered, found) = join!(registering, looking);
        registered?;
        found?;

        let project = fleet.project().await?;
        let mut signals = project.signals().await?;
        let id = WorkId::generate();
        let submitting = submit(&project, id);
        let looking = told(&project, &mut signals, WorkEventKind::Submitted, id);
        let (submitted, found) = join!(submitting, looking);
        submitted?;
        found?;
    }
    Ok(())
}

/// What an actor wrote and did not live to tell is told by nobody: whoever listens hears that he has to look.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_listens_is_told_when_an_actor_that_tells_events_began_anew() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let first = project.submit_plain("rust").await?;
    let caller = everybody(VerbName::Events, Some(project.id()))?;
    let mut following = fleet.service()?.follow(&caller)?;
    for role in [Role::WorkLedger, Role::AgentRegistry] {
        project.kill(role)?;
        let heard = timeout(PATIENCE, following.next()).await?;
        ensure!(matches!(heard, Some(Heard::Gap)), "{role:?}: {heard:?}");
    }
    let second = project.insist(
        "work.submit",
        json!({ "description": "d", "capability": "rust" }),
    );
    second.await?;
    let heard = timeout(PATIENCE, following.next()).await?;
    let Some(Heard::Event(event)) = heard else {
        bail!("after the gaps: {heard:?}");
    };
    ensure!(matches!(&*event, Event::Work(work) if work.work_id != first));
    Ok(())
}

async fn register(project: &TestProject, guid: AgentGuid) -> Result<Value> {
    let request = json!({
        "guid": guid, "handle": "anna", "agentType": "claude-code", "capabilities": ["rust"],
        "maxConcurrentTasks": 2,
    });
    Ok(project.request("agents.register", request).await?)
}

async fn submit(project: &TestProject, id: WorkId) -> Result<Value> {
    let item = json!({ "id": id, "description": "d", "capability": "rust", "maxAttempts": 2 });
    Ok(project.request("work.submit", item).await?)
}

/// Waits for the next event of this kind about an item, and looks at the item at once: it is as told.
async fn told(
    project: &TestProject,
    signals: &mut Signals,
    kind: WorkEventKind,
    id: WorkId,
) -> Result<(WorkEvent, WorkItem)> {
    let already = signals.told().len();
    let mut passed = 0;
    let what = format!("another {} of {id}", kind.as_str());
    let event = signals
        .find(&what, |event| {
            passed += 1;
            match event {
                Event::Work(event)
                    if passed > already && event.kind == kind && event.work_id == id =>
                {
                    Some((**event).clone())
                }
                _ => None,
            }
        })
        .await?;
    let item = project.work(id).await.with_context(|| what.clone())?;
    ensure!(
        item.revision >= event.revision,
        "{what} is told with revision {}, and read is {}",
        event.revision,
        item.revision
    );
    if item.revision == event.revision {
        assert_eq!(
            (item.status, item.attempt, item.assigned_to),
            (event.status, event.attempt, event.assigned_to),
            "{what}"
        );
    }
    Ok((event, item))
}

/// How many items an agent has, as it is read now.
async fn tasks_of(project: &TestProject, guid: AgentGuid) -> Result<u32> {
    Ok(agent(project, guid).await?.current_task_count)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn every_event_of_an_item_is_told_when_reads_see_what_it_tells() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let guid = AgentGuid::generate();
    register(&project, guid).await?;
    for _ in 0..ROUNDS {
        let id = WorkId::generate();
        let looking = async {
            told(&project, &mut signals, WorkEventKind::Submitted, id).await?;
            let queue: QueueInfo = project.call("queue.info", &json!({})).await?;
            assert_eq!(queue.pending.get("rust"), Some(&1));
            anyhow::Ok(())
        };
        let (asked, looked) = join!(submit(&project, id), looking);
        asked?;
        looked?;

        let claim = json!({ "guid": guid });
        let looking = async {
            told(&project, &mut signals, WorkEventKind::Assigned, id).await?;
            assert_eq!(tasks_of(&project, guid).await?, 1);
            anyhow::Ok(())
        };
        let (asked, looked) = join!(project.request("work.claim", claim), looking);
        looked?;
        let attempt = &asked?["items"][0]["lease"]["attempt"];
        let report = json!({ "id": id, "guid": guid, "attempt": attempt });

        let asking = project.request("work.start", report.clone());
        let looking = told(&project, &mut signals, WorkEventKind::Started, id);
        let (asked, looked) = join!(asking, looking);
        asked?;
        looked?;

        let mut progress = report.clone();
        progress["progress"] = json!(40);
        let asking = project.request("work.progress", progress);
        let looking = told(&project, &mut signals, WorkEventKind::Progress, id);
        let (asked, looked) = join!(asking, looking);
        asked?;
        assert_eq!(looked?.1.progress, Some(40.0));

        let mut failure = report.clone();
        failure["error"] = json!("broken");
        failure["retryAfterMs"] = json!(0);
        let looking = async {
            let (_, item) = told(&project, &mut signals, WorkEventKind::Retried, id).await?;
            assert_eq!(item.errors.len(), 1);
            assert_eq!(tasks_of(&project, guid).await?, 0);
            anyhow::Ok(())
        };
        let (asked, looked) = join!(project.request("work.fail", failure), looking);
        asked?;
        looked?;

        let claim = json!({ "guid": guid, "start": true, "waitMs": 5_000 });
        let looking = told(&project, &mut signals, WorkEventKind::Started, id);
        let (asked, looked) = join!(project.request("work.claim", claim), looking);
        looked?;
        let mut end = report;
        end["attempt"] = asked?["items"][0]["lease"]["attempt"].clone();
        end["result"] = json!("done");
        let looking = async {
            let (_, item) = told(&project, &mut signals, WorkEventKind::Completed, id).await?;
            assert!(item.result.is_some());
            assert_eq!(tasks_of(&project, guid).await?, 0);
            anyhow::Ok(())
        };
        let (asked, looked) = join!(project.request("work.complete", end), looking);
        asked?;
        looked?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_end_of_an_item_is_told_when_reads_see_it() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    for _ in 0..ROUNDS {
        // A new one each time: one that fails several in a row is taken out.
        let guid = AgentGuid::generate();
        register(&project, guid).await?;
        let id = WorkId::generate();
        submit(&project, id).await?;
        let claimed = project
            .claim(guid, json!({ "start": true, "waitMs": 5_000 }))
            .await?;
        let failure = json!({
            "id": id, "guid": guid, "attempt": claimed[0].lease.attempt, "error": "broken",
            "recoverable": false,
        });
        let asking = project.request("work.fail", failure);
        let looking = told(&project, &mut signals, WorkEventKind::Failed, id);
        let (asked, looked) = join!(asking, looking);
        asked?;
        assert_eq!(looked?.1.status, WorkStatus::Failed);

        let id = WorkId::generate();
        submit(&project, id).await?;
        let asking = project.request("work.cancel", json!({ "id": id }));
        let looking = told(&project, &mut signals, WorkEventKind::Cancelled, id);
        let (asked, looked) = join!(asking, looking);
        asked?;
        assert_eq!(looked?.1.status, WorkStatus::Cancelled);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn every_event_of_an_agent_is_told_when_reads_see_what_it_tells() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    for _ in 0..ROUNDS {
        let guid = AgentGuid::generate();
        register(&project, guid).await?;
        let asking = project.request(
            "agents.heartbeat",
            json!({ "guid": guid, "status": "busy" }),
        );
        let looking = async {
            signals.agent(AgentEventKind::Updated, guid).await?;
            agent(&project, guid).await
        };
        let (asked, looked) = join!(asking, looking);
        asked?;
        assert_eq!(looked?.status, AgentStatus::Busy);

        let asking = project.request("agents.shutdown", json!({ "guid": guid }));
        let looking = async {
            let drains = |event: &Event| match event {
                Event::Agent(event) => {
                    let is_it =
                        event.agent.guid == guid && event.new_status == Some(AgentStatus::Draining);
                    is_it.then_some(())
                }
                Event::Work(_) | Event::Target(_) | Event::SpinUp(_) => None,
            };
            signals.find("agent:updated to draining", drains).await?;
            agent(&project, guid).await
        };
        let (asked, looked) = join!(asking, looking);
        asked?;
        assert_eq!(looked?.status, AgentStatus::Draining);

        let guid = AgentGuid::generate();
        register(&project, guid).await?;
        let asking = project.request("agents.deregister", json!({ "guid": guid }));
        let looking = async {
            signals.agent(AgentEventKind::Shutdown, guid).await?;
            let found = project.request("agents.get", json!({ "guid": guid })).await;
            anyhow::Ok(found.unwrap_err().code)
        };
        let (asked, looked) = join!(asking, looking);
        asked?;
        assert_eq!(looked?, ErrorCode::NotFound);
    }
    Ok(())
}
