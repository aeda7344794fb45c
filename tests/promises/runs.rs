use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_protocol::agent::{Agent, Directive, HeartbeatAnswer, RegisterAnswer};
use loom_protocol::rest::Info;
use loom_protocol::work::{ClaimedItem, LeaseRef, WorkStatus};
use loom_protocol::{AgentGuid, Encoding, ErrorCode, WireError, WorkId, names};
use loom_testkit::fleet::{Fleet, PATIENCE, TestProject};
use loom_testkit::nats::until_subscribed;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// One run of an agent, as its program would be.
pub(super) struct Run {
    pub project: TestProject,
    pub guid: AgentGuid,
    pub id: String,
}

impl Run {
    /// Registers, and gives what the answer says that it holds.
    pub async fn registered(
        project: &TestProject,
        guid: AgentGuid,
        id: &str,
    ) -> Result<(Self, Vec<LeaseRef>), WireError> {
        let body = json!({
            "guid": guid, "instanceId": id, "handle": format!("run-{id}"), "hostname": format!("host-{id}"),
            "agentType": "t", "capabilities": ["rust"], "maxConcurrentTasks": 4,
        });
        let answer: RegisterAnswer = project.call("agents.register", &body).await?;
        let run = Self {
            project: project.clone(),
            guid,
            id: id.to_owned(),
        };
        Ok((run, answer.leases))
    }

    pub async fn asks(&self, action: &str, more: Value) -> Result<Value, WireError> {
        self.asks_in(Encoding::Json, action, more).await
    }

    pub async fn asks_in(
        &self,
        encoding: Encoding,
        action: &str,
        more: Value,
    ) -> Result<Value, WireError> {
        let mut body = json!({"guid": self.guid, "instanceId": self.id});
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.project.call_in(encoding, action, &body).await
    }

    pub async fn claims(&self, more: Value) -> Result<Vec<ClaimedItem>, WireError> {
        let mut answer = self.asks("work.claim", more).await?;
        Ok(serde_json::from_value(answer["items"].take()).unwrap())
    }

    pub async fn seen(&self) -> Result<Agent, WireError> {
        let body = json!({"guid": self.guid});
        self.project.call("agents.get", &body).await
    }

    pub fn published(&self, id: WorkId, attempt: u32, summary: &str) -> Value {
        json!({
            "workItemId": id, "agentGuid": self.guid, "instanceId": self.id, "attempt": attempt,
            "result": {"summary": summary},
        })
    }
}

