//! Requests about many things at once: one whose filter is misspelt, empty or in the wrong place does nothing.

use loom_protocol::agent::AgentStatus;
use loom_protocol::work::WorkStatus;
use loom_protocol::{Encoding, ErrorCode};
use serde_json::{Value, json};

use crate::doors::{Doors, check};

/// What is refused, and what the refusal has to say.
type Case = (Value, &'static str);

fn of_the_queue() -> Vec<Case> {
    vec![
        (json!({"capabilty": "go"}), "capabilty"),
        (json!({"capabilty": "go", "all": true}), "capabilty"),
        (json!({"filter": {"capability": "go"}}), "filter"),
        (json!({"project": "other", "all": true}), "project"),
        (json!({"capability": null}), "all: true"),
        (
            json!({"capability": null, "boundary": null, "label": null, "all": false}),
            "all: true",
        ),
        (json!({"capability": "go", "all": true}), "one of them"),
        (json!({}), "all: true"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_purge_without_a_filter_that_is_understood_cancels_nothing() {
    let doors = Doors::open().await;
    doors.project.submit_plain("rust").await.unwrap();
    for (body, part) in of_the_queue() {
        for error in doors.refused("queue.purge", &body).await {
            check(&error, ErrorCode::InvalidRequest, &[part]);
        }
        let error = doors.refused_post("/api/queue/purge", body.to_string());
        check(&error.await, ErrorCode::InvalidRequest, &[part]);
    }
    let nothing = doors.refused_bytes(Encoding::Json, "queue.purge", Vec::new());
    check(&nothing.await, ErrorCode::InvalidRequest, &["all: true"]);
    for (path, body, part) in [
        ("/api/queue/purge", "", "all: true"),
        ("/api/queue/purge?capability=go", "", "capability"),
        (
            "/api/queue/purge?capability=go",
            r#"{"all":true}"#,
            "capability",
        ),
        (
            "/api/queue/purge?project=other",
            r#"{"all":true}"#,
            "project",
        ),
        ("/api/queue/purge?boundary=", "", "all: true"),
        // Which project is meant cannot be read.
        (
            "/api/queue/purge",
            r#"{"all":true,"projectId":7}"#,
            "projectId",
        ),
    ] {
        let error = doors.refused_post(path, body).await;
        check(&error, ErrorCode::InvalidRequest, &[part]);
    }
    let work = doors.project.all_work().await.unwrap();
    assert!(work.iter().all(|item| item.status == WorkStatus::Pending));

    let all: Value = doors
        .project
        .request("queue.purge", json!({"all": true}))
        .await
        .unwrap();
    assert_eq!(all["purged"], 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_batch_without_a_filter_that_is_understood_touches_nobody() {
    let doors = Doors::open().await;
    let id = doors.project.submit_plain("rust").await.unwrap();
    let agent = doors.project.agent("go").spawn().await.unwrap();
    let of_filters = |misplaced: &str| -> Vec<(Value, String)> {
        vec![
            (json!({"filter": {}}), "all: true".into()),
            (json!({"filter": {"capability": null}}), "all: true".into()),
            (json!({"filter": {}, misplaced: "go"}), misplaced.into()),
            (
                json!({"filter": {"capability": "x"}, "all": true}),
                "one of them".into(),
            ),
            (json!({"filter": {"capabilty": "go"}}), "capabilty".into()),
            (json!({"all": false}), "all: true".into()),
        ]
    };
    for path in ["/api/work/cancel-batch", "/api/agents/shutdown-batch"] {
        for misplaced in ["capability", "classification", "project"] {
            for (body, part) in of_filters(misplaced) {
                let error = doors.refused_post(path, body.to_string()).await;
                check(&error, ErrorCode::InvalidRequest, &[&part]);
            }
        }
        for field in ["ids", "guids"] {
            let both = json!({field: ["x"], "all": true}).to_string();
            let error = doors.refused_post(path, both).await;
            check(&error, ErrorCode::InvalidRequest, &[]);
        }
        let in_query = format!("{path}?capability=go");
        let error = doors.refused_post(&in_query, r#"{"all":true}"#).await;
        check(&error, ErrorCode::InvalidRequest, &["capability"]);
    }
    let item = doors.project.work(id).await.unwrap();
    assert_eq!(item.status, WorkStatus::Pending);
    let shown = json!({"guid": agent.guid()});
    let shown = doors.project.request("agents.get", shown).await.unwrap();
    assert_eq!(shown["status"], json!(AgentStatus::Online));

    let api = doors.project.api().unwrap();
    let all = json!({"all": true});
    let ended: Value = api.post(&["work", "cancel-batch"], &all).await.unwrap();
    assert_eq!(ended["cancelledItems"], json!([id]));
    let told: Value = api.post(&["agents", "shutdown-batch"], &all).await.unwrap();
    assert_eq!(told["shutdownAgents"], json!([agent.guid()]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn other_requests_about_many_things_pass_over_no_field() {
    let doors = Doors::open().await;
    doors.project.submit_plain("rust").await.unwrap();
    for (action, path, body, part) in [
        (
            "dlq.retry",
            "/api/dlq/retry-batch",
            json!({"all": true, "capabilty": "go"}),
            "capabilty",
        ),
        (
            "dlq.retry",
            "/api/dlq/retry-batch",
            json!({"all": true, "capability": "go"}),
            "one of them",
        ),
        (
            "dlq.retry",
            "/api/dlq/retry-batch",
            json!({"capability": null, "reason": null}),
            "",
        ),
        ("gc.run", "/api/gc", json!({"dryrun": true}), "dryrun"),
        (
            "",
            "/api/store/accept",
            json!({"project": "other"}),
            "project",
        ),
    ] {
        if !action.is_empty() {
            for error in doors.refused(action, &body).await {
                check(&error, ErrorCode::InvalidRequest, &[part]);
            }
        }
        let error = doors.refused_post(path, body.to_string()).await;
        check(&error, ErrorCode::InvalidRequest, &[part]);
        let error = doors
            .refused_post(&format!("{path}?capability=go"), "{}")
            .await;
        check(&error, ErrorCode::InvalidRequest, &["capability"]);
    }
}
