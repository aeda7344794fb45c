//! NATS is away while the coordinator lives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use loom_client::{Agent, Job, JobError, JobResult};
use loom_protocol::WorkId;
use loom_protocol::work::WorkStatus;
use tokio::sync::watch;

use crate::world::{Hand, Rest, World, all_items, soon, submit, until};

/// A write is answered within 3 s while NATS is away; the rest is for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_millis(4_500);
const CREATED: u16 = 201;
const UNAVAILABLE: u16 = 503;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn nats_killed_while_submits_are_under_way() {
    let world = World::new().await;
    let rest = Rest::of(&world.loom);
    let (answers, seen) = watch::channel(BTreeMap::<u16, usize>::new());
    let (last, over) = watch::channel(false);
    let submitting = async {
        let mut statuses = BTreeMap::new();
        while !*over.borrow() {
            let id = WorkId::generate();
            let began = Instant::now();
            let status = rest.submit(id).await.unwrap();
            assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
            statuses.insert(id, status);
            answers.send_modify(|answers| *answers.entry(status).or_default() += 1);
        }
        statuses
    };
    let count = async |status, more: usize| {
        let mut seen = seen.clone();
        let from = seen.borrow().get(&status).copied().unwrap_or(0);
        let enough = |answers: &BTreeMap<u16, usize>| answers.get(&status) >= Some(&(from + more));
        soon("enough answers", seen.wait_for(enough)).await.unwrap();
    };
    let outage = async {
        count(CREATED, 20).await;
        world.nats().kill().await.unwrap();
        count(UNAVAILABLE, 3).await;
        assert_eq!(rest.ready().await, UNAVAILABLE);
        world.nats().restart().await.unwrap();
        count(CREATED, 20).await;
        last.send_replace(true);
    };
    let (statuses, ()) = tokio::join!(submitting, outage);

    let client = world.client().await;
    let there = all_items(&client, None).await;
    for (id, status) in &statuses {
        let times = there.iter().filter(|item| item.id == *id).count();
        match *status {
            CREATED => assert_eq!(times, 1, "{id} was answered"),
            UNAVAILABLE => assert!(times <= 1, "{id}"),
            other => panic!("{id} was answered with {other}"),
        }
    }
    // The same ids again: whatever was in doubt is there now, once.
    for (id, _) in statuses
        .iter()
        .filter(|(_, status)| **status == UNAVAILABLE)
    {
        assert_eq!(rest.submit(*id).await.unwrap(), CREATED);
    }
    assert_eq!(all_items(&client, None).await.len(), statuses.len());
    let agent = Hand::register(&client, 1).await;
    let claimed = agent.claim_one().await;
    agent.complete(&claimed, "afterwards").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn ownership_is_won_again_after_a_long_outage() {
    let world = World::new().await;
    let rest = Rest::of(&world.loom);
    let client = world.client().await;
    let (finish, may_finish) = watch::channel(false);
    let work = move |_: Job| {
        let mut may_finish = may_finish.clone();
        async move {
            may_finish.wait_for(|now| *now).await.unwrap();
            Ok::<_, JobError>(JobResult::summary("worked through it"))
        }
    };
    let agent = Agent::builder(&client).capability("rust");
    let agent = agent.start(work).unwrap();
    let id = submit(&client, "a long one").await;
    let status = async || client.get(id).await.unwrap().status;
    let started = |status: &WorkStatus| *status == WorkStatus::InProgress;
    until("the agent works", &status, started).await;

    world.nats().kill().await.unwrap();
    world
        .loom
        .until_it_logs("the ownership is lost (")
        .await
        .unwrap();
    assert_eq!(rest.ready().await, UNAVAILABLE);
    world.nats().restart().await.unwrap();
    until("it owns again", || rest.ready(), |status| *status == 200).await;

    finish.send_replace(true);
    let ended = |status: &WorkStatus| status.is_terminal();
    until("the item ends", &status, ended).await;
    let item = client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempt), (WorkStatus::Completed, 1));
    submit(&client, "goes on").await;
    drop(agent);
}
