//! Values, fields and sizes that are not allowed, and documents that cannot be read.

use loom_client::{Client, ClientOptions, ErrorKind, NewWork};
use loom_protocol::work::WorkStatus;
use loom_protocol::{Encoding, ErrorCode};
use serde_json::{Value, json};

use crate::doors::{Doors, check, item};

const KIB: usize = 1024;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn priorities() {
    let doors = Doors::open().await;
    for priority in [json!(0), json!(11), json!(5.5), json!(-1), json!(1_000)] {
        let bad = item(&json!({"priority": priority}));
        for error in doors.refused_item(&bad).await {
            let parts = ["priority", &priority.to_string(), "from 1 to 10"];
            check(&error, ErrorCode::InvalidRequest, &parts);
        }
    }
    doors.nothing_was_taken().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn reserved_and_unknown_fields() {
    let doors = Doors::open().await;
    for field in ["dependsOn", "group", "budget", "review"] {
        for error in doors.refused_item(&item(&json!({field: "x"}))).await {
            check(
                &error,
                ErrorCode::InvalidRequest,
                &[field, "reserved", "leave it out"],
            );
        }
    }
    let strict = item(&json!({"strict": true, "prioritty": 3}));
    for error in doors.refused_item(&strict).await {
        check(&error, ErrorCode::InvalidRequest, &["prioritty", "leave"]);
    }
    doors.nothing_was_taken().await;
    let mut flood = item(&json!({}));
    for n in 0..20_000 {
        flood[format!("field{n}")] = json!(n);
    }
    let answer = doors.project.submit(flood).await.unwrap();
    assert_eq!(answer.ignored.len() + answer.ignored_more, 20_000);
    assert_eq!(answer.ignored.len(), 16);
    let around = json!({"items": [item(&json!({}))], "group": "g"});
    for error in doors.refused("work.submit", &around).await {
        check(&error, ErrorCode::InvalidRequest, &["group", "reserved"]);
    }
    let lax = doors.project.submit(item(&json!({"prioritty": 3}))).await;
    assert_eq!(lax.unwrap().ignored, ["prioritty"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn missing_and_senseless_values() {
    let doors = Doors::open().await;
    for (patch, part) in [
        (json!({"description": ""}), "description"),
        (json!({"description": " \n"}), "description"),
        (json!({"timeoutMs": 0}), "timeoutMs"),
        (json!({"maxAttempts": 0}), "maxAttempts"),
        (json!({"taskId": ""}), "taskId"),
    ] {
        for error in doors.refused_item(&item(&patch)).await {
            check(&error, ErrorCode::InvalidRequest, &[part]);
        }
    }
    doors.nothing_was_taken().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn bodies_over_the_limits() {
    let doors = Doors::open().await;
    let context = item(&json!({"contextData": "x".repeat(400 * KIB)}));
    for error in doors.refused_item(&context).await {
        check(
            &error,
            ErrorCode::TooLarge,
            &["contextData", "at most 393216"],
        );
    }
    let wordy = item(&json!({"description": "x".repeat(129 * KIB)}));
    for error in doors.refused_item(&wordy).await {
        check(
            &error,
            ErrorCode::TooLarge,
            &["description", "at most 131072"],
        );
    }
    for size in [1024 * KIB, 2 * 1024 * KIB] {
        let huge = item(&json!({"contextData": "x".repeat(size)})).to_string();
        let error = doors.refused_post("/api/work", huge).await;
        check(&error, ErrorCode::TooLarge, &["1048576 bytes", "send less"]);
    }
    doors.nothing_was_taken().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_message_that_nats_cannot_carry() {
    let doors = Doors::open().await;
    let url = doors.nats_url();
    let client = Client::connect(ClientOptions::new(url, doors.project.id().clone()));
    let client = client.await.unwrap();
    let huge = NewWork::new("rust", "too much").context(&"x".repeat(2 * 1024 * KIB));
    let error = client.submit(&huge.unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("work.submit"), "{error}");
    // The connection lives on.
    client.submit(&NewWork::new("rust", "fine")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_result_over_the_limit_leaves_the_lease() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    let id = doors.project.submit_plain("rust").await.unwrap();
    let claimed = agent.claim_one().await.unwrap();
    let too_much = json!({"result": {"output": "x".repeat(400 * KIB)}});
    let error = agent
        .report("complete", &claimed, too_much)
        .await
        .unwrap_err();
    check(&error, ErrorCode::TooLarge, &["at most 393216"]);
    assert_eq!(
        doors.project.work(id).await.unwrap().status,
        WorkStatus::Assigned
    );
    agent.complete(&claimed, "less").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn documents_that_cannot_be_read() {
    let doors = Doors::open().await;
    let whole = item(&Value::Null);
    for broken in [
        "{",
        "{\"description\": ",
        "nonsense",
        "{} {}",
        "[1, 2",
        "\u{feff}{}",
    ] {
        let error = doors
            .refused_bytes(Encoding::Json, "work.submit", broken.into())
            .await;
        check(&error, ErrorCode::InvalidRequest, &["JSON"]);
        let error = doors.refused_post("/api/work", broken).await;
        check(&error, ErrorCode::InvalidRequest, &["JSON"]);
    }
    let packed = Encoding::MessagePack.encode(&whole).unwrap();
    let half = packed[..packed.len() / 2].to_vec();
    let two = [packed.clone(), packed].concat();
    for broken in [half, two, vec![0xc1], whole.to_string().into_bytes()] {
        let error = doors
            .refused_bytes(Encoding::MessagePack, "work.submit", broken)
            .await;
        check(&error, ErrorCode::InvalidRequest, &["MessagePack"]);
    }
    let by_position = json!(["a description", "rust"]);
    let mut refusals = doors.refused("work.submit", &by_position).await;
    refusals.push(
        doors
            .refused_post("/api/work", by_position.to_string())
            .await,
    );
    for error in refusals {
        check(&error, ErrorCode::InvalidRequest, &["named fields"]);
    }
    for (patch, part) in [
        (json!({"priority": "high"}), "priority"),
        (json!({"description": 7}), "description"),
        (json!({"labels": ["a"]}), "labels"),
        (json!({"deadline": "tomorrow"}), "deadline"),
    ] {
        let mut refusals = doors.refused("work.submit", &item(&patch)).await;
        let body = item(&patch).to_string();
        refusals.push(doors.refused_post("/api/work", body).await);
        for error in refusals {
            check(&error, ErrorCode::InvalidRequest, &[part]);
        }
    }
    doors.nothing_was_taken().await;
}
