//! What becomes of the programs of an agent that is killed.

use loom_client::NewWork;
use loom_protocol::WorkId;
use loom_protocol::work::WorkStatus;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::house::{House, LIMIT, gone, send};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_killed_agent_takes_its_program_and_all_that_it_started_with_it() {
    let house = House::open().await;
    let pids = house.path("pids");
    house.submit("orphan").await;
    // A child that obeys, one that does not, and a grandchild of each kind.
    let stubborn = "trap \"\" TERM; sleep 300 & echo $! >> $0; echo $$ >> $0; wait";
    let script = format!(
        "sleep 300 & a=$!; sh -c '{stubborn}' {pids}.part & \
         until test -e {pids}.part && test $(wc -l < {pids}.part) = 2; do sleep 0.05; done; \
         echo $$ $a $(cat {pids}.part) > {pids}; wait"
    );
    let mut agent = house.agent(&["--grace", "1s"], &script);
    let pids = house.word("pids").await;
    assert_eq!(pids.split_whitespace().count(), 4, "{pids}");
    agent.signal(Signal::KILL);
    agent.ended().await;
    for pid in pids.split_whitespace() {
        gone(pid).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_warden_that_was_killed_is_replaced_and_knows_of_every_program() {
    let house = House::open().await;
    let dir = house.dir.path().display();
    let script = format!("sleep 300 & echo $$ $! > {dir}/$1; wait");
    let mut agent = house.agent(&["--slots", "2", "--grace", "1s"], &script);
    house.submit("first").await;
    let mut pids = house.word("first").await;
    let warden = agent.child("warden");
    send(&warden, Signal::KILL);
    gone(&warden).await;
    house.submit("second").await;
    pids = format!("{pids} {}", house.word("second").await);
    agent.signal(Signal::KILL);
    agent.ended().await;
    for pid in pids.split_whitespace() {
        gone(pid).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_killed_agent_left_in_a_session_of_its_own_keeps_the_directory() {
    let house = House::open().await;
    let dirs = house.path("dirs/{label.repo}");
    let submit = async |task: &str| -> WorkId {
        let work = NewWork::new("c", task).label("repo", "r");
        house.client.submit(&work).await.unwrap().id
    };
    let dir = house.dir.path().display();
    let script = format!(
        "case $1 in \
           left) setsid sh -c 'echo $$ > {dir}/out; exec sleep 600' & echo $$ > {dir}/program; wait;; \
           daemon) setsid sh -c 'echo $$ > {dir}/daemon; exec sleep 600' & \
             until test -s {dir}/daemon; do sleep 0.05; done;; \
         esac"
    );
    let options = ["--workdir", &dirs, "--grace", "1s"];
    submit("left").await;
    let mut killed = house.agent(&options, &script);
    let program = house.word("program").await;
    let out = house.word("out").await;
    killed.signal(Signal::KILL);
    killed.ended().await;
    gone(&program).await;

    let next = submit("next").await;
    let _agent = house.agent(&options, &script);
    let deadline = Instant::now() + LIMIT;
    loop {
        let item = house.client.get(next).await.unwrap();
        assert!(!item.terminal, "it ran beside a leftover: {item:?}");
        let told = item.progress_message.unwrap_or_default();
        if told.contains("no other item runs") {
            break;
        }
        assert!(Instant::now() < deadline, "it never waits");
        // deliberate sleep: between two looks, before the deadline
        sleep(std::time::Duration::from_millis(50)).await;
    }
    send(&out, Signal::KILL);
    assert_eq!(house.ended(next).await.status, WorkStatus::Completed);

    // What an item leaves running on purpose, when it ends in order, holds up nobody.
    let daemon = submit("daemon").await;
    assert_eq!(house.ended(daemon).await.status, WorkStatus::Completed);
    let after = submit("after").await;
    assert_eq!(house.ended(after).await.status, WorkStatus::Completed);
    send(&house.word("daemon").await, Signal::KILL);
}
