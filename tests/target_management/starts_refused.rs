//! Bad input about starts of agents: each with its code and a sentence, and nothing is begun.

use anyhow::{Context as _, Result, ensure};
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_protocol::{ErrorCode, SpinUpId};
use loom_testkit::births::Place;
use loom_testkit::fleet::Fleet;
use serde_json::{Value, json};

use crate::register;
use crate::starts::{failing, trigger, until};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn bad_input_about_starts_is_refused_and_begins_nothing() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let api = project.api()?;
    register(&project, failing(&place, "here", &json!({"maxAgents": 30}))).await?;
    let whole = SpinUpId::generate().to_string();
    for (action, body, code, part) in [
        ("trigger", json!({}), ErrorCode::InvalidRequest, "target"),
        (
            "trigger",
            json!({"target": ""}),
            ErrorCode::InvalidRequest,
            "target",
        ),
        (
            "trigger",
            json!({"target": 7}),
            ErrorCode::InvalidRequest,
            "target",
        ),
        (
            "trigger",
            json!({"target": "nobody"}),
            ErrorCode::NotFound,
            "nobody",
        ),
        (
            "trigger",
            json!({"target": "here", "workItemId": ["x"]}),
            ErrorCode::InvalidRequest,
            "workItemId",
        ),
        (
            "status",
            json!({}),
            ErrorCode::InvalidRequest,
            "operationId",
        ),
        (
            "status",
            json!({"operationId": whole}),
            ErrorCode::NotFound,
            &whole,
        ),
        (
            "status",
            json!({"operationId": "here"}),
            ErrorCode::NotFound,
            "here",
        ),
        (
            "status",
            json!({"operationId": {"a": 1}}),
            ErrorCode::InvalidRequest,
            "operationId",
        ),
        (
            "status",
            json!({"operationId": "x".repeat(100_000)}),
            ErrorCode::NotFound,
            "xxx",
        ),
        (
            "list",
            json!({"status": "done"}),
            ErrorCode::InvalidRequest,
            "status",
        ),
        (
            "list",
            json!({"limit": 0}),
            ErrorCode::InvalidRequest,
            "limit",
        ),
        (
            "list",
            json!({"limit": 1001}),
            ErrorCode::InvalidRequest,
            "limit",
        ),
        (
            "list",
            json!({"limit": -1}),
            ErrorCode::InvalidRequest,
            "limit",
        ),
        (
            "list",
            json!({"cursor": "x"}),
            ErrorCode::InvalidRequest,
            "cursor",
        ),
        (
            "list",
            json!({"target": "nobody"}),
            ErrorCode::NotFound,
            "nobody",
        ),
    ] {
        let refused = project
            .request(&format!("spin-up.{action}"), body.clone())
            .await;
        let error = refused
            .err()
            .with_context(|| format!("{action} {body} is taken"))?;
        assert_eq!(error.code, code, "{action} {body}: {error}");
        ensure!(
            error.to_string().contains(part),
            "{action} {body}: {part} is not in {error}"
        );
        ensure!(
            error.message.len() < 2_000,
            "an error repeats no more than a part of what was sent"
        );
    }
    for (path, query, code) in [
        (
            &["spin-ups", whole.as_str()][..],
            &[][..],
            ErrorCode::NotFound,
        ),
        (&["spin-ups", "none"], &[], ErrorCode::NotFound),
        (
            &["spin-ups"],
            &[("status", "Success")],
            ErrorCode::InvalidRequest,
        ),
        (
            &["spin-ups"],
            &[("limit", "many")],
            ErrorCode::InvalidRequest,
        ),
        (
            &["spin-ups"],
            &[("cursor", "n1.x")],
            ErrorCode::InvalidRequest,
        ),
        (&["spin-ups"], &[("target", "none")], ErrorCode::NotFound),
    ] {
        let query: Vec<_> = query
            .iter()
            .map(|(n, v): &(&str, &str)| (*n, (*v).to_owned()))
            .collect();
        let refused = api.get::<Value>(path, &query).await;
        assert_eq!(
            refused.err().and_then(|e| e.code()),
            Some(code),
            "{path:?} {query:?}"
        );
    }
    let spin_up = ["targets", "here", "spin-up"];
    for wrong in [
        json!([]),
        json!("here"),
        json!({"workItemId": 7}),
        json!({"workItemId": "x".repeat(10_000_000)}),
    ] {
        let refused = api.post::<Value>(&spin_up, &wrong).await;
        ensure!(refused.is_err());
    }
    let none = project.request("spin-up.list", json!({})).await?;
    assert_eq!(none, json!([]), "nothing was begun");

    // Of more than sixteen two begin alike.
    for _ in 0..17 {
        let begun = trigger(&project, "HERE").await?;
        until(&project, begun.operation_id, SpinUpStatus::Failed).await?;
    }
    let all: Vec<SpinUpOperation> = project.call("spin-up.list", &json!({})).await?;
    let digit = |one: &SpinUpOperation| one.operation_id.to_string()[..1].to_owned();
    let digits: Vec<String> = all.iter().map(digit).collect();
    let shared = digits
        .iter()
        .find(|one| digits.iter().filter(|other| other == one).count() > 1);
    let shared = json!({"operationId": shared.context("two begin alike")?});
    let error = project
        .request("spin-up.status", shared)
        .await
        .err()
        .context("it is ambiguous")?;
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    let candidates = error
        .details
        .as_ref()
        .and_then(|details| details["candidates"].as_array());
    ensure!(
        candidates.is_some_and(|candidates| candidates.len() > 1),
        "{error}"
    );
    Ok(())
}
