//! What becomes of items where the host lets nothing be made.

use loom_protocol::AgentGuid;
use loom_protocol::agent::{Agent, AgentStatus, GuidRequest};
use loom_protocol::work::WorkStatus;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::house::{House, LIMIT};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_can_make_no_directory_takes_nothing_and_says_why() {
    let house = House::open().await;
    let id = house.submit("wait").await;
    let mut agent = house.watched_agent(&["--workdir", "/proc/nope"], "true");
    assert_eq!(agent.ended().await.code(), Some(2));
    house
        .said("no directory can be made in /proc/nope (--workdir): ")
        .await;
    let item = house.client.get(id).await.unwrap();
    assert_eq!((item.status, item.attempt), (WorkStatus::Pending, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn while_no_directory_can_be_made_an_agent_takes_nothing_and_then_goes_on() {
    let house = House::with(&[("agents.heartbeat_every", "1s")]).await;
    let guid = AgentGuid::generate().to_string();
    let base = house.path("base");
    // The first item puts a file into the place of the directory.
    let first = house.submit("spoil").await;
    let others = [house.submit("one").await, house.submit("two").await];
    let mut agent = house.watched_agent(
        &["--guid", &guid, "--workdir", &base],
        &format!("case $1 in spoil) cd /; rm -r {base}; echo > {base};; esac"),
    );
    assert_eq!(house.ended(first).await.status, WorkStatus::Completed);
    let told = house.said("takes no work for now").await;
    assert!(
        told.contains(&base) && told.contains("it is tried again"),
        "{told}"
    );
    let deadline = Instant::now() + LIMIT;
    loop {
        let request = GuidRequest { guid: guid.clone() };
        let seen: Agent = house.client.request("agents.get", &request).await.unwrap();
        if seen.status == AgentStatus::Busy {
            let why = seen.status_reason.unwrap();
            assert!(why.contains(&base), "{why}");
            break;
        }
        assert!(Instant::now() < deadline, "not shown: {seen:?}");
        // deliberate sleep: between two looks, before the deadline
        sleep(std::time::Duration::from_millis(50)).await;
    }
    std::fs::remove_file(&base).unwrap();
    house.said("takes work again").await;
    for id in others {
        let item = house.ended(id).await;
        assert_eq!(
            (item.status, item.attempts),
            (WorkStatus::Completed, 0),
            "{item:?}"
        );
        assert!(item.attempt <= 2, "not taken over and over: {item:?}");
        let mut errors = item.errors.iter();
        assert!(errors.all(|error| error.message.starts_with("released: the directory ")));
    }
    let request = GuidRequest { guid: guid.clone() };
    let seen: Agent = house.client.request("agents.get", &request).await.unwrap();
    assert_eq!(seen.status_reason, None);
    let said = std::fs::read_to_string(house.path("said")).unwrap();
    assert_eq!(said.matches("takes no work for now").count(), 1, "{said}");
    agent.signal(Signal::TERM);
    assert!(agent.ended().await.success());
}
