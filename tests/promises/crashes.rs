use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use loom_actors::leases::Leases;
use loom_client::{Agent, Client, ClientOptions, Job, JobError, JobResult, NewWork};
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{ClaimedItem, Reason, WorkStatus};
use loom_protocol::{ErrorCode, WireError, WorkId};
use loom_testkit::agent::Behaviour;
use loom_testkit::fleet::{Fleet, PATIENCE, Role, TestProject};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const ITEMS: usize = 200;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_of_the_ledger_in_the_middle_loses_nothing() -> Result<()> {
    survives_the_death_of(&[Role::WorkLedger]).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_of_the_dispatcher_in_the_middle_loses_nothing() -> Result<()> {
    survives_the_death_of(&[Role::WorkDispatcher]).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_of_the_registry_in_the_middle_loses_nothing() -> Result<()> {
    survives_the_death_of(&[Role::AgentRegistry]).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_of_all_actors_in_the_middle_loses_nothing() -> Result<()> {
    survives_the_death_of(&Role::ALL).await
}

/// Submits and works off items while actors are killed again and again. Every submit that was answered exists exactly
/// once, and everything is completed exactly once.
async fn survives_the_death_of(roles: &[Role]) -> Result<()> {
    const DEATHS: usize = 3;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut agents = Vec::new();
    for _ in 0..4 {
        let agent = project
            .agent("rust")
            .slots(4)
            .behaviour(Behaviour::Diligent);
        agents.push(agent.spawn().await?);
    }
    let mut submits = JoinSet::new();
    let mut deaths = 0;
    for n in 0..ITEMS {
        submits.spawn(submit_surely(project.clone(), n));
        // So that each death meets submits and claims on their way.
        if n % (ITEMS / DEATHS) == ITEMS / DEATHS / 2 {
            for role in roles {
                project.wait_until_restarted(*role, deaths).await?;
                project.kill(*role)?;
            }
            deaths += 1;
        }
    }
    let mut answered = HashSet::new();
    while let Some(submitted) = submits.join_next().await {
        assert!(answered.insert(submitted??), "an id was given out twice");
    }
    assert_eq!(answered.len(), ITEMS);

    let completed = project.eventually("all items are completed", async || {
        let all = project.all_work().await.ok()?;
        let ended = all.iter().all(|item| item.status == WorkStatus::Completed);
        ended.then_some(all)
    });
    let items = completed.await?;
    let ids: HashSet<_> = items.iter().map(|item| item.id).collect();
    assert_eq!(
        (ids.len(), items.len()),
        (ITEMS, ITEMS),
        "an item is there twice"
    );
    assert_eq!(ids, answered);
    // A lease whose answer got lost is found again by its name, so that nothing was done twice.
    assert!(
        items
            .iter()
            .all(|item| item.attempt == 1 && item.attempts == 0)
    );
    let mut reported: Vec<_> = agents
        .iter()
        .flat_map(|agent| agent.done().completed)
        .collect();
    reported.sort_unstable();
    reported.dedup();
    assert_eq!(reported.len(), ITEMS);
    for role in roles {
        assert!(project.restarts(*role)? > 0, "{role:?} was never killed");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_dispatcher_that_dies_with_the_news_of_an_end_leaves_nobody_busy() -> Result<()> {
    const DEATHS: u64 = 4;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(4).spawn().await?;
    for death in 1..=DEATHS {
        project.submit_plain("rust").await?;
        let item = agent.claim_one().await?;
        assert_eq!(agent.seen().await?.current_task_count, 1);
        // The ledger takes the end in while nobody hears of it.
        project.kill(Role::WorkDispatcher)?;
        agent.complete(&item, "done").await?;
        project
            .wait_until_restarted(Role::WorkDispatcher, death)
            .await?;
        assert_eq!(agent.seen().await?.current_task_count, 0, "death {death}");
    }
    Ok(())
}

/// An id of its own makes a submit safe to repeat.
async fn submit_surely(project: TestProject, n: usize) -> Result<WorkId, WireError> {
    let id = WorkId::generate();
    let item = json!({"id": id, "description": format!("item {n}"), "capability": "rust"});
    let answer = project.insist("work.submit", item).await?;
    assert_eq!(answer["id"], json!(id));
    Ok(id)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_cancel_that_counted_before_the_ledger_died_is_no_second_one() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let ids = try_join_all((0..ITEMS).map(|_| project.submit_plain("rust"))).await?;
    let mut cancels = JoinSet::new();
    for (n, id) in ids.iter().copied().enumerate() {
        let canceller = project.clone();
        cancels.spawn(async move { canceller.request("work.cancel", json!({ "id": id })).await });
        if n == ITEMS / 2 {
            project.kill(Role::WorkLedger)?;
        }
    }
    while let Some(cancelled) = cancels.join_next().await {
        assert_eq!(cancelled??["status"], "cancelled");
    }
    let second = project
        .request("work.cancel", json!({ "id": ids[0] }))
        .await;
    let second = second.err().map(|error| error.code);
    assert_eq!(second, Some(ErrorCode::TerminalState));
    Ok(())
}

/// The claim of an idle agent is lost with the coordinator, and nobody answers it. It waits for as long as a heartbeat's
/// interval, 10 s.
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
async fn a_waiting_claim_outlives_the_dispatcher() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let waiting = agent.claim(json!({"waitMs": 20_000}));
    let meanwhile = async {
        project.kill(Role::WorkDispatcher)?;
        project
            .wait_until_restarted(Role::WorkDispatcher, 1)
            .await?;
        anyhow::Ok(project.submit_plain("rust").await?)
    };
    let (items, id) = timeout(PATIENCE, async { tokio::join!(waiting, meanwhile) }).await?;
    assert_eq!(items?[0].work_item.id, id?);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_killed_actor_hurts_no_other_project() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (hurt, well) = (fleet.project().await?, fleet.project().await?);
    for project in [&hurt, &well] {
        project.submit_plain("rust").await?;
    }
    for role in Role::ALL {
        hurt.kill(role)?;
    }
    well.submit_plain("rust").await?;
    for role in Role::ALL {
        hurt.wait_until_restarted(role, 1).await?;
        assert_eq!(well.restarts(role)?, 0);
    }
    assert_eq!(hurt.all_work().await?.len(), 1);
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
    let leases = |items: &[ClaimedItem]| -> Vec<_> {
        items
            .iter()
            .map(|item| (item.work_item.id, item.lease.attempt))
            .collect()
    };
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
