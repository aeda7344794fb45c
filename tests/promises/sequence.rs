use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use loom_protocol::names;
use loom_testkit::fleet::Fleet;
use serde_json::{Value, json};

const ROUNDS: usize = 60;
/// How many are sent before the first is answered.
const AT_ONCE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_one_sender_says_without_waiting_is_taken_in_the_order_of_sending() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let client = async_nats::connect(fleet.nats().url()).await?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let (heartbeat, get) = (
        names::request(project.id(), "agents.heartbeat"),
        names::request(project.id(), "agents.get"),
    );
    for round in 0..ROUNDS {
        let said = |number: usize| format!("{round}: {number}");
        for number in 0..AT_ONCE {
            let beat = json!({
                "guid": agent.guid(), "status": "busy", "statusReason": said(number),
            });
            let payload = beat.to_string().into();
            client
                .publish_with_reply(heartbeat.clone(), inbox.clone(), payload)
                .await?;
        }
        for _ in 0..AT_ONCE {
            let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await?;
            let answer: Value =
                serde_json::from_slice(&answer.context("no more answers")?.payload)?;
            assert_eq!(answer["ok"], true, "{answer}");
        }
        let ask = json!({ "guid": agent.guid() }).to_string();
        let seen = client.request(get.clone(), ask.into()).await?;
        let seen: Value = serde_json::from_slice(&seen.payload)?;
        assert_eq!(seen["statusReason"], said(AT_ONCE - 1), "{seen}");
    }
    Ok(())
}
