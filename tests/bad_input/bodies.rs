//! Values, fields and sizes that are not allowed, and documents that cannot be read.

use std::time::Duration;

use loom_actors::clock::Clock;
use loom_client::{Client, ClientOptions, ErrorKind, NewWork};
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::work::WorkStatus;
use loom_protocol::{Encoding, ErrorCode, WorkId, names};
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
        (json!({"timeoutMs": 0}), "timeoutMs is 0"),
        (json!({"timeoutMs": 999}), "timeoutMs is 999"),
        (
            json!({"deadline": "2020-01-01T00:00:00Z"}),
            "deadline is 2020",
        ),
        (
            json!({"notBefore": "2100-01-02T00:00:00Z", "deadline": "2100-01-01T00:00:00Z"}),
            "notBefore is 2100-01-02",
        ),
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
async fn a_submission_that_is_repeated_after_its_deadline_is_answered_as_before() {
    let doors = Doors::open().await;
    let deadline = Clock::system().now().after(Duration::from_millis(1_500));
    let bad = item(&json!({"id": WorkId::generate(), "deadline": deadline}));
    let first = doors.project.submit(bad.clone()).await.unwrap();
    let past = doors
        .project
        .eventually("the deadline has passed", async || {
            let item = doors.project.work(first.id).await.ok()?;
            (item.status == WorkStatus::Failed).then_some(())
        });
    past.await.unwrap();
    let again = doors.project.submit(bad.clone()).await.unwrap();
    assert_eq!((again.id, again.task_id), (first.id, first.task_id));
    let mut another = bad;
    another["id"] = json!(WorkId::generate());
    for error in doors.refused_item(&another).await {
        check(&error, ErrorCode::InvalidRequest, &["deadline", "passed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn published_items_that_could_never_be_done_are_rejected() {
    let doors = Doors::open().await;
    let project = &doors.project;
    project.submit_plain("rust").await.unwrap();
    for (patch, part) in [
        (json!({"timeoutMs": 10}), "timeoutMs"),
        (json!({"deadline": "2020-01-01T00:00:00Z"}), "deadline"),
    ] {
        let subject = names::work_queue(project.id(), "rust");
        project.publish(subject, &item(&patch)).await.unwrap();
        let rejected = project.eventually("its letter", async || {
            let of_kind = json!({"reason": "rejected"});
            let list = project.request("dlq.list", of_kind).await.ok()?;
            let letters: Vec<DeadLetter> = serde_json::from_value(list).ok()?;
            let is_it = |letter: &DeadLetter| letter.errors[0].message.contains(part);
            letters.into_iter().find(is_it)
        });
        let named = json!({"id": rejected.await.unwrap().id});
        let whole: DeadLetter = project.call("dlq.get", &named).await.unwrap();
        assert!(whole.submission.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn agents_that_could_never_work() {
    let doors = Doors::open().await;
    for (patch, part) in [
        (json!({"handle": ""}), "handle"),
        (json!({"maxConcurrentTasks": 0}), "maxConcurrentTasks is 0"),
        (
            json!({"maxConcurrentTasks": 100_000}),
            "maxConcurrentTasks is 100000",
        ),
        (
            json!({"heartbeatIntervalMs": 0}),
            "heartbeatIntervalMs is 0",
        ),
        (
            json!({"heartbeatIntervalMs": u64::MAX}),
            "heartbeatIntervalMs",
        ),
    ] {
        let mut agent = json!({"handle": "a", "agentType": "t", "capabilities": ["rust"]});
        for (key, value) in patch.as_object().unwrap() {
            agent[key] = value.clone();
        }
        for error in doors.refused("agents.register", &agent).await {
            assert_eq!(error.code.status(), 400, "{error}");
            assert!(error.message.contains(part), "{part:?} is not in: {error}");
        }
    }
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    let order = json!({"guid": agent.guid(), "gracePeriodMs": u64::MAX});
    for error in doors.refused("agents.shutdown", &order).await {
        check(&error, ErrorCode::InvalidRequest, &["gracePeriodMs"]);
    }
    let path = format!("/api/agents/{}/shutdown", agent.guid());
    let error = doors.refused_post(&path, order.to_string()).await;
    check(&error, ErrorCode::InvalidRequest, &["gracePeriodMs"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn reports_with_numbers_that_make_no_sense() {
    let doors = Doors::open().await;
    let agent = doors.project.agent("rust").spawn().await.unwrap();
    doors.project.submit_plain("rust").await.unwrap();
    let claimed = agent.claim_one().await.unwrap();
    let report = |more: Value| {
        let mut report = json!({
            "id": claimed.work_item.id, "guid": agent.guid(), "attempt": claimed.lease.attempt,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            report[key] = value.clone();
        }
        report
    };
    let spent = json!({"usage": {"costUsd": -0.5}});
    for (action, more, part) in [
        ("work.progress", spent.clone(), "usage.costUsd is -0.5"),
        ("work.start", spent.clone(), "usage.costUsd is -0.5"),
        ("work.complete", spent, "usage.costUsd is -0.5"),
        (
            "work.fail",
            json!({"error": "e", "retryAfterMs": u64::MAX}),
            "retryAfterMs",
        ),
    ] {
        for error in doors.refused(action, &report(more.clone())).await {
            check(&error, ErrorCode::InvalidRequest, &[part]);
        }
    }
    // The lease is the agent's still.
    agent.complete(&claimed, "done").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn command_lines_that_could_never_work() {
    let doors = Doors::open().await;
    let url = doors.api_url();
    let agent = ["agent", "run", "--capability", "rust"];
    for (arguments, part) in [
        (
            vec!["submit", "d", "-c", "rust", "--timeout", "10ms"],
            "timeoutMs",
        ),
        (
            [&agent[..], &["--slots", "100000", "--", "true"]].concat(),
            "--slots",
        ),
        (
            [&agent[..], &["--slots", "0", "--", "true"]].concat(),
            "--slots",
        ),
        (
            [&agent[..], &["--handle", "", "--", "true"]].concat(),
            "--handle",
        ),
    ] {
        let ended = tokio::process::Command::new(env!("CARGO_BIN_EXE_loom"))
            .args(["--url", &url, "--project", doors.project.id().as_str()])
            .args(&arguments)
            .output();
        let ended = ended.await.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
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
