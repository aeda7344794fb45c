//! `kill -9` between any two steps of an item's life: the same state after it, and the item goes on.

use std::pin::pin;
use std::time::Duration;

use loom_client::NewWork;
use loom_protocol::agent::DirectiveKind;
use loom_protocol::work::{Reason, WorkItem, WorkStatus};
use loom_protocol::{ErrorCode, Timestamp, WorkId};
use serde_json::json;

use crate::world::{Hand, World, all_items, refused_with, soon, submit, until};

/// After which step the coordinator is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Register,
    Submit,
    Claim,
    Start,
    Progress,
    Complete,
}

/// One item from its submission to its completion, by one agent, with one crash.
async fn an_item_goes_on(crash: After) {
    let mut world = World::new().await;
    let client = world.client().await;
    let agent = Hand::register(&client, 1).await;
    let known = client.agent(agent.guid.to_string()).await.unwrap();
    if crash == After::Register {
        world.crash().await;
        let after = client.agent(agent.guid.to_string()).await.unwrap();
        assert_eq!(after.registered_at, known.registered_at);
    }

    let work = NewWork::new("rust", "survives").priority(7).label("k", "v");
    let work = work.context(&json!({"deep": [1, 2.5, "ü"]})).unwrap();
    let id = client.submit(&work).await.unwrap().id;
    crash_if(crash == After::Submit, &mut world, id).await;

    let claimed = agent.claim_one().await;
    assert_eq!((claimed.work_item.id, claimed.lease.attempt), (id, 1));
    assert_eq!(
        &claimed.work_item.context_data,
        &work.request().context_data
    );
    crash_if(crash == After::Claim, &mut world, id).await;

    agent.start(&claimed).await;
    crash_if(crash == After::Start, &mut world, id).await;

    agent.progress(&claimed, 40.0).await;
    crash_if(crash == After::Progress, &mut world, id).await;

    let beat = agent.heartbeat(&[&claimed]).await;
    assert!(beat.ok && beat.lost.is_empty(), "{beat:?}");
    agent.complete(&claimed, "done").await.unwrap();
    crash_if(crash == After::Complete, &mut world, id).await;

    // The same report once more gets the same answer, and changes nothing.
    agent.complete(&claimed, "done again").await.unwrap();
    let items = all_items(&client, None).await;
    assert_eq!(items.len(), 1);
    let item = client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempt), (WorkStatus::Completed, 1));
    assert_eq!(item.result.unwrap().summary.as_deref(), Some("done"));
    assert!(agent.claim(1, Duration::ZERO).await.is_empty());
}

async fn crash_if(now: bool, world: &mut World, id: WorkId) {
    if now {
        let client = world.client().await;
        let before = client.get(id).await.unwrap();
        world.crash().await;
        let after = client.get(id).await.unwrap();
        assert_eq!(but_for_own_writes(after), but_for_own_writes(before));
    }
}

