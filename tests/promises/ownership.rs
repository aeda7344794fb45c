use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::{HeaderMap, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use loom_actors::nats::owner::{Identity, LeaseTimes, OwnerLease, OwnerOptions, Ownership};
use loom_coordinator::api::nats::NatsApi;
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::{ErrorCode, WireError};
use loom_testkit::fleet::Fleet;
use loom_testkit::nats::TestNats;
use serde_json::json;

const ASKED: usize = 50;

/// It was frozen, and is given on waking what was asked meanwhile: by everybody, so that the owner answers too.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn whose_ownership_is_over_answers_nothing_where_another_owns() -> Result<()> {
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
    let lease = OwnerLease::acquire_with(&jetstream, identity, false, options.clone()).await?;
    lease.lost().await;
    let ownership = lease.ownership();

    // Nobody else was asked: who asks must not wait for nothing.
    let refused = answers_beside_the_owners(&fleet, ownership.clone()).await?;
    assert_eq!(refused.len(), ASKED);
    for answer in refused {
        let error: WireError = serde_json::from_slice(&answer.payload)?;
        assert_eq!(error.code, ErrorCode::Unavailable);
    }

    lease.release().await;
    let other = tempfile::tempdir()?;
    let identity = Identity::of_data_directory(other.path())?;
    let _other = OwnerLease::acquire_with(&jetstream, identity, false, options).await?;
    let more = answers_beside_the_owners(&fleet, ownership).await?;
    assert!(more.is_empty(), "{more:?}");
    Ok(())
}

/// What a former owner with a door of its own answers, where the owner answers everything well.
async fn answers_beside_the_owners(fleet: &Fleet, ownership: Ownership) -> Result<Vec<Message>> {
    let client = async_nats::connect(fleet.nats().url()).await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let service = fleet.service()?;
    let former = NatsApi::open(client.clone(), service, "former", ownership).await;
    let former = former.map_err(anyhow::Error::from_boxed)?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await?;
    for number in 0..ASKED {
        let ask = json!({"guid": agent.guid()}).to_string();
        let reply = format!("{inbox}.{number}");
        let subject = loom_protocol::names::request(project.id(), "agents.heartbeat");
        client
            .publish_with_reply(subject, reply, ask.into())
            .await?;
    }
    let (mut well, mut others) = (0, Vec::new());
    while well < ASKED {
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await?;
        let answer = answer.context("the answers have ended")?;
        let is_error = |headers: &HeaderMap| headers.get(ERROR_CODE_HEADER).is_some();
        if answer.headers.as_ref().is_some_and(is_error) {
            others.push(answer);
        } else {
            well += 1;
        }
    }
    // What it had been given before this has been answered by now.
    former.close().await;
    client.flush().await?;
    agent.heartbeat(json!({})).await?;
    while let Some(Some(answer)) = answers.next().now_or_never() {
        others.push(answer);
    }
    Ok(others)
}
