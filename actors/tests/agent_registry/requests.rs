//! Requests through the handle.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use loom_actors::agent_registry::AgentChange;
use loom_actors::nats::connection::round_trip;
use loom_protocol::agent::{
    AgentStatus, Directive, DirectiveKind, HeartbeatRequest, RegisterRequest, ShutdownNotice,
    ShutdownRequest,
};
use loom_protocol::{AgentGuid, ErrorCode, WorkId, names};
use serde_json::json;

use crate::fixture::{Fixture, eventually, request};

const STALE: Duration = Duration::from_secs(30);

fn beat(guid: AgentGuid, status: Option<AgentStatus>) -> HeartbeatRequest {
    HeartbeatRequest {
        status_reason: None,
        instance_id: None,
        guid,
        status,
        current_task_count: None,
        holding: None,
    }
}

fn order(reason: &str) -> ShutdownRequest {
    ShutdownRequest {
        guid: String::new(),
        graceful: None,
        grace_period_ms: None,
        reason: Some(reason.into()),
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_registration_is_in_the_bucket_when_it_is_answered() {
    let mut fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    let entry = fixture.entry(agent.guid).await;
    assert_eq!(entry["handle"], "ada");
    assert_eq!(entry["status"], "online");
    assert_eq!(
        fixture.args.directory.snapshot(agent.guid),
        Some(agent.clone())
    );
    fixture.changed(agent.guid, AgentChange::Registered).await;
    assert_eq!(fixture.told(), ["agent:registered"]);

    let again = RegisterRequest {
        guid: Some(agent.guid),
        ..request("ada2")
    };
    let again = fixture.registry.register(again).await.unwrap();
    assert_eq!(again.registered_at, agent.registered_at);
    assert_eq!(fixture.entry(agent.guid).await["handle"], "ada2");
    fixture.changed(agent.guid, AgentChange::Updated).await;
    assert_eq!(fixture.told(), ["agent:updated"]);

    let bad = RegisterRequest {
        capabilities: vec!["a\tb".into()],
        ..request("bob")
    };
    let error = fixture.registry.register(bad).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidToken);
    assert_eq!(fixture.args.directory.len(), 1);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn many_registrations_at_once_are_all_taken() {
    let fixture = Fixture::start(STALE).await;
    let names: Vec<String> = (0..600).map(|n| format!("a{n}")).collect();
    let answers = join_all(
        names
            .iter()
            .map(|name| fixture.registry.register(request(name))),
    )
    .await;
    for answer in &answers {
        let agent = answer.as_ref().unwrap();
        assert_eq!(
            fixture.args.directory.get(agent.guid).unwrap().agent(),
            agent
        );
    }
    assert_eq!(fixture.args.directory.totals().total, names.len());
    let info = fixture.bucket().await.status().await.unwrap().info;
    assert_eq!(info.state.last_sequence, 600, "one write each");
    let same = answers[0].as_ref().unwrap().guid;
    let contested = join_all((0..10).map(|_| {
        fixture.registry.register(RegisterRequest {
            guid: Some(same),
            ..request("same")
        })
    }));
    assert!(contested.await.iter().all(Result::is_ok));
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_heartbeat_says_what_is_the_agents_to_say() {
    let mut fixture = Fixture::start(STALE).await;
    let unknown = fixture
        .registry
        .heartbeat(beat(AgentGuid::generate(), None))
        .await;
    assert_eq!(unknown.unwrap_err().code, ErrorCode::NotRegistered);

    let agent = fixture.registered("ada").await;
    fixture.told();
    let busy = HeartbeatRequest {
        status_reason: None,
        current_task_count: Some(3),
        ..beat(agent.guid, Some(AgentStatus::Busy))
    };
    assert_eq!(fixture.registry.heartbeat(busy).await, Ok(vec![]));
    let seen = fixture.args.directory.snapshot(agent.guid).unwrap();
    assert_eq!(
        (seen.status, seen.current_task_count),
        (AgentStatus::Busy, 3)
    );
    assert!(seen.last_heartbeat >= agent.last_heartbeat);
    assert_eq!(fixture.told(), ["agent:updated"]);
    eventually("the bucket says busy", async || {
        (fixture.entry(agent.guid).await["status"] == "busy").then_some(())
    })
    .await;

    let lie = beat(agent.guid, Some(AgentStatus::Quarantined));
    fixture.registry.heartbeat(lie).await.unwrap();
    fixture.sees(agent.guid, AgentStatus::Busy).await;
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_published_heartbeat_counts_and_a_strangers_is_answered_with_an_order_to_register() {
    let fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    let project = &fixture.args.project;
    let subject = names::heartbeat(project, agent.guid);
    let payload = json!({"guid": agent.guid, "status": "draining", "currentTaskCount": 2});
    fixture
        .client
        .publish(subject.clone(), "garbage".into())
        .await
        .unwrap();
    fixture
        .client
        .publish(subject, payload.to_string().into())
        .await
        .unwrap();
    let seen = fixture.sees(agent.guid, AgentStatus::Draining).await;
    assert_eq!(seen.current_task_count, 2);

    let stranger = AgentGuid::generate();
    let mut orders = fixture
        .client
        .subscribe(names::directive(project, stranger))
        .await
        .unwrap();
    round_trip(&fixture.client).await.unwrap();
    fixture
        .client
        .publish(names::heartbeat(project, stranger), "".into())
        .await
        .unwrap();
    let order = orders.next().await.unwrap();
    let order: Directive = serde_json::from_slice(&order.payload).unwrap();
    assert_eq!(order.kind, DirectiveKind::Register);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_deregistered_agent_is_gone() {
    let mut fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    fixture.told();
    fixture.registry.deregister(agent.guid).await.unwrap();
    assert!(fixture.entry(agent.guid).await.is_null());
    assert!(fixture.args.directory.get(agent.guid).is_none());
    fixture.changed(agent.guid, AgentChange::Gone).await;
    assert_eq!(fixture.told(), ["agent:shutdown"]);
    let again = fixture.registry.deregister(agent.guid).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::NotRegistered);
    let back = RegisterRequest {
        guid: Some(agent.guid),
        ..request("ada")
    };
    let back = fixture.registry.register(back).await.unwrap();
    assert_eq!(back.guid, agent.guid);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_order_to_end_is_repeated_until_it_is_obeyed() {
    let mut fixture = Fixture::start(STALE).await;
    let run = |id: &str| RegisterRequest {
        instance_id: Some(id.into()),
        ..request("ada")
    };
    let agent = fixture.registry.register(run("first")).await.unwrap();
    let project = fixture.args.project.clone();
    let mut orders = fixture
        .client
        .subscribe(names::directive(&project, agent.guid))
        .await
        .unwrap();
    let mut notices = fixture
        .client
        .subscribe(names::agent_shutdown(&project, agent.guid))
        .await
        .unwrap();
    round_trip(&fixture.client).await.unwrap();
    fixture.told();

    let ordered = fixture
        .registry
        .shutdown(agent.guid, order("enough"))
        .await
        .unwrap();
    assert_eq!(ordered.status, AgentStatus::Draining);
    assert_eq!(fixture.told(), ["agent:updated"], "it has not gone yet");
    let published: Directive =
        serde_json::from_slice(&orders.next().await.unwrap().payload).unwrap();
    assert_eq!(published.kind, DirectiveKind::Shutdown);
    let notice: ShutdownNotice =
        serde_json::from_slice(&notices.next().await.unwrap().payload).unwrap();
    assert_eq!(
        (
            notice.reason.as_str(),
            notice.graceful,
            notice.grace_period_ms
        ),
        ("enough", true, 30_000)
    );

    for status in [None, Some(AgentStatus::Online)] {
        let answer = fixture
            .registry
            .heartbeat(beat(agent.guid, status))
            .await
            .unwrap();
        assert_eq!(answer, std::slice::from_ref(&published));
    }
    fixture.sees(agent.guid, AgentStatus::Draining).await;
    // The same run registers again, another coordinator takes over: the order stands.
    let known = |id: &str| RegisterRequest {
        guid: Some(agent.guid),
        ..run(id)
    };
    let same = fixture.registry.register(known("first")).await.unwrap();
    assert_eq!(same.status, AgentStatus::Draining);
    fixture.replace_registry().await;
    let answer = fixture
        .registry
        .heartbeat(beat(agent.guid, None))
        .await
        .unwrap();
    assert_eq!(answer, [published]);
    // Another run was not meant.
    let next = fixture.registry.register(known("second")).await.unwrap();
    assert_eq!(next.status, AgentStatus::Online);
    assert_eq!(
        fixture.registry.heartbeat(beat(agent.guid, None)).await,
        Ok(vec![])
    );
    fixture.replace_registry().await;
    assert_eq!(
        fixture.registry.heartbeat(beat(agent.guid, None)).await,
        Ok(vec![])
    );
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn orders_are_repeated_until_they_are_cleared() {
    let fixture = Fixture::start(STALE).await;
    let guid = fixture.registered("ada").await.guid;
    let cancel = |attempt| Directive {
        kind: DirectiveKind::Cancel,
        work_item_id: Some(WorkId::new(guid.uuid())),
        attempt: Some(attempt),
        reason: None,
        grace_ms: Some(5),
        instance_id: None,
    };
    for attempt in [1, 2, 1] {
        fixture
            .registry
            .add_directive(guid, cancel(attempt))
            .await
            .unwrap();
    }
    let open = fixture.registry.heartbeat(beat(guid, None)).await.unwrap();
    assert_eq!(open, [cancel(2), cancel(1)]);
    fixture
        .registry
        .clear_directive(guid, cancel(2))
        .await
        .unwrap();
    let open = fixture.registry.heartbeat(beat(guid, None)).await.unwrap();
    assert_eq!(open, [cancel(1)]);
    let stranger = fixture
        .registry
        .add_directive(AgentGuid::generate(), cancel(1))
        .await;
    assert_eq!(stranger.unwrap_err().code, ErrorCode::NotRegistered);
    fixture.end().await;
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_is_offline_only_if_nothing_was_heard_of_it_meanwhile() {
    let mut fixture = Fixture::start(STALE).await;
    let agent = fixture.registered("ada").await;
    let earlier = agent.last_heartbeat.before(Duration::from_secs(1));
    assert_eq!(
        fixture.registry.mark_offline(agent.guid, earlier).await,
        Ok(false)
    );
    assert_eq!(
        fixture
            .registry
            .mark_offline(agent.guid, agent.last_heartbeat)
            .await,
        Ok(true)
    );
    fixture.changed(agent.guid, AgentChange::Offline).await;
    eventually("the bucket says offline", async || {
        (fixture.entry(agent.guid).await["status"] == "offline").then_some(())
    })
    .await;
    // Its own writes are nobody's sign of life.
    fixture.sees(agent.guid, AgentStatus::Offline).await;
    fixture.registry.sign_of_life(agent.guid).await.unwrap();
    fixture.sees(agent.guid, AgentStatus::Online).await;
    fixture.changed(agent.guid, AgentChange::Updated).await;
    fixture.end().await;
}