/// Progress is written down rarely, so a crash may take the last report of it. That the dead letter of a failed item is in its
/// stream is written down at any moment, before the crash or after it.
fn but_for_own_writes(item: WorkItem) -> WorkItem {
    let has_letter = item.status == WorkStatus::Failed;
    WorkItem {
        progress: None,
        progress_message: None,
        updated_at: Timestamp::default(),
        revision: if has_letter { 0 } else { item.revision },
        ..item
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_registration() {
    an_item_goes_on(After::Register).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_submit() {
    an_item_goes_on(After::Submit).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_claim() {
    an_item_goes_on(After::Claim).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_start() {
    an_item_goes_on(After::Start).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_progress() {
    an_item_goes_on(After::Progress).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_completion() {
    an_item_goes_on(After::Complete).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_failure_the_item_is_tried_again() {
    let mut world = World::new().await;
    let client = world.client().await;
    let agent = Hand::register(&client, 1).await;
    let id = submit(&client, "fails once").await;
    let first = agent.claim_one().await;
    let why = json!({"error": {"message": "the disk is full"}});
    agent.report("fail", &first, why.clone()).await.unwrap();
    crash_if(true, &mut world, id).await;

    let again = agent.report("fail", &first, why).await;
    assert_eq!(
        again.unwrap()["attempts"],
        1,
        "a repeated report counts once"
    );
    let stale = agent.complete(&first, "too late").await;
    assert_eq!(refused_with(stale), ErrorCode::StaleLease);

    let mut second = agent.claim(1, Duration::from_secs(30)).await;
    let second = second.remove(0);
    assert_eq!((second.work_item.id, second.lease.attempt), (id, 2));
    agent.complete(&second, "at the second try").await.unwrap();
    let item = client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempts), (WorkStatus::Completed, 1));
    assert_eq!(item.errors[0].message, "the disk is full");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_release_another_agent_takes_the_item() {
    let mut world = World::new().await;
    let client = world.client().await;
    let first = Hand::register(&client, 1).await;
    let id = submit(&client, "not for me").await;
    let claimed = first.claim_one().await;
    let released = first.report("release", &claimed, json!({})).await;
    assert_eq!(released.unwrap()["status"], "pending");
    crash_if(true, &mut world, id).await;

    let second = Hand::register(&client, 1).await;
    let claimed = second.claim_one().await;
    assert_eq!(claimed.lease.attempt, 2);
    second.complete(&claimed, "for me").await.unwrap();
    let item = client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempts), (WorkStatus::Completed, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_a_cancel_the_agent_is_still_told() {
    let mut world = World::new().await;
    let client = world.client().await;
    let agent = Hand::register(&client, 1).await;
    let id = submit(&client, "called off").await;
    let claimed = agent.claim_one().await;
    agent.start(&claimed).await;
    client.cancel(id, "not needed").await.unwrap();
    world.crash().await;

    let item = client.get(id).await.unwrap();
    assert_eq!(item.status, WorkStatus::Cancelled);
    assert_eq!(item.cancel.unwrap().reason.as_deref(), Some("not needed"));
    let late = agent.complete(&claimed, "too late").await;
    assert!(matches!(
        refused_with(late),
        ErrorCode::StaleLease | ErrorCode::TerminalState
    ));
    // It learns that the lease is over: by the directive, or by the list of the lost.
    let beat = agent.heartbeat(&[&claimed]).await;
    let told = beat.directives.iter().any(|directive| {
        directive.kind == DirectiveKind::Cancel && directive.work_item_id == Some(id)
    });
    let lost = beat.lost.iter().any(|lost| lost.id == id);
    assert!(told || lost, "{beat:?}");
    agent.report("stopped", &claimed, json!({})).await.unwrap();
    submit(&client, "the next").await;
    let next = until(
        "the slot is free again",
        || agent.claim(1, Duration::ZERO),
        |items| !items.is_empty(),
    );
    assert_eq!(next.await[0].work_item.description, "the next");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_after_the_last_attempt_has_failed() {
    let mut world = World::new().await;
    let client = world.client().await;
    let agent = Hand::register(&client, 1).await;
    let id = submit(&client, "hopeless").await;
    let claimed = agent.claim_one().await;
    let why = json!({"error": "never", "recoverable": false});
    agent.report("fail", &claimed, why).await.unwrap();
    crash_if(true, &mut world, id).await;
    let item = client.get(id).await.unwrap();
    assert_eq!(item.status, WorkStatus::Failed);
    assert_eq!(item.error.unwrap().reason, Reason::AgentError);
    assert!(agent.claim(1, Duration::ZERO).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_while_a_claim_waits() {
    let mut world = World::new().await;
    let client = world.client().await;
    let agent = Hand::register(&client, 1).await;
    let mut claiming = pin!(agent.claim(1, Duration::from_secs(30)));
    // An answer to a request that was sent after the claim: the coordinator has the claim.
    tokio::select! {
        biased;
        items = &mut claiming => panic!("there was nothing to claim, and yet: {items:?}"),
        items = all_items(&client, None) => assert!(items.is_empty()),
    }
    world.crash().await;

    let id = submit(&client, "for the one that waits").await;
    let items = soon("the claim is answered", claiming).await;
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].work_item.id, items[0].lease.attempt), (id, 1));
    agent.complete(&items[0], "done").await.unwrap();
}
