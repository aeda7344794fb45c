use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::{Client, HeaderMap, Message, Subscriber};
use futures_util::{FutureExt as _, StreamExt as _};
use loom_actors::nats::owner::{Identity, LeaseTimes, OwnerLease, OwnerOptions, Ownership};
use loom_coordinator::api::nats::{FormerApi, NatsApi};
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::{ErrorCode, WireError, names};
use loom_testkit::fleet::Fleet;
use loom_testkit::nats::TestNats;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

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

/// How often it changes over, with requests coming all the time.
const CHANGES: u64 = 40;
/// How many requests wait for their answers then.
const UNDER_WAY: usize = 64;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn while_an_ownership_follows_another_in_one_process_every_request_is_answered_once()
-> Result<()> {
    let fleet = Fleet::own().await?;
    // Where the coordinator of the fleet takes no requests.
    let elsewhere = TestNats::start().await?;
    let of_the_process = async_nats::connect(elsewhere.url()).await?;
    let client = async_nats::connect(elsewhere.url()).await?;
    let open = async |epoch: u64, former: Option<FormerApi>| {
        let (nats, service, group) = (
            of_the_process.clone(),
            fleet.service()?,
            names::queue_group(epoch),
        );
        let opened = NatsApi::open(nats, service, &group, Ownership::alone(), former).await;
        opened.map_err(anyhow::Error::from_boxed)
    };
    let mut api = open(0, None).await?;
    let changed = CancellationToken::new();
    let asking = tokio::spawn(ask_until(client.clone(), changed.clone()));
    let over = CancellationToken::new();
    over.cancel();
    for epoch in 1..=CHANGES {
        let former = api.outlast(Ownership::alone(), over.clone()).await;
        assert!(former.is_some(), "there is nothing to take over");
        api = open(epoch, former).await?;
    }
    changed.cancel();
    let (asked, mut answers) = asking.await??;
    assert!(asked > CHANGES, "only {asked} requests");
    // What had been delivered before this has been answered by now.
    api.close().await;
    of_the_process.flush().await?;
    client
        .request("coord.global.info", "{}".into())
        .await
        .unwrap_err();
    let more = answers.next().now_or_never();
    assert!(more.is_none(), "answered twice: {more:?}");
    Ok(())
}

/// Asks, with a few requests under way at any time, and sees each of them answered well once. How many it were.
async fn ask_until(client: Client, enough: CancellationToken) -> Result<(u64, Subscriber)> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await?;
    let (mut asked, mut open) = (0, HashSet::new());
    while !(open.is_empty() && enough.is_cancelled()) {
        while open.len() < UNDER_WAY && !enough.is_cancelled() {
            let reply = format!("{inbox}.{asked}");
            open.insert(reply.clone());
            client
                .publish_with_reply("coord.global.info", reply, "{}".into())
                .await?;
            asked += 1;
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await;
        let answer = answer.with_context(|| format!("{} of {asked} have no answer", open.len()))?;
        let answer = answer.context("the answers have ended")?;
        assert_eq!(answer.status, None, "nobody was there: {answer:?}");
        let is_error = |headers: &HeaderMap| headers.get(ERROR_CODE_HEADER).is_some();
        let refused = answer.headers.as_ref().is_some_and(is_error);
        assert!(!refused, "{:?}", String::from_utf8_lossy(&answer.payload));
        let subject = answer.subject.as_str();
        assert!(open.remove(subject), "answered twice: {answer:?}");
    }
    Ok((asked, answers))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_service_is_announced_by_the_owner_with_its_queue_group() -> Result<()> {
    let fleet = Fleet::own().await?;
    let client = async_nats::connect(fleet.nats().url()).await?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(format!("{inbox}.*")).await?;
    for what in ["PING", "INFO", "STATS"] {
        let (subject, reply) = (format!("$SRV.{what}.loom"), format!("{inbox}.{what}"));
        client.publish_with_reply(subject, reply, "".into()).await?;
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await?;
        let answer = answer.context("the answers have ended")?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        assert_eq!(answer["name"], "loom", "{answer}");
        if what != "PING" {
            let info = client.request("coord.global.info", "{}".into()).await?;
            let info: Value = serde_json::from_slice(&info.payload)?;
            let group = format!("loom-{}", info["epoch"]);
            assert_eq!(answer["endpoints"][0]["queue_group"], group, "{answer}");
            assert_eq!(answer["endpoints"][0]["subject"], "coord.>");
        }
    }
    assert!(answers.next().now_or_never().is_none(), "by two");
    Ok(())
}

/// What a former owner with a door of its own answers, where the owner answers everything well.
async fn answers_beside_the_owners(fleet: &Fleet, ownership: Ownership) -> Result<Vec<Message>> {
    let client = async_nats::connect(fleet.nats().url()).await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let service = fleet.service()?;
    let former = NatsApi::open(client.clone(), service, "former", ownership, None).await;
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
