//! What a person who watches `loom agent run` is told at its default log level.

use loom_client::NewWork;
use loom_protocol::AgentGuid;
use loom_protocol::agent::{Agent, GuidRequest, ShutdownRequest};
use loom_protocol::work::WorkStatus;

use crate::house::House;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_pause_its_end_an_order_to_end_and_a_cancel_are_told() {
    let house = House::open().await;
    let guid = AgentGuid::generate();
    let (began, text) = (house.path("began"), guid.to_string());
    let mut agent = house.watched_agent(
        &[
            "--guid",
            &text,
            "--limit-pattern",
            "fuel until (?<reset>.+)",
        ],
        &format!(
            "case $1 in limit) echo fuel until 2 hours; exit 1;; esac; echo > {began}; sleep 300"
        ),
    );
    let limited = house.submit("limit").await;
    let told = house.said("takes no work for now").await;
    assert!(told.contains("paused until 20"), "{told}");
    assert!(
        told.contains(&format!("`loom agents resume {guid}`")),
        "{told}"
    );
    let log = house.said("a usage limit is met").await;
    assert!(
        log.contains("until=20") && !log.contains("Timestamp("),
        "{log}"
    );

    house.client.cancel(limited, "not now").await.unwrap();
    let request = GuidRequest { guid: text.clone() };
    let _: Agent = house
        .client
        .request("agents.resume", &request)
        .await
        .unwrap();
    house.said("takes work again").await;

    let long = house.submit("long").await;
    house.word("began").await;
    let request = ShutdownRequest {
        guid: text,
        graceful: Some(true),
        grace_period_ms: Some(60_000),
        reason: Some("enough for today\u{1b}[2J\nagent other ended".into()),
    };
    let _: Agent = house
        .client
        .request("agents.shutdown", &request)
        .await
        .unwrap();
    let told = house.said("takes no more work").await;
    assert!(
        told.contains(r"enough for today\u001b[2J\nagent other ended") && told.contains("1m"),
        "{told}"
    );

    house.client.cancel(long, "called off").await.unwrap();
    assert!(agent.ended().await.success());
    let told = house.said("agent ended").await;
    assert!(told.ends_with("1 cancelled, 1 given back"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_pause_that_is_cut_is_told_as_it_is() {
    let house = House::open().await;
    let pattern = ["--limit-pattern", "fuel until (?<reset>.+)"];
    let _agent = house.watched_agent(&pattern, "echo fuel until 60 days; exit 1");
    house.submit("limit").await;
    let log = house.said("a usage limit is met").await;
    assert!(
        log.contains("no pause is longer than 31 days") && log.contains("named=20"),
        "{log}"
    );
    let day = |text: &str, before: &str| {
        let (_, after) = text.split_once(before).unwrap();
        after.chars().take(10).collect::<String>()
    };
    let told = house.said("takes no work for now").await;
    assert_eq!(day(&log, "until="), day(&told, "paused until "));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_quarantine_is_told_with_what_ends_it() {
    let house = House::with(&[("agents.quarantine_after", "1")]).await;
    let guid = AgentGuid::generate();
    let _agent = house.watched_agent(&["--guid", &guid.to_string()], "exit 1");
    house.submit("broken").await;
    let told = house.said("quarantined").await;
    assert!(told.contains("takes no work for now"), "{told}");
    assert!(
        told.contains(&format!("`loom agents resume {guid}`")),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_waits_because_nothing_fits_says_so() {
    let house = House::with(&[("agents.heartbeat_every", "1s")]).await;
    let elsewhere = NewWork::new("c", "elsewhere").boundary("vault");
    let id = house.client.submit(&elsewhere).await.unwrap().id;
    let mut agent = house.watched_agent(&["--once"], "true");
    let told = house.said("waits").await;
    assert!(told.contains("1 item is pending"), "{told}");
    assert!(
        told.contains("boundaries default") && told.contains("loom work explain"),
        "{told}"
    );
    assert_eq!(
        house.client.get(id).await.unwrap().status,
        WorkStatus::Pending
    );
    house.submit("fits").await;
    assert!(agent.ended().await.success());
}
