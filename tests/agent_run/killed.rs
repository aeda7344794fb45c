//! What becomes of the programs of an agent that is killed.

use rustix::process::Signal;

use crate::house::{House, gone, send};

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
