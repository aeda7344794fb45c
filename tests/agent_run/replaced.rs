//! Two processes with one `--guid`: a copied unit file, a scaled container.

use std::time::Duration;

use loom_protocol::AgentGuid;
use loom_protocol::work::{ListWorkRequest, WorkStatus};
use tokio::time::{Instant, sleep};

use crate::house::{House, LIMIT, gone};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_two_agents_with_one_guid_one_goes_on_and_the_other_ends_its_programs_and_itself() {
    let house = House::with(&[("agents.heartbeat_every", "1s")]).await;
    let guid = AgentGuid::generate().to_string();
    let begun = house.path("begun");
    let log = house.path("log");
    // The first item of the first agent would never end by itself.
    let script = |name: &str, pause: &str| {
        format!("echo $$ > {begun}-{name}; echo $1 >> {log}-{name}; {pause}; echo {name}")
    };
    let first = ["--guid", &guid, "--handle", "anna", "--grace", "1s"];
    let mut replaced = house.watched_agent(&first, &script("anna", "sleep 600"));
    let stuck = house.submit("stuck").await;
    let program = house.word("begun-anna").await;

    let second = ["--guid", &guid, "--handle", "bert", "--max-items", "3"];
    let mut goes_on = house.agent(&second, &script("bert", "sleep 1"));
    let status = replaced.ended().await;
    assert_eq!(status.code(), Some(4), "it ends with a code of its own");
    gone(&program).await;
    let told = house.said("error: another run").await;
    assert!(
        told.contains("bert on host ") && told.contains(&guid),
        "{told}"
    );
    house.said("gives nothing back").await;

    let more = [house.submit("one").await, house.submit("two").await];
    assert!(goes_on.ended().await.success());
    for id in [stuck, more[0], more[1]] {
        let item = house.until(id, WorkStatus::Completed).await;
        assert_eq!(item.assigned_to_agent.unwrap().handle, "bert");
        assert_eq!(item.attempts, 0, "no attempt is spent");
    }
    let done = std::fs::read_to_string(house.path("log-bert")).unwrap();
    let mut done: Vec<&str> = done.lines().collect();
    done.sort_unstable();
    assert_eq!(done, ["one", "stuck", "two"], "each once");
    let failed = ListWorkRequest {
        status: Some("failed".into()),
        ..ListWorkRequest::default()
    };
    assert!(house.client.list(&failed).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_program_inside_of_a_replaced_agent_reports_nothing_any_more() {
    let house = House::open().await;
    let guid = AgentGuid::generate().to_string();
    let (go, code) = (house.path("go"), house.path("code"));
    let script = format!(
        "trap '' TERM; echo > {go}-begun; until test -e {go}; do sleep 0.05; done; \
         $LOOM_BIN work complete --summary late; echo $? > {code}"
    );
    let mut replaced = house.agent(&["--guid", &guid, "--grace", "20s"], &script);
    let id = house.submit("x").await;
    house.word("go-begun").await;
    let _other = house.agent(&["--guid", &guid], "true");
    let deadline = Instant::now() + LIMIT;
    while house
        .client
        .agent(guid.clone())
        .await
        .unwrap()
        .replaced_runs
        .is_empty()
    {
        assert!(Instant::now() < deadline, "the other run never registered");
        // deliberate sleep: between two looks, before the deadline
        sleep(Duration::from_millis(20)).await;
    }
    std::fs::write(&go, "").unwrap();
    assert_eq!(house.word("code").await, "1");
    assert_eq!(replaced.ended().await.code(), Some(4));
    let item = house.client.get(id).await.unwrap();
    let summary = item.result.and_then(|result| result.summary);
    assert_ne!(summary.as_deref(), Some("late"));
}
