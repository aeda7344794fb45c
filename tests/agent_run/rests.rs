//! When an agent waits, and what for.

use std::time::Duration;

use loom_actors::clock::Clock;
use loom_client::NewWork;
use loom_protocol::agent::{Agent, GuidRequest};
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, WorkId};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use crate::house::{House, LIMIT};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_limit_whose_time_has_passed_starts_no_program_for_a_minute() {
    let house = House::open().await;
    for n in 0..5 {
        house.submit(&format!("item {n}")).await;
    }
    let guid = AgentGuid::generate().to_string();
    let starts = house.path("starts");
    let mut agent = house.watched_agent(
        &["--guid", &guid, "--limit-preset", "claude"],
        &format!("echo >> {starts}; echo 'Claude AI usage limit reached|1766502000'; exit 1"),
    );
    house.said("takes no work for now").await;
    let request = GuidRequest { guid };
    let seen: Agent = house.client.request("agents.get", &request).await.unwrap();
    let rest = seen.paused_until.unwrap().since(Clock::system().now());
    assert!(rest > Duration::from_secs(20), "{rest:?}");
    agent.signal(Signal::TERM);
    assert!(agent.ended().await.success());
    assert_eq!(std::fs::read_to_string(starts).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn two_items_of_one_directory_run_one_after_the_other_and_the_second_says_so() {
    let house = House::open().await;
    let submit = async |task: &str| -> WorkId {
        let work = NewWork::new("c", task)
            .task_id(task)
            .label("repo", "the/repo");
        house.client.submit(&work).await.unwrap().id
    };
    let ids = [submit("first").await, submit("second").await];
    let (go, dirs) = (house.path("go"), house.path("dirs/{label.repo}"));
    let script = format!(
        "mkdir busy || exit 9; echo > {dir}/began.$1; until test -e {go}; do sleep 0.05; done; rmdir busy; pwd",
        dir = house.dir.path().display()
    );
    let options = ["--once", "--workdir", &dirs, "--exit-code", "9=permanent"];
    let mut agents = [
        house.agent(&options, &script),
        house.agent(&options, &script),
    ];
    let deadline = Instant::now() + LIMIT;
    let waits = async |id: WorkId| {
        let item = house.client.get(id).await.unwrap();
        assert!(!item.terminal, "{item:?}");
        item.progress_message
            .is_some_and(|message| message.contains("no other item runs"))
    };
    while !(waits(ids[0]).await || waits(ids[1]).await) {
        assert!(Instant::now() < deadline, "nobody waits");
        // deliberate sleep: between two looks, before the deadline
        sleep(Duration::from_millis(50)).await;
    }
    std::fs::write(go, "").unwrap();
    for id in ids {
        let item = house.ended(id).await;
        assert_eq!(
            (item.status, item.attempt),
            (WorkStatus::Completed, 1),
            "{item:?}"
        );
        assert!(
            item.result
                .unwrap()
                .summary
                .unwrap()
                .ends_with("/dirs/the%2Frepo")
        );
    }
    for agent in &mut agents {
        assert!(agent.ended().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_waits_for_nats_and_for_a_coordinator_that_are_not_up_yet() {
    let mut house = House::open().await;
    let id = house.submit("patience").await;
    house.coordinator.terminate().await.unwrap();
    house.nats.stop().await.unwrap();
    let mut agent = house.watched_agent(&["--once"], "echo done");
    let told = house.said("can't be reached").await;
    assert!(told.starts_with("the agent waits: NATS at"), "{told}");
    house.nats.restart().await.unwrap();
    let told = house.said("no coordinator answers").await;
    assert!(
        told.contains("waits:") && told.contains("`loom up`"),
        "{told}"
    );
    house.coordinator.restart().await.unwrap();
    assert_eq!(house.ended(id).await.status, WorkStatus::Completed);
    assert!(agent.ended().await.success());
    let said = std::fs::read_to_string(house.path("said")).unwrap();
    assert_eq!(said.matches("the agent waits:").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_waits_ends_when_told_and_one_without_hope_at_once() {
    let house = House::open().await;
    house.nats.stop().await.unwrap();
    for (options, code) in [(&[][..], 0), (&["--once"][..], 1)] {
        let mut agent = house.watched_agent(options, "echo done");
        house.said("the agent waits").await;
        agent.signal(Signal::TERM);
        assert_eq!(agent.ended().await.code(), Some(code));
    }
    for (url, why) in [
        ("http://127.0.0.1:4222", "is not a NATS address"),
        (" ", "no NATS address"),
    ] {
        let mut command = house.agent_command(&[], "echo done");
        let output = timeout(LIMIT, command.env("NATS_URL", url).output());
        let output = output.await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}
