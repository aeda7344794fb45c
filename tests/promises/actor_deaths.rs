use std::collections::HashSet;

use anyhow::Result;
use futures_util::future::try_join_all;
use loom_protocol::work::{ClaimedItem, WorkStatus};
use loom_protocol::{ErrorCode, WireError, WorkId};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::{Fleet, PATIENCE, Role, TestProject};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

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
    let items = match completed.await {
        Ok(items) => items,
        Err(error) => return Err(error.context(unfinished(&project, &agents).await?)),
    };
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

/// What is left, for whoever has to find out why.
async fn unfinished(project: &TestProject, agents: &[FakeAgent]) -> Result<String> {
    let mut items = project.all_work().await?;
    items.retain(|item| item.status != WorkStatus::Completed);
    let done: Vec<_> = agents.iter().map(FakeAgent::done).collect();
    let known = |id: WorkId| {
        done.iter()
            .any(|done| done.claimed.iter().any(|it| it.id == id))
    };
    let left = items.iter().map(|item| {
        format!(
            "\n{} {:?} attempt {} ({:?}), known to its agent: {}",
            item.id,
            item.status,
            item.attempt,
            item.assigned_to,
            known(item.id)
        )
    });
    Ok(format!(
        "left are {}: {}",
        items.len(),
        left.collect::<String>()
    ))
}

pub(crate) fn leases(items: &[ClaimedItem]) -> Vec<(WorkId, u32)> {
    items
        .iter()
        .map(|item| (item.work_item.id, item.lease.attempt))
        .collect()
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
pub(crate) async fn submit_surely(project: TestProject, n: usize) -> Result<WorkId, WireError> {
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
