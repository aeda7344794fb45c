//! What a program may do by its socket: submit in the course of its item, and look at that.

use loom_client::NewWork;
use loom_protocol::WorkId;
use loom_protocol::work::{ListWorkRequest, WorkItem, WorkStatus};

use crate::house::House;

async fn all(house: &House) -> Vec<WorkItem> {
    house
        .client
        .list(&ListWorkRequest::default())
        .await
        .unwrap()
        .items
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_program_submits_in_the_boundary_of_its_item_and_waits_for_what_comes_of_it() {
    let house = House::open().await;
    let options = [
        "--slots",
        "2",
        "--max-items",
        "2",
        "-b",
        "b",
        "--may-submit",
        "c",
    ];
    let mut agent = house.agent(
        &options,
        r#"case $1 in
        parent) "$LOOM_BIN" work submit -c c -l of=parent --wait child || exit 3; "$LOOM_BIN" work show;;
        child) echo did it;;
        esac"#,
    );
    let parent = NewWork::new("c", "parent").boundary("b");
    let parent = house.client.submit(&parent).await.unwrap().id;
    let item = house.ended(parent).await;
    assert_eq!(item.status, WorkStatus::Completed, "{item:?}");
    let output: String = item.result.unwrap().output.unwrap().parse().unwrap();
    assert!(
        output.contains("did it") && output.contains(&parent.to_string()),
        "{output}"
    );
    let items = all(&house).await;
    let child = items.iter().find(|item| item.id != parent).unwrap();
    assert_eq!(child.parent_id, Some(parent));
    assert_eq!(
        (child.boundary.as_str(), child.labels["of"].as_str()),
        ("b", "parent")
    );
    assert!(
        child.offered_by.starts_with("agent sh"),
        "{}",
        child.offered_by
    );
    assert!(agent.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_has_the_last_slot_is_told_that_it_would_wait_for_ever() {
    let house = House::open().await;
    let mut agent = house.agent(
        &["--once", "--may-submit", "c"],
        r#""$LOOM_BIN" work submit -c c --wait child 2>&1; echo "code $?""#,
    );
    let id = house.submit("parent").await;
    let output: String = house
        .ended(id)
        .await
        .result
        .unwrap()
        .output
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        output.contains("the last free slot") && output.contains("--slots"),
        "{output}"
    );
    assert!(output.ends_with("code 2"), "{output}");
    assert_eq!(all(&house).await.len(), 1, "nothing was submitted");
    assert!(agent.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_item_submits_twenty_over_all_its_attempts_and_three_deep() {
    let house = House::open().await;
    let mut agent = house.agent(
        &["--max-items", "2", "--may-submit", "later"],
        r#"n=0; while "$LOOM_BIN" work submit -c later more; do
           n=$((n + 1)); test $LOOM_WORK_ATTEMPT = 1 && test $n = 12 && exit 1; done 2>&1; exit 0"#,
    );
    let id = house.submit("greedy").await;
    let item = house.ended(id).await;
    assert_eq!(
        (item.status, item.attempt),
        (WorkStatus::Completed, 2),
        "{item:?}"
    );
    let output: String = item.result.unwrap().output.unwrap().parse().unwrap();
    assert!(
        output.contains("has submitted 20 items, and may submit no more"),
        "{output}"
    );
    assert!(agent.ended().await.success());
    let items = all(&house).await;
    assert_eq!(items.len(), 21);
    assert!(
        items
            .iter()
            .all(|item| item.id == id || item.parent_id == Some(id))
    );

    let mut agent = house.agent(
        &["--max-items", "4", "--may-submit", "c"],
        r#""$LOOM_BIN" work submit -c c deeper 2>&1; true"#,
    );
    let mut said = house.submit("deep").await.to_string();
    for _ in 0..4 {
        let id = said.trim().parse::<WorkId>().unwrap();
        let item = house.ended(id).await;
        said = item.result.unwrap().output.unwrap().parse().unwrap();
    }
    assert!(said.contains("3 deep; it may submit nothing"), "{said}");
    assert!(agent.ended().await.success());
}
