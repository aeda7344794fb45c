//! What becomes of the programs of an agent that is killed.

use rustix::process::Signal;

use crate::house::{House, gone};

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
