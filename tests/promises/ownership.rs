use std::time::Duration;

use anyhow::Result;
use futures_util::{FutureExt as _, StreamExt as _};
use loom_actors::nats::owner::{Identity, LeaseTimes, OwnerLease, OwnerOptions};
use loom_coordinator::doors::nats::NatsDoor;
use loom_testkit::fleet::Fleet;
use loom_testkit::nats::TestNats;
use serde_json::json;

/// It was frozen, and is given on waking what was asked meanwhile.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn whose_ownership_is_over_answers_nothing() -> Result<()> {
    let fleet = Fleet::own().await?;
    let (elsewhere, dir) = (TestNats::start().await?, tempfile::tempdir()?);
    let jetstream = async_nats::jetstream::new(async_nats::connect(elsewhere.url()).await?);
    let options = OwnerOptions {
        times: LeaseTimes {
            ttl: Duration::from_secs(30),
            renew_every: Duration::from_secs(20),
            keep_for: Duration::from_millis(200),
        },
        ..OwnerOptions::default()
    };
    let identity = Identity::of_data_directory(dir.path())?;
    let lease = OwnerLease::acquire_with(&jetstream, identity, false, options).await?;
    lease.lost().await;

    let client = async_nats::connect(fleet.nats().url()).await?;
    let (service, ownership) = (fleet.service()?, lease.ownership());
    let former = NatsDoor::open(client.clone(), service, "former", ownership).await;
    let former = former.map_err(anyhow::Error::from_boxed)?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await?;
    for number in 0..50 {
        let ask = json!({"guid": agent.guid()}).to_string();
        let reply = format!("{inbox}.{number}");
        let subject = loom_protocol::names::request(project.id(), "agents.heartbeat");
        client
            .publish_with_reply(subject, reply, ask.into())
            .await?;
    }
    for _ in 0..50 {
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await?;
        assert!(answer.is_some());
    }
    // What it had been given before this has been read by now.
    former.close().await;
    client.flush().await?;
    agent.heartbeat(json!({})).await?;
    let more = answers.next().now_or_never();
    assert!(more.is_none(), "{more:?}");
    Ok(())
}
