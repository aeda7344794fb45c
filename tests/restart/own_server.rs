//! `kill -9` of a coordinator with a nats-server of its own.

use loom_protocol::work::WorkStatus;

use crate::world::{Hand, World, all_items, submit};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_with_its_own_server_it_comes_back_where_it_was() {
    let mut world = World::with_its_own_server().await;
    let url = world.loom.nats_url().to_owned();
    let client = world.client().await;
    let agent = Hand::register(&client, 3).await;
    for number in 0..20 {
        submit(&client, &format!("item {number}")).await;
    }
    let done = agent.claim_one().await;
    agent.complete(&done, "before").await.unwrap();
    let started = agent.claim_one().await;
    agent.start(&started).await;
    let assigned = agent.claim_one().await;
    let before = all_items(&client, None).await;

    for _ in 0..2 {
        world.crash().await;
        assert_eq!(world.loom.nats_url(), url, "agents find it where it was");
        assert_eq!(all_items(&client, None).await, before);
    }

    agent.complete(&started, "after").await.unwrap();
    agent.complete(&assigned, "after").await.unwrap();
    let completed = all_items(&client, Some(WorkStatus::Completed)).await;
    assert_eq!(completed.len(), 3);
    assert!(world.loom.terminate().await.unwrap().success());
}