pub(super) fn is_replaced(error: &WireError) -> bool {
    let details = error.details.as_ref();
    error.code == ErrorCode::NotRegistered && details.is_some_and(|it| it["replaced"] == true)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_two_runs_of_one_guid_the_later_goes_on_and_what_the_earlier_asks_changes_nothing()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let (first, _) = Run::registered(&project, guid, "first").await?;
    let id = project.submit_plain("rust").await?;
    let other = project.submit_plain("rust").await?;
    assert_eq!(first.claims(json!({"start": true})).await?.len(), 1);

    let (second, leases) = Run::registered(&project, guid, "second").await?;
    assert_eq!(leases, [LeaseRef { id, attempt: 1 }]);
    let before = (second.seen().await?, project.work(id).await?.revision);
    let report = json!({"id": id, "attempt": 1});
    let failed = json!({"id": id, "attempt": 1, "error": "no"});
    let registration = json!({"handle": "again", "agentType": "t", "capabilities": ["rust"]});
    let asked = [
        (
            "agents.heartbeat",
            json!({"holding": [], "currentTaskCount": 3}),
        ),
        ("agents.heartbeat", json!({"status": "draining"})),
        ("work.claim", json!({"waitMs": 30_000})),
        ("work.start", report.clone()),
        ("work.progress", report.clone()),
        ("work.complete", report.clone()),
        ("work.complete", json!({"items": [report], "thenClaim": {}})),
        ("work.fail", failed),
        (
            "work.release",
            json!({"id": id, "attempt": 1, "reason": "usage-limit"}),
        ),
        ("work.stopped", report.clone()),
        ("agents.deregister", json!({})),
        ("agents.register", registration),
    ];
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        for (action, body) in &asked {
            let refused = first.asks_in(encoding, action, body.clone()).await;
            let error = refused.err().context(*action)?;
            assert!(is_replaced(&error), "{action}: {error:?}");
            assert!(
                error.message.contains("run-second on host host-second"),
                "{error}"
            );
        }
    }
    assert_eq!(
        (second.seen().await?, project.work(id).await?.revision),
        before
    );
    assert_eq!(project.work(other).await?.status, WorkStatus::Pending);

    // The same run may register again; who names no run is not concerned.
    Run::registered(&project, guid, "second").await?;
    project
        .request("agents.heartbeat", json!({"guid": guid}))
        .await?;
    second
        .asks("work.complete", json!({"id": id, "attempt": 1}))
        .await?;
    assert_eq!(project.work(id).await?.status, WorkStatus::Completed);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_claim_that_waits_ends_when_its_run_is_replaced() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let (first, _) = Run::registered(&project, guid, "first").await?;
    let elsewhere = Run {
        project: project.another_connection().await?,
        ..first
    };
    let began = Instant::now();
    let waiting = tokio::spawn(async move { elsewhere.claims(json!({"waitMs": 30_000})).await });
    // It waits by now, or is on its way: it must not be served either way.
    project.request("agents.get", json!({"guid": guid})).await?;
    let (second, _) = Run::registered(&project, guid, "second").await?;
    let id = project.submit_plain("rust").await?;
    let refused = timeout(PATIENCE, waiting).await??.unwrap_err();
    assert!(is_replaced(&refused), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(25));
    let given = second.claims(json!({"waitMs": 10_000})).await?;
    assert_eq!(given[0].work_item.id, id);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn whenever_a_run_is_replaced_while_it_claims_no_lease_stays_with_the_wrong_one() -> Result<()>
{
    let fleet = Fleet::builder()
        .settings(|settings| settings.agents.heartbeat_every = Duration::from_millis(200))
        .start()
        .await?;
    let project = fleet.project().await?;
    for round in 0..4 {
        let guid = AgentGuid::generate();
        let (first, _) = Run::registered(&project, guid, "first").await?;
        let id = project.submit_plain("rust").await?;
        let claiming = tokio::spawn(async move { first.claims(json!({"start": true})).await });
        if round % 2 == 1 {
            tokio::task::yield_now().await;
        }
        let (second, _) = Run::registered(&project, guid, "second").await?;
        let _claimed = claiming.await?;
        // What it does not hold goes back by its heartbeat, and comes to it by its claim.
        let done = async || {
            second
                .asks("agents.heartbeat", json!({"holding": []}))
                .await
                .ok()?;
            let given = second.claims(json!({"waitMs": 500})).await.ok()?;
            let attempt = given.iter().find(|it| it.work_item.id == id)?.lease.attempt;
            let report = json!({"id": id, "attempt": attempt});
            second.asks("work.complete", report).await.ok()
        };
        project
            .eventually("the second run has done it", done)
            .await?;
        let item = project.work(id).await?;
        assert_eq!((item.status, item.attempts), (WorkStatus::Completed, 0));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_was_replaced_is_known_to_the_next_coordinator_and_of_twenty_the_last_eight_are()
-> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let mut runs = Vec::new();
    for number in 0..20 {
        let id = format!("run-{number}");
        runs.push(Run::registered(&project, guid, &id).await?.0);
    }
    let id = project.submit_plain("rust").await?;
    assert_eq!(runs[19].claims(json!({})).await?.len(), 1);
    fleet.crash().await?;
    fleet.start_again().await?;
    // Asked at once: before the coordinator has read who is there.
    let body = json!({"guid": guid, "instanceId": "run-18", "id": id, "attempt": 1});
    let refused = project.insist("work.complete", body).await.unwrap_err();
    assert!(is_replaced(&refused), "{refused:?}");
    for run in &runs[11..19] {
        let refused = run.asks("agents.heartbeat", json!({})).await.unwrap_err();
        assert!(is_replaced(&refused), "{}: {refused:?}", run.id);
    }
    // Replaced long ago, it does not win again either.
    let refused = runs[3]
        .asks("work.complete", json!({"id": id, "attempt": 1}))
        .await;
    assert!(is_replaced(&refused.unwrap_err()));
    let again = Run::registered(&project, guid, "run-3").await;
    assert!(is_replaced(&again.err().context("it has won again")?));
    // Never heard of: it has to register, and changes nothing before that.
    let body = json!({"guid": guid, "instanceId": "made-up", "id": id, "attempt": 1});
    let refused = project.request("work.complete", body).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.details),
        (ErrorCode::NotRegistered, None)
    );
    assert_eq!(runs[19].seen().await?.replaced_runs.len(), 8);
    runs[19]
        .asks("work.complete", json!({"id": id, "attempt": 1}))
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_published_heartbeat_of_a_replaced_run_is_no_sign_of_life() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.agents.heartbeat_every = Duration::from_millis(200);
            settings.agents.stale_after = Duration::from_secs(1);
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    Run::registered(&project, guid, "first").await?;
    let (second, _) = Run::registered(&project, guid, "second").await?;
    let subject = names::heartbeat(project.id(), guid);
    let look = async || {
        let beat = json!({"instanceId": "first", "status": "online"}).to_string();
        let sent = project.client().publish(subject.clone(), beat.into());
        sent.await.ok()?;
        let status = second.seen().await.ok()?.status;
        (status == loom_protocol::agent::AgentStatus::Offline).then_some(())
    };
    project.eventually("it is offline", look).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_order_names_the_run_that_it_is_for() -> Result<()> {
    use futures_util::StreamExt as _;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let guid = AgentGuid::generate();
    let (first, _) = Run::registered(&project, guid, "first").await?;
    let client = async_nats::connect(fleet.nats().url()).await?;
    let mut orders = client
        .subscribe(names::directive(project.id(), guid))
        .await?;
    until_subscribed(&client).await?;
    let id = project.submit_plain("rust").await?;
    first.claims(json!({})).await?;
    project.request("work.cancel", json!({"id": id})).await?;
    let order = timeout(PATIENCE, orders.next())
        .await?
        .context("no order")?;
    let order: Directive = serde_json::from_slice(&order.payload)?;
    assert_eq!(order.instance_id.as_deref(), Some("first"));
    let beat = first.asks("agents.heartbeat", json!({})).await?;
    let beat: HeartbeatAnswer = serde_json::from_value(beat)?;
    assert_eq!(beat.directives[0].instance_id.as_deref(), Some("first"));
    // They were the orders of that run, and not of the next.
    let (second, _) = Run::registered(&project, guid, "second").await?;
    let beat = second.asks("agents.heartbeat", json!({})).await?;
    let beat: HeartbeatAnswer = serde_json::from_value(beat)?;
    assert_eq!(beat.directives, []);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_run_by_no_token_is_refused_and_what_is_possible_is_announced() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let refused = Run::registered(&project, AgentGuid::generate(), "two words").await;
    assert_eq!(
        refused.err().context("it was taken")?.code,
        ErrorCode::InvalidToken
    );
    let info: Info = fleet.project().await?.api()?.get(&["info"], &[]).await?;
    assert!(
        info.features.iter().any(|it| it == "instance-id"),
        "{info:?}"
    );
    Ok(())
}
