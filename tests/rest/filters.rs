//! Filters of lists that are one of a few words: a wrong one is answered with the parameter, what it says, and which there
//! are.

use reqwest::Method;
use serde_json::json;

use crate::House;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_wrong_word_in_a_filter_is_answered_with_those_that_there_are() {
    let house = House::open().await;
    let work = "pending, assigned, in-progress";
    for (path, parameter, wrong, known, near) in [
        ("agents", "status", "onli", "online, busy", Some("online")),
        ("work", "status", "pend", work, Some("pending")),
        ("work", "status", "pending,fail", work, Some("failed")),
        ("work", "order", "newest", "asc, desc", None),
        (
            "dlq",
            "reason",
            "time-out",
            "agent-error, usage-limit, timeout",
            Some("timeout"),
        ),
        ("dlq", "order", "dsc", "asc, desc", Some("desc")),
        (
            "targets",
            "status",
            "in_use",
            "available, in-use, disabled, error",
            Some("in-use"),
        ),
        (
            "targets",
            "healthStatus",
            "heal",
            "healthy, unhealthy, unknown",
            Some("healthy"),
        ),
        (
            "targets",
            "mechanism",
            "Kubernetes",
            "local, ssh, kubernetes, github-actions",
            Some("kubernetes"),
        ),
        (
            "targets",
            "mechanism",
            "k8s",
            "local, ssh, kubernetes",
            None,
        ),
        (
            "spin-ups",
            "status",
            "succ",
            "pending, in-progress, success",
            Some("success"),
        ),
        (
            "events",
            "topic",
            "works",
            "work, agents, targets",
            Some("work"),
        ),
    ] {
        let path = format!("/api/{path}?{parameter}={wrong}");
        let (status, answer) = house.ask(Method::GET, &path, None).await;
        assert_eq!(status, 400, "{path}: {answer}");
        assert_eq!(answer["code"], json!("invalid-request"), "{path}: {answer}");
        let message = answer["message"].as_str().unwrap();
        let wrong = wrong.rsplit(',').next().unwrap();
        let said = format!("{parameter} = {wrong:?} is none of {known}");
        assert!(message.starts_with(&said), "{path}: {message}");
        let hint = near.map(|near| format!("; did you mean {near}?"));
        match hint {
            Some(hint) => assert!(message.ends_with(&hint), "{path}: {message}"),
            None => assert!(!message.contains("did you mean"), "{path}: {message}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn every_word_of_a_filter_is_taken() {
    let house = House::open().await;
    for (path, parameter, words) in [
        (
            "agents",
            "status",
            "online busy paused draining quarantined offline",
        ),
        (
            "work",
            "status",
            "pending assigned pending,completed pending,%20failed",
        ),
        ("work", "order", "asc desc"),
        ("dlq", "reason", "agent-error usage-limit cancelled"),
        ("dlq", "order", "asc desc"),
        ("targets", "status", "available in-use disabled error"),
        ("targets", "healthStatus", "healthy unhealthy unknown"),
        (
            "targets",
            "mechanism",
            "local ssh kubernetes github-actions webhook",
        ),
        (
            "spin-ups",
            "status",
            "pending in-progress success failed timeout",
        ),
    ] {
        for word in words.split(' ') {
            house.get(&format!("/api/{path}?{parameter}={word}")).await;
        }
    }
}
