use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use loom_actors::leases::Leases;
use loom_client::{Agent, Client, ClientOptions, Job, JobError, JobResult, NewWork};
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{Reason, WorkStatus};
use loom_testkit::agent::Behaviour;
use loom_testkit::fleet::{Fleet, PATIENCE, TestProject};
use serde_json::json;
use tokio::time::Instant;

use crate::actor_deaths::{leases, submit_surely};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_idle_agent_does_not_sleep_through_a_restart_of_the_coordinator() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let options = ClientOptions::new(fleet.nats().url(), project.id().clone());
    let client = Client::connect(options).await?;
    let echo = |_job: Job| async { Ok::<_, JobError>(JobResult::default()) };
    let _agent = Agent::builder(&client).capability("rust").start(echo)?;
    let work_off = async || -> Result<Duration> {
        let id = client.submit(&NewWork::new("rust", "d")).await?.id;
        let submitted = Instant::now();
        client.wait(id, PATIENCE).await?;
        Ok(submitted.elapsed())
    };
    work_off().await?;
    // Now it waits for the next: a claim of an item that is not its own goes by it.
    let other = project.agent("rust").spawn().await?;
    assert!(other.claim(json!({"waitMs": 300})).await?.is_empty());
    fleet.crash().await?;
    fleet.start_again().await?;
    let slept = work_off().await?;
    assert!(slept < Duration::from_secs(3), "{slept:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_crash_takes_no_work_from_a_living_agent() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(8).spawn().await?;
    for n in 0..6 {
        project
            .submit(json!({"description": "d", "capability": "rust", "priority": 1 + n}))
            .await?;
    }
    let claim = json!({"max": 4, "claimId": "before"});
    let items = agent.claim(claim.clone()).await?;
    agent.start(&items[0]).await?;
    agent.progress(&items[1], 40).await?;
    agent.complete(&items[2], "before the crash").await?;
    let before = everything(&project).await?;
    let epoch = agent.registered().epoch;

    fleet.crash().await?;
    assert!(
        project.work(items[0].work_item.id).await.is_err(),
        "somebody answers"
    );
    fleet.start_again().await?;
    assert_eq!(everything(&project).await?, before);

    // The agent is known, with its leases; the claim whose answer may be lost gives what is left of it.
    let registration = json!({
        "guid": agent.guid(), "handle": "again", "agentType": "fake", "capabilities": ["rust"],
        "maxConcurrentTasks": 8,
    });
    let again = project.request("agents.register", registration).await?;
    assert_eq!(again["leases"].as_array().map(Vec::len), Some(3));
    assert!(again["epoch"].as_u64() > Some(epoch));
    let again = agent.claim(claim).await?;
    let mut held = leases(&items);
    held.remove(2);
    assert_eq!(leases(&again), held);

    // It goes on where it was, and a repeated report is answered as before.
    let repeated = agent.complete(&items[2], "before the crash").await?;
    assert_eq!(repeated.status, WorkStatus::Completed);
    for place in [0, 1, 3] {
        agent.complete(&items[place], "after the crash").await?;
    }
    assert_eq!(agent.claim(json!({"max": 8})).await?.len(), 2);
    let all = project.all_work().await?;
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|item| item.attempt == 1));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_answered_survives_a_crash_at_any_moment() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("warm-up").await?;
    let agent = project
        .agent("rust")
        .slots(8)
        .behaviour(Behaviour::Diligent)
        .spawn()
        .await?;
    let mut answered = HashSet::new();
    for round in 0..2 {
        let submits: Vec<_> = (0..60).map(|n| submit_surely(project.clone(), n)).collect();
        let submits = tokio::spawn(try_join_all(submits));
        agent.wait_until_claimed(20 * (round + 1)).await?;
        fleet.crash().await?;
        fleet.start_again().await?;
        answered.extend(submits.await??);
    }
    assert_eq!(answered.len(), 120);
    let mut signals = project.signals().await?;
    project
        .eventually("all items are completed", async || {
            let all = project.all_work().await.ok()?;
            let of_rust = all.iter().filter(|item| item.capability == "rust");
            let done = of_rust.filter(|item| item.status == WorkStatus::Completed);
            (done.count() == answered.len()).then_some(())
        })
        .await?;
    let ids: HashSet<_> = project
        .all_work()
        .await?
        .iter()
        .map(|item| item.id)
        .collect();
    assert_eq!(ids.len(), answered.len() + 1);
    assert!(answered.is_subset(&ids));

    // Nothing is told twice, and nothing happens any more.
    let last = project.submit_plain("rust").await?;
    signals.work(WorkEventKind::Completed, last).await?;
    let told: HashSet<_> = signals
        .told()
        .iter()
        .map(loom_protocol::event::Event::name)
        .collect();
    assert!(!told.contains("work:retried"), "{told:?}");
    Ok(())
}

/// Every item as JSON, for a comparison before and after.
async fn everything(project: &TestProject) -> Result<Vec<serde_json::Value>> {
    let mut all = Vec::new();
    for item in project.all_work().await? {
        all.push(
            project
                .request("work.get", json!({ "id": item.id }))
                .await?,
        );
    }
    Ok(all)
}

/// Its entry is gone, so that no clock of the agent's is left to tell: whoever has begun to take its
/// leases back has to end it.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_leases_of_an_agent_that_left_while_nats_was_away_go_back_afterwards() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    let parts = project.parts()?;
    let service = fleet.service()?;
    let is_away = async || (!service.projects().terms().nats.is_up()).then_some(());
    fleet.nats().stop().await?;
    project.eventually("NATS is away", is_away).await?;
    let leases = Leases::of(&parts.work, &parts.ledger);
    let (guid, why) = (agent.guid(), Reason::Released);
    leases.clone().revoke_in_background(guid, why);
    tokio::task::yield_now().await;
    assert_eq!(leases.revoke(guid, why, |_| true).await?, [], "not now");
    fleet.nats().restart().await?;
    let goes_back = async || {
        let header = parts.work.header(id)?;
        (header.status == WorkStatus::Pending).then_some(())
    };
    project.eventually("it goes back", goes_back).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_leases_of_an_agent_that_left_while_no_coordinator_ran_go_back_at_the_start()
-> Result<()> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    agent.start(&item).await?;
    let guid = agent.guid();
    agent.die();
    fleet.crash().await?;
    let bucket = project.agents_bucket().await?;
    bucket.delete(guid.to_string()).await?;
    fleet.start_again().await?;
    let goes_back = async || {
        let item = project.work(id).await.ok()?;
        (item.status == WorkStatus::Pending).then_some(item)
    };
    let item = project.eventually("it goes back", goes_back).await?;
    assert_eq!(item.attempts, 1, "{item:?}");
    Ok(())
}
