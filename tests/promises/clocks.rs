//! Leases and their clocks, with clocks of tenths of seconds.

use std::time::{Duration, Instant};

use anyhow::Result;
use loom_actors::liveness::BarrierOutcome;
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{ClaimedItem, LeaseRef, Reason, WorkStatus};
use loom_protocol::{ErrorCode, names};
use loom_testkit::agent::FakeAgent;
use loom_testkit::fleet::{Fleet, TestProject};
use loom_testkit::nats::TestNats;
use loom_testkit::process::LoomUp;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

const START: Duration = Duration::from_millis(300);
const PROGRESS: Duration = Duration::from_millis(400);
/// Longer than both clocks, and than a second: what is late by that is a stall.
const STALL: Duration = Duration::from_millis(1_600);
/// Longer than a stalled barrier, its grace, and the next barrier.
const LONG_STALL: Duration = Duration::from_millis(3_300);

/// A coordinator with short clocks, and pauses of exactly what is drawn.
pub async fn short_clocks() -> Result<Fleet> {
    let fleet = Fleet::builder().settings(|settings| {
        settings.work.start_timeout = START;
        settings.work.timeout = PROGRESS;
        settings.work.stop_grace = PROGRESS;
        settings.work.retry.backoff_first = Duration::from_millis(50);
        settings.work.retry.backoff_max = Duration::from_millis(100);
    });
    fleet.start().await
}

/// An item that its agent has begun.
pub async fn begun(project: &TestProject, agent: &FakeAgent) -> Result<ClaimedItem> {
    project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    Ok(item)
}

/// A client of a coordinator that runs as a process of its own.
struct Outside {
    client: async_nats::Client,
}

impl Outside {
    async fn ask(&self, action: &str, body: Value) -> Value {
        let subject = format!("coord.default.{action}");
        let answer = self.client.request(subject, body.to_string().into()).await;
        serde_json::from_slice(&answer.unwrap().payload).unwrap()
    }
}

