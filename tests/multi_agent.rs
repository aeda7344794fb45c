//! The group "Multi-Agent" of the integration-test document, one test per line, named after it; and each once more
//! with the coordinator killed in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "stage/mod.rs"]
mod stage;

use std::collections::HashSet;

use anyhow::Result;
use futures_util::future::join_all;
use loom_protocol::work::WorkStatus;
use loom_protocol::{ErrorCode, WorkId};
use loom_testkit::agent::Behaviour;
use serde_json::json;

use stage::{Middle, Stage, scenario};

const AGENTS: usize = 8;

scenario!(competing_consumers_for_same_work, middle, {
    const ITEMS: usize = 60;
    let mut stage = Stage::open(middle).await?;
    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        agents.push(stage.agent("rust").spawn().await?);
    }
    // All of them want the only item at the same time.
    let wanted = stage.project.submit_plain("rust").await?;
    let claims = join_all(agents.iter().map(|agent| agent.claim(json!({})))).await;
    let mut winners = Vec::new();
    for (agent, claimed) in agents.iter().zip(claims) {
        winners.extend(claimed?.into_iter().map(|item| (agent, item)));
    }
    assert_eq!(winners.len(), 1, "exactly one gets it");
    let (winner, item) = &winners[0];
    stage.middle().await?;
    winner.complete(item, "by the only one").await?;
    drop(agents);

    // And many items: each is done by exactly one.
    let mut crowd = Vec::new();
    for _ in 0..AGENTS {
        let agent = stage.agent("rust").slots(2).behaviour(Behaviour::Diligent);
        crowd.push(agent.spawn().await?);
    }
    let mut submitted = HashSet::from([wanted]);
    for number in 0..ITEMS {
        let id = WorkId::generate();
        let item = json!({ "id": id, "description": "d", "capability": "rust" });
        stage.project.insist("work.submit", item).await?;
        submitted.insert(id);
        if number == ITEMS / 2 {
            stage.middle().await?;
        }
    }
    let project = stage.project.clone();
    let done = project.eventually("everything is completed", async || {
        let all = project.all_work().await.ok()?;
        let ended = all.iter().all(|item| item.status == WorkStatus::Completed);
        (ended && all.len() == submitted.len()).then_some(all)
    });
    let done = done.await?;
    assert!(done.iter().all(|item| submitted.contains(&item.id)));
    // An agent may still wait for the answer to what is completed already.
    let reported = project.eventually("every completion is answered", async || {
        let of_all = crowd.iter().flat_map(|agent| agent.done().completed);
        let reported: Vec<WorkId> = of_all.collect();
        (reported.len() >= ITEMS).then_some(reported)
    });
    let mut reported = reported.await?;
    let reports = reported.len();
    reported.sort_unstable();
    reported.dedup();
    assert_eq!(
        (reported.len(), reports),
        (ITEMS, ITEMS),
        "each by exactly one"
    );
    Ok(())
});

scenario!(agent_failover_during_work_execution, middle, {
    let mut stage = Stage::open(middle).await?;
    let first = stage.agent("rust").spawn().await?;
    let id = stage.project.submit_plain("rust").await?;
    let item = first.claim_one().await?;
    first.start(&item).await?;
    first.progress(&item, 40).await?;
    let guid = first.guid();
    // It goes in the middle of its work; the next one takes it over at once.
    first.deregister().await?;
    stage.middle().await?;

    let second = stage.agent("rust").spawn().await?;
    let taken_over = stage.claim_one(&second).await?;
    assert_eq!(taken_over.work_item.id, id);
    assert!(taken_over.lease.attempt > item.lease.attempt);
    // What the first one still says about it does not count any more.
    let late = json!({ "id": id, "guid": guid, "attempt": item.lease.attempt });
    let refused = stage
        .project
        .request("work.complete", late)
        .await
        .unwrap_err();
    assert!(
        [ErrorCode::StaleLease, ErrorCode::NotRegistered].contains(&refused.code),
        "{refused}"
    );
    second.complete(&taken_over, "by the second").await?;
    let item = stage.project.work(id).await?;
    assert_eq!(item.status, WorkStatus::Completed);
    assert_eq!(item.assigned_to, Some(second.guid()));
    Ok(())
});

scenario!(
    agent_failover_after_a_death_during_work_execution,
    middle,
    {
        let mut stage = Stage::open(middle).await?;
        let first = stage
            .agent("rust")
            .behaviour(Behaviour::Hold)
            .spawn()
            .await?;
        let second = stage
            .agent("rust")
            .behaviour(Behaviour::Stall)
            .spawn()
            .await?;
        let id = stage.project.submit_plain("rust").await?;
        let lease = first.wait_until_claimed(1).await?.claimed[0];
        let begun = json!({ "id": id, "guid": first.guid(), "attempt": lease.attempt });
        stage.project.request("work.start", begun).await?;
        second.behave(Behaviour::Diligent);
        first.die();
        stage.middle().await?;

        second.wait_until_completed(id).await?;
        let item = stage.project.work(id).await?;
        assert_eq!(item.assigned_to, Some(second.guid()));
        // The death cost an attempt.
        assert_eq!((item.attempts, item.attempt), (1, lease.attempt + 1));
        Ok(())
    }
);
