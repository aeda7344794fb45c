use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_client::{Client, ClientOptions};
use loom_protocol::agent::{
    Agent, AgentStatus, Directive, DirectiveKind, HeartbeatRequest, RegisterRequest,
};
use loom_protocol::event::AgentEventKind;
use loom_protocol::gc::Grave;
use loom_protocol::work::{LeaseRef, Reason, WorkStatus};
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, names};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::{Fleet, FleetBuilder, PATIENCE, TestProject};
use loom_testkit::nats::until_subscribed;
use loom_testkit::process::LoomUp;
use serde_json::json;
use tokio::time::{Instant, interval, sleep, timeout};

const BEAT: Duration = Duration::from_millis(200);
const STALE: Duration = Duration::from_secs(1);

/// Clocks that a test can wait for.
fn fast() -> FleetBuilder {
    Fleet::builder().settings(|settings| {
        settings.agents.heartbeat_every = BEAT;
        settings.agents.stale_after = STALE;
    })
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_dead_agents_work_is_taken_over_in_time() -> Result<()> {
    let fleet = fast().start().await?;
    let project = fleet.project().await?;
    let successor = living(&project).await?;
    let dead = project.agent("rust").slots(2).spawn().await?;
    let started = project.submit_plain("rust").await?;
    let unstarted = project.submit_plain("rust").await?;
    let items = dead.claim(json!({"max": 2})).await?;
    assert_eq!(items.len(), 2);
    let last_sign = Instant::now();
    dead.start(&items[0]).await?;
    let (guid, mut signals) = (dead.guid(), project.signals().await?);
    dead.die();

    let taken = successor.claim(json!({"max": 2, "waitMs": 20_000})).await?;
    let took = last_sign.elapsed();
    assert!(took >= STALE, "taken from a living agent after {took:?}");
    assert!(took <= STALE + Duration::from_secs(1), "after {took:?}");
    signals.agent(AgentEventKind::Updated, guid).await?;
    assert!(taken.iter().all(|item| item.lease.attempt == 2));
    // What was started has spent an attempt; what was only assigned has not.
    for (id, spent) in [(started, 1), (unstarted, 0)] {
        let is_back = async || {
            let item = project.work(id).await.ok()?;
            (item.attempt == 2 || item.status == WorkStatus::Pending).then_some(item)
        };
        let item = project.eventually("it is given back", is_back).await?;
        assert_eq!(item.attempts, spent);
    }
    let seen: Agent = project.call("agents.get", &json!({ "guid": guid })).await?;
    assert_eq!(seen.status, AgentStatus::Offline);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_silent_agent_is_offline_and_online_when_it_beats_again() -> Result<()> {
    let fleet = fast().start().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;

    let offline = signals.agent(AgentEventKind::Updated, agent.guid()).await?;
    assert_eq!(offline.new_status, Some(AgentStatus::Offline));
    pending_again(&project, id).await?;
    let lease = LeaseRef { id, attempt: 1 };
    let back = agent.heartbeat(json!({"holding": [lease]})).await?;
    assert_eq!(back.lost, [lease]);
    assert_eq!(agent.seen().await?.status, AgentStatus::Online);
    let errors = project.work(id).await?.errors;
    assert_eq!(errors[0].reason, Reason::AgentLost);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ghosts_report_is_refused_also_after_a_restart() -> Result<()> {
    let mut fleet = fast().start().await?;
    let project = fleet.project().await?;
    let ghost = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = ghost.claim_one().await?;
    ghost.start(&item).await?;
    pending_again(&project, id).await?;
    refused_as_stale(&ghost, &item).await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    refused_as_stale(&ghost, &item).await?;
    assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn any_way_of_beating_keeps_an_agent_alive() -> Result<()> {
    let fleet = fast().start().await?;
    let project = fleet.project().await?;
    let by_request = living(&project).await?;
    let by_message = project.agent("rust").spawn().await?;
    let by_put = AgentGuid::generate();
    let bucket = project.agents_bucket().await?;
    let put = json!({"guid": by_put, "capabilities": ["rust"]}).to_string();
    let subject = names::heartbeat(project.id(), by_message.guid());
    let silent = project.agent("rust").spawn().await?;
    let mut signals = project.signals().await?;
    let mut beat = interval(BEAT);
    let beating = async {
        loop {
            beat.tick().await;
            bucket.put(by_put.to_string(), put.clone().into()).await?;
            let payload = json!({}).to_string().into();
            project.client().publish(subject.clone(), payload).await?;
        }
    };
    let patience = async {
        // Two that are silent, one after the other: more than twice the patience with the others.
        signals
            .agent(AgentEventKind::Updated, silent.guid())
            .await?;
        let another = project.agent("rust").spawn().await?;
        signals.agent(AgentEventKind::Updated, another.guid()).await
    };
    tokio::select! {
        failed = beating => return failed,
        waited = patience => drop(waited?),
    }
    for guid in [by_request.guid(), by_message.guid(), by_put] {
        let agent: Agent = project.call("agents.get", &json!({ "guid": guid })).await?;
        assert_eq!(agent.status, AgentStatus::Online, "{guid}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_long_heartbeat_interval_is_respected() -> Result<()> {
    let fleet = fast().start().await?;
    let project = fleet.project().await?;
    let slow = project
        .agent("rust")
        .field("heartbeatIntervalMs", json!(60_000));
    let slow = slow.spawn().await?;
    let silent = project.agent("rust").spawn().await?;
    let mut signals = project.signals().await?;
    signals
        .agent(AgentEventKind::Updated, silent.guid())
        .await?;
    let another = project.agent("rust").spawn().await?;
    signals
        .agent(AgentEventKind::Updated, another.guid())
        .await?;
    assert_eq!(slow.seen().await?.status, AgentStatus::Online);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_paused_nats_server_makes_nobody_dead() -> Result<()> {
    let fleet = fast().start().await?;
    let project = fleet.project().await?;
    let agent = living(&project).await?;
    project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    for pause in [STALE * 2, STALE * 5] {
        fleet.nats().pause()?;
        // deliberate sleep: the length of the outage is what is tested
        sleep(pause).await;
        fleet.nats().resume()?;
        nobody_was_marked(&project, &agent).await?;
    }
    agent.complete(&item, "nothing happened").await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_paused_coordinator_makes_nobody_dead() -> Result<()> {
    let nats = loom_testkit::nats::TestNats::start().await?;
    let loom = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
        .on_nats(nats.url())
        .set("agents.heartbeat_every", "200ms")
        .set("agents.stale_after", "1s")
        .start()
        .await?;
    let client = Client::connect(ClientOptions {
        request_timeout: Duration::from_secs(5),
        ..ClientOptions::new(nats.url(), ProjectId::new("paused")?)
    })
    .await?;
    let register = RegisterRequest {
        handle: "patient".into(),
        agent_type: "fake".into(),
        capabilities: vec!["rust".into()],
        ..RegisterRequest::default()
    };
    let agent: Agent = client.request("agents.register", &register).await?;
    let beat = HeartbeatRequest {
        status_reason: None,
        instance_id: None,
        guid: agent.guid,
        status: None,
        current_task_count: None,
        holding: None,
    };
    let events = client.nats().subscribe("loom.paused.events.agent.updated");
    let mut events = events.await?;
    until_subscribed(client.nats()).await?;
    let beating = async {
        let mut every = interval(BEAT);
        loop {
            every.tick().await;
            let subject = names::heartbeat(client.project(), agent.guid);
            let payload = serde_json::to_vec(&beat)?;
            client.nats().publish(subject, payload.into()).await?;
        }
    };
    let pausing = async {
        for _ in 0..3 {
            loom.pause();
            // deliberate sleep: the length of the standstill is what is tested
            sleep(STALE * 3).await;
            loom.resume();
            // deliberate sleep: a full patience after it, in which nothing may happen
            sleep(STALE * 2).await;
        }
    };
    tokio::select! {
        failed = beating => return failed,
        () = pausing => {}
    }
    let told = timeout(Duration::ZERO, futures_util::StreamExt::next(&mut events)).await;
    assert!(told.is_err(), "somebody was marked: {told:?}");
    Ok(())
}

/// The answer to a claim and a heartbeat without it meet a server that stands still: what was said
/// before the answer could arrive proves nothing about it.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_holding_left_out_during_a_stall_of_ours_is_not_taken_back() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    let subject = names::request(project.id(), "agents.heartbeat");
    let beat = json!({"guid": agent.guid(), "holding": []});
    let beat = async_nats::Request::new()
        .payload(serde_json::to_vec(&beat)?.into())
        .timeout(Some(PATIENCE));
    fleet.nats().pause()?;
    let beating = project.client().send_request(subject, beat);
    let (answer, paused) = tokio::join!(beating, async {
        // deliberate sleep: the server has to stand still past the time after which holding counts
        sleep(Duration::from_millis(5_500)).await;
        fleet.nats().resume()
    });
    paused?;
    let answer: serde_json::Value = serde_json::from_slice(&answer?.payload)?;
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(project.work(id).await?.status, WorkStatus::Assigned);
    agent.start(&item).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_long_dead_are_buried_and_their_ghosts_told_also_after_a_restart() -> Result<()> {
    let mut fleet = Fleet::builder()
        .settings(|settings| {
            settings.agents.heartbeat_every = BEAT;
            settings.agents.stale_after = STALE;
            settings.agents.bury_after = STALE * 2;
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let agent = project.agent("rust").spawn().await?;
    let (guid, handle) = (agent.guid(), agent.registered().agent.handle.clone());
    let buried = signals.agent(AgentEventKind::Shutdown, guid).await?;
    assert_eq!(buried.agent.guid, guid);
    let gone = agent.seen().await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);

    let bucket = names::graveyard_bucket(project.id());
    let graveyard = project.jetstream().get_key_value(bucket).await?;
    let grave = graveyard.get(guid.to_string()).await?.context("a grave")?;
    let grave: Grave = serde_json::from_slice(&grave)?;
    assert_eq!(
        (grave.guid, grave.handle, grave.buried),
        (guid, handle, true)
    );

    fleet.crash().await?;
    fleet.start_again().await?;
    let orders = names::directive(project.id(), guid);
    let mut orders = project.client().subscribe(orders).await?;
    until_subscribed(project.client()).await?;
    let told = project.eventually("the ghost is told", async || {
        let refused = project
            .insist("agents.heartbeat", json!({ "guid": guid }))
            .await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::NotRegistered);
        let next = futures_util::StreamExt::next(&mut orders);
        timeout(Duration::from_millis(100), next).await.ok()?
    });
    let order: Directive = serde_json::from_slice(&told.await?.payload)?;
    assert_eq!(order.kind, DirectiveKind::Register);

    // It registers again and is a ghost no more.
    let registration = json!({
        "guid": guid, "handle": "again", "agentType": "fake", "capabilities": ["rust"],
    });
    project.request("agents.register", registration).await?;
    project
        .eventually("the grave is cleared", async || {
            let grave = graveyard.get(guid.to_string()).await.ok()?;
            grave.is_none().then_some(())
        })
        .await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_killed_reaper_forgets_nobody() -> Result<()> {
    let fleet = fast().start().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let alive = living(&project).await?;
    let silent = project.agent("rust").spawn().await?;
    project.kill(loom_testkit::fleet::Role::GcReaper)?;
    signals
        .agent(AgentEventKind::Updated, silent.guid())
        .await?;
    assert_eq!(alive.seen().await?.status, AgentStatus::Online);
    Ok(())
}

/// An agent whose heart beats and that does nothing by itself.
async fn living(project: &TestProject) -> Result<FakeAgent> {
    let agent = project.agent("rust").heartbeat_every(BEAT);
    agent.behaviour(Behaviour::Beat).spawn().await
}

async fn pending_again(project: &TestProject, id: loom_protocol::WorkId) -> Result<()> {
    project
        .eventually("the item is pending again", async || {
            let item = project.work(id).await.ok()?;
            (item.status == WorkStatus::Pending).then_some(())
        })
        .await
}

async fn refused_as_stale(
    ghost: &FakeAgent,
    item: &loom_protocol::work::ClaimedItem,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A completion would count as long as nobody contradicts it.
        let error = ghost.fail(item, "too late", true).await.unwrap_err();
        if error.code.is_transient() && Instant::now() < deadline {
            continue;
        }
        assert_eq!(error.code, ErrorCode::StaleLease, "{error}");
        return Ok(());
    }
}

/// The agent is still there when one that is silent from now on has been marked.
async fn nobody_was_marked(project: &TestProject, agent: &FakeAgent) -> Result<()> {
    let silent = project
        .eventually("somebody can register", async || {
            project.agent("other").spawn().await.ok()
        })
        .await?;
    project
        .eventually("the silent one is offline", async || {
            let seen = silent.seen().await.ok()?;
            (seen.status == AgentStatus::Offline).then_some(())
        })
        .await?;
    assert_eq!(agent.seen().await?.status, AgentStatus::Online);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn deregistering_names_every_lease_that_it_gives_back() -> Result<()> {
    const ROUNDS: usize = 30;
    const HELD: usize = 8;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for round in 0..ROUNDS {
        let agent = project.agent("rust").slots(8).spawn().await?;
        for _ in 0..HELD {
            project.submit_plain("rust").await?;
        }
        let claimed = agent.claim(json!({"max": HELD})).await?;
        let mut held: Vec<_> = claimed.iter().map(|item| item.work_item.id).collect();
        let answer = agent.deregister().await?;
        let released: Vec<LeaseRef> = serde_json::from_value(answer["released"].clone())?;
        let mut named: Vec<_> = released.iter().map(|lease| lease.id).collect();
        held.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, held, "round {round}");
        project.request("queue.purge", json!({"all": true})).await?;
    }
    Ok(())
}
