//! SIGTERM, a second one, and SIGSTOP.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use loom_client::{ErrorKind, NewWork};
use loom_protocol::WorkId;
use loom_protocol::work::{SubmitAnswer, WorkStatus};
use rustix::process::Signal;

use crate::world::{Hand, PATIENCE, PER_TRY, Rest, World, all_items, client_with, soon};

/// Starts submits, and returns when the coordinator has them, while NATS stands still: they are in flight.
async fn submits_in_flight(rest: &Rest, ids: &[WorkId]) -> Vec<tokio::task::JoinHandle<u16>> {
    let submits = ids.iter().map(|id| {
        let (rest, id) = (rest.clone(), *id);
        tokio::spawn(async move { rest.submit(id).await.unwrap() })
    });
    let submits = submits.collect();
    // Requests that are sent later, and answered: those before them have arrived.
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert_eq!(rest.health().await, 200);
    }
    submits
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn sigterm_answers_what_is_in_flight() {
    let mut world = World::new().await;
    let client = client_with(world.loom.nats_url(), PATIENCE).await;
    let agent = Hand::register(&client, 1).await;
    // Claims something else than what is submitted below.
    let mut waiting = pin!(agent.wait_for("nothing", Duration::from_secs(30)));
    tokio::select! {
        biased;
        answer = &mut waiting => panic!("answered already: {answer:?}"),
        _ = all_items(&client, None) => {}
    }
    let rest = Rest::of(&world.loom);
    let ids: Vec<WorkId> = (0..8).map(|_| WorkId::generate()).collect();
    world.nats().pause().unwrap();
    let submits = submits_in_flight(&rest, &ids).await;
    world.loom.signal(Signal::TERM);
    world.loom.until_it_logs("ending").await.unwrap();
    world.nats().resume().unwrap();

    for status in soon("the answers", join_all(submits)).await {
        assert_eq!(status.unwrap(), 201);
    }
    let nothing = soon("the claim is answered", waiting).await;
    assert!(nothing.unwrap().is_empty());
    let ended = world.loom.ended().await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);

    world.loom.restart().await.unwrap();
    let there: Vec<WorkId> = all_items(&client, None)
        .await
        .iter()
        .map(|i| i.id)
        .collect();
    assert_eq!(there.len(), ids.len());
    assert!(ids.iter().all(|id| there.contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_second_signal_ends_at_once() {
    let world = World::new().await;
    let rest = Rest::of(&world.loom);
    world.nats().pause().unwrap();
    let submits = submits_in_flight(&rest, &[WorkId::generate()]).await;
    world.loom.signal(Signal::TERM);
    world.loom.until_it_logs("ending").await.unwrap();
    let began = Instant::now();
    world.loom.signal(Signal::TERM);
    let ended = world.loom.ended().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(ended.stderr.contains("ended at once"), "{}", ended.stderr);
    world.nats().resume().unwrap();
    drop(submits);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn stopped_and_continued_nothing_is_lost() {
    let world = World::new().await;
    let client = world.client().await;
    let agent = Hand::register(&client, 2).await;
    let early = NewWork::new("rust", "before");
    client.submit(&early).await.unwrap();
    let held = agent.claim_one().await;

    world.loom.pause();
    let work: Vec<NewWork> = (0..20).map(|_| NewWork::new("rust", "meanwhile")).collect();
    let mut submits = pin!(join_all(work.iter().map(|work| client.submit(work))));
    let once = client.request_within::<SubmitAnswer>("work.submit", work[0].request(), PER_TRY);
    let unanswered = tokio::select! {
        answers = &mut submits => panic!("a stopped coordinator has answered: {answers:?}"),
        answer = once => answer.unwrap_err().kind(),
    };
    assert_eq!(unanswered, ErrorKind::Timeout);
    world.loom.resume();

    for (answer, work) in soon("the submits", submits).await.iter().zip(&work) {
        assert_eq!(answer.as_ref().unwrap().id, work.id());
    }
    assert_eq!(all_items(&client, None).await.len(), 1 + work.len());
    agent.complete(&held, "kept its lease").await.unwrap();
    let item = client.get(early.id()).await.unwrap();
    assert_eq!((item.status, item.attempt), (WorkStatus::Completed, 1));
}
