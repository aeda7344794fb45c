//! `webhook`: a service that verifies the signature, and starts the agent with what stands in the body.

use anyhow::{Result, ensure};
use loom_testkit::outside::Outside;
use loom_testkit::webhook::TestReceiver;
use serde_json::json;

use crate::house::{House, LOOM};

/// What both know.
const KEY: &str = "a key of the receiver and of the coordinator";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_receiver_of_a_webhook_starts_the_agent_that_was_ordered() -> Result<()> {
    let house = House::open(&[("KEY_OF_THE_RECEIVER", KEY)]).await?;
    let words = house.agent(&[]);
    let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let agents = Outside::new(LOOM, &words)?;
    let receiver = TestReceiver::that_starts(agents.clone(), KEY).await?;
    let config = json!({"url": receiver.url("/agents"), "secretEnvVar": "KEY_OF_THE_RECEIVER"});
    house.target("webhook", config).await?;
    let lived = house.work_gets_an_agent().await?;
    house.the_agent_goes(&lived).await?;
    let is_over = async || (agents.running() == 0).then_some(());
    house
        .project
        .eventually("its process has ended", is_over)
        .await?;
    ensure!(agents.started() == 1, "{}", agents.said());
    let orders = receiver.received();
    let orders = orders.iter().filter(|one| one.method == "POST");
    let orders: Vec<&str> = orders.map(|one| one.header("idempotency-key")).collect();
    ensure!(orders == [&*lived.spin_up], "{orders:?}");
    Ok(())
}