pub fn lease(item: &ClaimedItem) -> LeaseRef {
    LeaseRef {
        id: item.work_item.id,
        attempt: item.lease.attempt,
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_claim_that_is_not_started_goes_back_without_a_spent_attempt() -> Result<()> {
    let fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let mut signals = project.signals().await?;
    let (claimed_at, item) = (Instant::now(), agent.claim_one().await?);
    let promised = Duration::from_millis(item.lease.expires_in_ms);
    assert!(promised <= START, "the start clock: {promised:?}");

    let retried = signals.work(WorkEventKind::Retried, id).await?;
    assert!(claimed_at.elapsed() >= promised);
    assert_eq!(retried.reason, Some(Reason::NotStarted));
    let now = project.work(id).await?;
    assert_eq!((now.status, now.attempts), (WorkStatus::Pending, 0));
    assert_eq!(now.not_before, None, "it is offered again at once");
    let refused = agent.start(&item).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StaleLease);
    let holding = json!({"holding": [lease(&item)]});
    assert_eq!(agent.heartbeat(holding).await?.lost, [lease(&item)]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_without_progress_goes_back_although_its_agent_beats() -> Result<()> {
    let fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let mut signals = project.signals().await?;
    let item = begun(&project, &agent).await?;
    let id = item.work_item.id;
    let beats = async {
        let mut pace = interval(PROGRESS / 10);
        loop {
            pace.tick().await;
            let holding = json!({"holding": [lease(&item)]});
            agent.heartbeat(holding).await.unwrap();
        }
    };
    let retried = tokio::select! {
        retried = signals.work(WorkEventKind::Retried, id) => retried?,
        never = beats => never,
    };
    assert_eq!(retried.reason, Some(Reason::Timeout));
    let now = project.work(id).await?;
    assert_eq!(now.attempts, 1, "the attempt is spent");
    let error = &now.errors[0];
    assert_eq!(
        (error.reason, error.agent_guid),
        (Reason::Timeout, Some(agent.guid()))
    );
    assert_eq!(now.not_before, retried.not_before);
    assert!(
        now.not_before.is_some(),
        "it pauses before the next attempt"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_keeps_its_clock_is_never_disturbed() -> Result<()> {
    let fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let mut signals = project.signals().await?;
    let item = begun(&project, &agent).await?;
    let mut pace = interval(PROGRESS / 8);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun_at = Instant::now();
    while begun_at.elapsed() < PROGRESS * 4 {
        pace.tick().await;
        // Empty: still alive.
        let lease = agent.report("progress", &item, json!({})).await?;
        let left = lease["expiresInMs"].as_u64().unwrap_or_default();
        let whole = lease["timeoutMs"].as_u64().unwrap_or_default();
        assert!(left + 50 >= whole, "the clock began anew: {lease}");
    }
    let done = agent.complete(&item, "after four clocks").await?;
    assert_eq!((done.status, done.attempt), (WorkStatus::Completed, 1));
    signals.work(WorkEventKind::Completed, done.id).await?;
    let told = signals.told_of(done.id);
    assert!(
        told.iter()
            .all(|event| event.kind != WorkEventKind::Retried)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_names_its_own_clock() -> Result<()> {
    let fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let patient = json!({"description": "d", "capability": "rust", "timeoutMs": 60_000});
    let patient = project.submit(patient).await?.id;
    let items = agent.claim(json!({"start": true})).await?;
    assert_eq!(items[0].lease.timeout_ms, 60_000);
    let mut signals = project.signals().await?;
    let other = begun(&project, &agent).await?.work_item.id;
    signals.work(WorkEventKind::Retried, other).await?;
    assert_eq!(project.work(patient).await?.status, WorkStatus::InProgress);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_stood_still_takes_nothing_back() -> Result<()> {
    let nats = TestNats::start().await?;
    let loom = LoomUp::new(env!("CARGO_BIN_EXE_loom"))
        .on_nats(nats.url())
        .set("work.start_timeout", "500ms")
        .set("work.timeout", "500ms")
        .start()
        .await?;
    let outside = Outside {
        client: nats.connect().await?,
    };
    let agent = json!({
        "handle": "a", "agentType": "t", "capabilities": ["rust"], "maxConcurrentTasks": 2,
    });
    let guid = &outside.ask("agents.register", agent).await["guid"];
    let mut leases = Vec::new();
    for start in [false, true] {
        let item = json!({"description": "d", "capability": "rust"});
        let id = &outside.ask("work.submit", item).await["id"];
        let claim = json!({"guid": guid, "start": start});
        outside.ask("work.claim", claim).await;
        leases.push(json!({"id": id, "guid": guid, "attempt": 1}));
    }
    loom.pause();
    // deliberate sleep: the process has to stand still past every deadline
    tokio::time::sleep(STALL).await;
    loom.resume();
    loom.until_it_logs("full grace").await?;
    for (lease, action) in leases.into_iter().zip(["work.start", "work.progress"]) {
        let answer = outside.ask(action, lease).await;
        assert_eq!(answer["attempt"], 1, "nobody loses a lease: {answer}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_nats_server_that_stood_still_costs_nobody_a_lease() -> Result<()> {
    let fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let started = begun(&project, &agent).await?;
    project.submit_plain("rust").await?;
    let claimed = agent.claim_one().await?;
    fleet.nats().pause()?;
    // deliberate sleep: the server has to stand still past every deadline
    tokio::time::sleep(LONG_STALL).await;
    fleet.nats().resume()?;
    for item in [&started, &claimed] {
        let done = agent.complete(item, "still mine").await?;
        assert_eq!((done.status, done.attempt), (WorkStatus::Completed, 1));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_was_away_gives_everybody_the_full_time() -> Result<()> {
    let mut fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let started = begun(&project, &agent).await?;
    project.submit_plain("rust").await?;
    let claimed = agent.claim_one().await?;
    fleet.crash().await?;
    // deliberate sleep: every deadline passes while nobody is there
    tokio::time::sleep(PROGRESS).await;
    fleet.start_again().await?;
    agent.progress(&started, 50).await?;
    agent.start(&claimed).await?;
    for item in [&started, &claimed] {
        let done = agent.complete(item, "still mine").await?;
        assert_eq!((done.status, done.attempt), (WorkStatus::Completed, 1));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_published_while_the_coordinator_was_away_counts_before_any_lease_expires()
-> Result<()> {
    const PILE: usize = 3_000;
    let mut fleet = short_clocks().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let item = begun(&project, &agent).await?;
    let LeaseRef { id, attempt } = lease(&item);
    fleet.crash().await?;
    let completed = names::work_completed(project.id());
    let report = |attempt| json!({"workItemId": id, "agentGuid": agent.guid(), "attempt": attempt});
    // Stale ones: to be worked off before the one that counts.
    for _ in 0..PILE {
        let payload = serde_json::to_vec(&report(attempt + 7))?;
        let jetstream = project.jetstream();
        drop(jetstream.publish(completed.clone(), payload.into()).await?);
    }
    project.publish(completed, &report(attempt)).await?;
    let mut signals = project.signals().await?;
    fleet.start_again().await?;
    signals.work(WorkEventKind::Completed, id).await?;
    let done = project.work(id).await?;
    assert_eq!((done.attempt, done.attempts), (1, 0), "no lease expired");
    let told = signals.told_of(id);
    assert!(
        told.iter()
            .all(|event| event.kind != WorkEventKind::Retried)
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_barrier_passes_while_all_goes_well_and_stalls_when_nats_stands_still() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    begun(&project, &agent).await?;
    let barrier = project.parts()?.barrier.clone();
    until_it_passes(&project).await?;
    let before = barrier.grace().since();
    for _ in 0..20 {
        assert_eq!(barrier.pass().await, BarrierOutcome::Passed);
    }
    assert_eq!(barrier.grace().since(), before);
    fleet.nats().pause()?;
    let crossings = tokio::join!(barrier.pass(), barrier.pass(), barrier.pass());
    fleet.nats().resume()?;
    assert_eq!(crossings.0, BarrierOutcome::Stalled);
    assert_eq!(crossings.1, BarrierOutcome::Stalled);
    assert!(barrier.grace().since() > before, "a full grace for all");
    until_it_passes(&project).await
}

/// After a start, when published reports are taken over; after a standstill, when NATS answers.
async fn until_it_passes(project: &TestProject) -> Result<()> {
    let barrier = project.parts()?.barrier.clone();
    let passes = async || (barrier.pass().await == BarrierOutcome::Passed).then_some(());
    project.eventually("the barrier passes", passes).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_delivered_before_a_barrier_is_applied_when_it_has_passed() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(50).spawn().await?;
    let parts = project.parts()?;
    let (guid, bucket) = (agent.guid(), project.agents_bucket().await?);
    until_it_passes(&project).await?;
    for round in 1..=20 {
        let item = begun(&project, &agent).await?;
        let beat = json!({"guid": guid, "currentTaskCount": round}).to_string();
        let subject = names::heartbeat(project.id(), guid);
        project.client().publish(subject, beat.into()).await?;
        project.client().flush().await?;
        let capability = format!("learned-{round}");
        let entry = json!({"guid": guid, "capabilities": ["rust", capability]});
        bucket
            .put(guid.to_string(), entry.to_string().into())
            .await?;
        let LeaseRef { id, attempt } = lease(&item);
        let report = json!({"workItemId": id, "agentGuid": guid, "attempt": attempt});
        let completed = names::work_completed(project.id());
        project.publish(completed, &report).await?;

        assert_eq!(parts.barrier.pass().await, BarrierOutcome::Passed);
        let status = parts.work.header(id).map(|header| header.status);
        assert_eq!(status, Some(WorkStatus::Completed), "the report");
        let seen = parts.agents.snapshot(guid).unwrap();
        assert_eq!(seen.current_task_count, round, "the heartbeat");
        assert!(seen.capabilities.contains(&capability), "the put");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_failed_attempt_is_followed_by_a_pause_that_is_told() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.work.retry.backoff_first = Duration::from_secs(2);
            settings.work.retry.backoff_max = Duration::from_secs(2);
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let mut signals = project.signals().await?;
    let item = begun(&project, &agent).await?;
    agent.fail(&item, "broken", true).await?;
    let retried = signals
        .work(WorkEventKind::Retried, item.work_item.id)
        .await?;
    assert_eq!(retried.reason, Some(Reason::AgentError));
    let not_before = retried.not_before.unwrap();
    assert!(not_before <= retried.timestamp.after(Duration::from_secs(2)));
    let again = agent.claim(json!({"waitMs": 5_000})).await?;
    let assigned_at = again[0].work_item.assigned_at.unwrap();
    assert!(assigned_at >= not_before, "held back exactly");

    // What the agent says wins.
    let later = json!({"error": "limit", "retryAfterMs": 3_600_000, "spendsAttempt": false});
    agent.report("fail", &again[0], later).await?;
    let now = project.work(item.work_item.id).await?;
    let not_before = now.not_before.unwrap();
    assert!(not_before > now.updated_at.after(Duration::from_mins(59)));
    assert_eq!((now.attempts, now.errors.len()), (1, 2));
    Ok(())
}
