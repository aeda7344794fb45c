//! Names that would break a subject or a key.

use loom_protocol::names::request;
use loom_protocol::{ErrorCode, WireError, WorkId};
use serde_json::{Value, json};

use crate::doors::{Doors, check, item};

/// What no token may be, and what the refusal says of it.
fn no_tokens() -> Vec<(String, &'static str)> {
    let bad = [
        ("a b", "without space"),
        ("*", "'*'"),
        ("a.>", "'>'"),
        ("schön", "printable ASCII"),
        ("tab\there", "printable ASCII"),
        ("", "write 1 to 64"),
    ];
    let mut all: Vec<_> = bad.map(|(token, remedy)| (token.into(), remedy)).into();
    all.push(("x".repeat(300), "at most 64"));
    all
}

/// What no capability and no boundary may be, and what the refusal says of it.
fn no_labels() -> Vec<(String, &'static str)> {
    let bad = [
        (" a", "at one end"),
        ("a\u{2003}", "at one end"),
        ("tab\there", "control characters"),
        ("a\nb", "control characters"),
        ("", "write 1 to 64"),
    ];
    let mut all: Vec<_> = bad.map(|(label, remedy)| (label.into(), remedy)).into();
    all.push(("x".repeat(300), "at most 64"));
    all.push(("語".repeat(64), "at most 512"));
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn labels_of_work() {
    let doors = Doors::open().await;
    for field in ["capability", "boundary"] {
        for (label, remedy) in no_labels() {
            for error in doors.refused_item(&item(&json!({field: label}))).await {
                check(&error, ErrorCode::InvalidToken, &[field, remedy]);
            }
        }
    }
    doors.nothing_was_taken().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn tokens_of_work() {
    let doors = Doors::open().await;
    for field in ["requiredAgentType", "preferredAgentType"] {
        for (token, remedy) in no_tokens() {
            for error in doors.refused_item(&item(&json!({field: token}))).await {
                check(&error, ErrorCode::InvalidToken, &[field, remedy]);
            }
        }
    }
    for (token, remedy) in no_tokens() {
        let labelled = item(&json!({"labels": {token: "v"}}));
        for error in doors.refused_item(&labelled).await {
            check(&error, ErrorCode::InvalidToken, &["label", remedy]);
        }
    }
    doors.nothing_was_taken().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn dots_spaces_and_signs_are_no_danger() {
    let doors = Doors::open().await;
    for capability in [
        "node.js",
        "c++",
        "a.b.c",
        "$SYS",
        "=2E",
        "*",
        "a.>",
        "code review",
        "a,b",
        "schön 日本語",
        &"x".repeat(64),
    ] {
        let agent = doors.project.agent(capability).spawn().await.unwrap();
        let id = doors.project.submit_plain(capability).await.unwrap();
        let claimed = agent.claim_one().await.unwrap();
        assert_eq!(
            (claimed.work_item.id, &*claimed.work_item.capability),
            (id, capability)
        );
        agent.complete(&claimed, "done").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn tokens_of_agents() {
    let doors = Doors::open().await;
    let types = no_tokens()
        .into_iter()
        .map(|(token, remedy)| ("agentType", json!(token), remedy));
    let labels = no_labels().into_iter().flat_map(|(label, remedy)| {
        [
            ("capabilities", json!(["fine", label]), remedy),
            ("boundaries", json!([label]), remedy),
        ]
    });
    for (field, value, remedy) in types.chain(labels) {
        let mut agent = json!({"handle": "a", "agentType": "t", "capabilities": ["c"]});
        agent[field] = value;
        for error in doors.refused("agents.register", &agent).await {
            check(&error, ErrorCode::InvalidToken, &[remedy]);
        }
    }
    for (handle, part) in [("a b", "handle"), ("a/b", "handle"), ("ü", "handle")] {
        let agent = json!({"handle": handle, "agentType": "t", "capabilities": ["c"]});
        for error in doors.refused("agents.register", &agent).await {
            check(&error, ErrorCode::InvalidToken, &[part, "letters, digits"]);
        }
    }
    let agents = doors
        .project
        .request("agents.list", json!({}))
        .await
        .unwrap();
    assert_eq!(agents, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn ids_of_projects() {
    let doors = Doors::open().await;
    let body = item(&Value::Null).to_string();
    for (id, remedy) in [
        ("a.b", "letters, digits"),
        ("a b", "letters, digits"),
        ("*", "letters, digits"),
        (">", "letters, digits"),
        ("global", "choose another name"),
        (&*"p".repeat(300), "at most 64"),
    ] {
        let error = doors.refused_post_in(id, "/api/work", body.clone()).await;
        check(&error, ErrorCode::InvalidToken, &["projectId", remedy]);
    }
    let error = doors
        .refused_post("/api/work?projectId=%C3%BC", body.clone())
        .await;
    check(
        &error,
        ErrorCode::InvalidToken,
        &["projectId", "ü", "letters, digits"],
    );

    // What a subject can carry at all.
    for (id, remedy) in [("ü", "letters, digits"), (&*"p".repeat(300), "at most 64")] {
        let error = refused_in(&doors, id, "work.submit", &body).await;
        check(&error, ErrorCode::InvalidToken, &["projectId", remedy]);
    }
    let error = refused_in(&doors, "global", "work.submit", &body).await;
    check(
        &error,
        ErrorCode::InvalidRequest,
        &["coord.global.work.submit", "coord.{project}"],
    );
    let error = refused_in(&doors, "a.b", "work.submit", &body).await;
    check(
        &error,
        ErrorCode::InvalidRequest,
        &["coord.a.b.work.submit", "coord.{project}"],
    );
}

/// The refusal of a request whose subject names this project.
async fn refused_in(doors: &Doors, project: &str, action: &str, body: &str) -> WireError {
    let subject = request(doors.project.id(), action);
    let subject = subject.replace(doors.project.id().as_str(), project);
    let answer = doors
        .project
        .client()
        .request(subject, body.to_owned().into());
    serde_json::from_slice(&answer.await.unwrap().payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn ids_and_actions() {
    let doors = Doors::open().await;
    for error in doors
        .refused_item(&item(&json!({"id": "not-a-uuid"})))
        .await
    {
        check(&error, ErrorCode::InvalidRequest, &["id", "not-a-uuid"]);
    }
    for error in doors.refused("work.claim", &json!({"guid": "me"})).await {
        check(&error, ErrorCode::InvalidRequest, &["guid"]);
    }
    for error in doors.refused("work.sumbit", &json!({})).await {
        check(
            &error,
            ErrorCode::InvalidRequest,
            &["work.sumbit", "like coord.default.work.submit"],
        );
    }
    let nobody = json!({"id": WorkId::generate()});
    for action in ["work.get", "work.cancel", "work.explain"] {
        for error in doors.refused(action, &nobody).await {
            check(
                &error,
                ErrorCode::NotFound,
                &[nobody["id"].as_str().unwrap()],
            );
        }
    }
}
