//! Many clients submit for one need at once while the coordinator dies, or another one takes over: exactly as many agents
//! are started as may be.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use loom_protocol::WorkId;
use loom_protocol::target::SpinUpStatus;
use loom_testkit::births::{Place, a_while, operations};
use loom_testkit::fleet::{Fleet, PATIENCE, TestProject};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::births::let_register;
use crate::{get, register};

const CLIENTS: usize = 10;
const ITEMS_EACH: usize = 10;

/// What happens in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Middle {
    /// The coordinator dies as by `kill -9`, and is started again; once more when the first agent was started.
    Killed,
    /// It stands still for longer than its ownership, another one takes over, and the first one goes on.
    TakenOver,
}

/// Submits on and on, as a client does whose answers are lost. The id makes it the same item.
async fn submit_insistently(
    client: &TestProject,
    answered: &watch::Sender<usize>,
) -> Result<WorkId> {
    let id = WorkId::generate();
    let item = json!({"id": id, "description": "d", "capability": "rust"});
    loop {
        match client.request("work.submit", item.clone()).await {
            Err(error) if error.code.is_transient() => {}
            outcome => {
                outcome?;
                answered.send_modify(|answered| *answered += 1);
                return Ok(id);
            }
        }
        // deliberate sleep: a client pauses before it asks again
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// All items of all clients, at once.
async fn submit_all(project: TestProject, answered: watch::Sender<usize>) -> Result<usize> {
    let clients = try_join_all((0..CLIENTS).map(|_| project.another_connection())).await?;
    let all = clients.iter().flat_map(|client| {
        let answered = &answered;
        (0..ITEMS_EACH).map(move |_| submit_insistently(client, answered))
    });
    let submitted = join_all(all)
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(submitted.len())
}

/// So many agents may be, and it happens when so many submissions were answered.
async fn exactly(most: u32, after: usize, middle: Middle) -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", most)).await?;
    let (answered, mut answers) = watch::channel(0);
    let submitting = tokio::spawn(submit_all(project.clone(), answered));
    timeout(PATIENCE, answers.wait_for(|count| *count >= after)).await??;
    let former = match middle {
        Middle::Killed => {
            fleet.crash().await?;
            fleet.start_again().await?;
            None
        }
        Middle::TakenOver => Some(fleet.replace().await?),
    };
    if let Some(former) = &former {
        former.go_on();
    }
    let submitted = timeout(PATIENCE, submitting).await???;
    assert_eq!(submitted, CLIENTS * ITEMS_EACH);
    place.started(&project, 1).await?;
    if middle == Middle::Killed {
        fleet.crash().await?;
        fleet.start_again().await?;
        project.insist("targets.list", json!({})).await?;
    }
    let count = usize::try_from(most)?;
    let agents = let_register(&project, &place, count).await;
    let agents = agents.with_context(|| {
        let (processes, operations) = (place.processes(), operations(&project));
        format!("{processes:?} {operations:?}")
    })?;
    a_while().await;
    ensure!(place.living().len() == count, "{:?}", place.processes());
    let all = operations(&project)?;
    ensure!(
        all.len() == count && all.iter().all(|one| one.status == SpinUpStatus::Success),
        "{all:?}"
    );
    let target = get(&project, "here").await?;
    ensure!(target.use_count == u64::from(most), "{target:?}");
    ensure!(target.current_agent_guids.len() == count, "{target:?}");
    let waiting: Value = project.insist("stats", json!({})).await?;
    ensure!(
        waiting["pending"] == json!(submitted),
        "each item is there once: {waiting}"
    );
    drop((agents, former));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_hundred_submits_by_several_clients_start_exactly_as_many_agents_although_the_coordinator_is_killed()
-> Result<()> {
    for most in [1, 5] {
        for after in [1, 50, 95] {
            let run = exactly(most, after, Middle::Killed).await;
            run.with_context(|| format!("{most} at most, after {after} answers"))?;
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_hundred_submits_by_several_clients_start_exactly_as_many_agents_during_a_takeover()
-> Result<()> {
    let runs = [1, 5].map(|most| async move {
        let run = exactly(most, 50, Middle::TakenOver).await;
        run.with_context(|| format!("{most} at most"))
    });
    try_join_all(runs).await.map(drop)
}
