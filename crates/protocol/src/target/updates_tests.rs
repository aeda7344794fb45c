use serde_json::json;

use super::super::tests::{raw, registration, target, with_config};
use super::*;
use crate::ErrorCode;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_001_000);

fn updates(body: Value) -> TargetUpdates {
    serde_json::from_value(body).unwrap()
}

fn of(mechanism: &str, config: Value) -> Target {
    target(with_config(mechanism, config).unwrap())
}

#[test]
fn what_existing_clients_put_is_taken() {
    let ssh = of("ssh", json!({"host": "h", "user": "u", "command": "c"}));
    let body = json!({"host": "h2", "port": 2222, "classifications": ["eu"], "enabled": false});
    let changes = updates(body);
    assert!(changes.changes_config() && changes.enabled == Some(false));
    let next = changes.apply(&ssh, NOW).unwrap();
    let answered = next.config.answered().unwrap();
    assert_eq!(
        (&answered["host"], &answered["port"]),
        (&json!("h2"), &json!(2222))
    );
    assert_eq!(answered["user"], "u", "what is absent stays");
    assert_eq!(next.boundaries, ["eu"]);
    let both = updates(json!({"boundaries": [], "classifications": ["eu"]}));
    assert!(both.apply(&next, NOW).unwrap().boundaries.is_empty());

    let nested = updates(json!({"ssh": {"host": "h3"}}))
        .apply(&ssh, NOW)
        .unwrap();
    assert_eq!(nested.config.answered().unwrap()["host"], "h3");
    let github = of(
        "github-actions",
        json!({"repo": "o/r", "workflowFile": "a.yml"}),
    );
    let other = updates(json!({"workflowFile": "b.yml"})).apply(&github, NOW);
    assert_eq!(
        other.unwrap().config.answered().unwrap()["workflow"],
        "b.yml"
    );
}

/// A client reads a target, changes a field of it and sends the whole back.
#[test]
fn a_target_that_is_sent_back_whole_changes_nothing() {
    for config in [
        json!({"command": "run", "env": {"TOKEN": "hunter2"}}),
        json!({"local": {"command": "run", "args": ["-x"]}}),
    ] {
        let here = of("local", config);
        let whole = serde_json::to_value(here.clone().answer()).unwrap();
        let next = updates(whole).apply(&here, here.updated_at);
        assert_eq!(next, Ok(here));
    }
}

#[test]
fn what_no_update_changes_is_refused_by_its_name() {
    let here = of("local", json!({"command": "run"}));
    for (body, named) in [
        (json!({"name": "other"}), "name"),
        (json!({"agentType": "codex"}), "agentType"),
        (json!({"mechanism": "ssh"}), "mechanism"),
        (json!({"id": "1"}), "id"),
        (json!({"status": "disabled"}), "status"),
        (json!({"host": "h"}), "host"),
        (json!({"ssh": {"host": "h"}}), "ssh"),
        (json!({"config": {"args": []}, "command": "x"}), "command"),
    ] {
        let error = updates(body.clone()).apply(&here, NOW).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{body}");
        assert_eq!(error.details, Some(json!({"field": named})), "{body}");
        assert!(error.message.starts_with(named), "{error}");
    }
    for passed_over in [
        json!({"colour": "red"}),
        json!({"useCount": 7, "lastError": "x", "status": "in-use"}),
        json!({"host": null, "name": null}),
    ] {
        let changes = updates(passed_over.clone());
        assert_eq!(
            changes.apply(&here, here.updated_at),
            Ok(here.clone()),
            "{passed_over}"
        );
    }
}

#[test]
fn how_an_agent_is_started_is_said_by_any_spelling_of_it() {
    for says in [
        json!({"config": {}}),
        json!({"command": "rm"}),
        json!({"local": {"command": "rm"}}),
        json!({"env": {"A": "b"}}),
        json!({"workflowFile": "w"}),
    ] {
        assert!(updates(says.clone()).changes_config(), "{says}");
    }
    for says_not in [
        json!({}),
        json!({"maxAgents": 2, "colour": "red", "enabled": true}),
    ] {
        assert!(!updates(says_not.clone()).changes_config(), "{says_not}");
    }
}

#[test]
fn a_header_is_the_same_in_whatever_case() {
    let hook = of(
        "webhook",
        json!({"url": "https://h", "headers": {"Authorization": "one", "X-Other": "o"}}),
    );
    let headers = |target: &Target| target.config.stored().unwrap()["webhook"]["headers"].clone();
    for (change, left) in [
        (
            json!({"authorization": "two"}),
            json!({"authorization": "two", "X-Other": "o"}),
        ),
        (
            json!({"AUTHORIZATION": "***"}),
            json!({"Authorization": "one", "X-Other": "o"}),
        ),
        (json!({"aUTHORIZATION": null}), json!({"X-Other": "o"})),
    ] {
        let next = updates(json!({"config": {"headers": change}})).apply(&hook, NOW);
        assert_eq!(headers(&next.unwrap()), left, "{change}");
    }
    let twice = raw(json!({"url": "https://h", "headers": {"A": "1", "a": "2"}}));
    let twice = with_config("webhook", Value::Object(twice.0)).unwrap_err();
    assert_eq!(twice.details, Some(json!({"field": "config.headers.A"})));
}

#[test]
fn a_name_that_reads_as_an_id_or_a_folder_is_refused_and_no_other() {
    let named = |name: &str| {
        registration(&json!({
            "name": name, "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
        }))
    };
    for bad in [
        ".",
        "..",
        "deadbeef",
        "DEADBEEF",
        "20260101",
        "01a203ca-603d",
        "01a203ca-603d-7b4e-8d3f-0123456789ab",
        "01a203ca603d7b4e8d3f0123456789ab",
    ] {
        let error = named(bad).unwrap_err();
        assert_eq!(
            error.details,
            Some(json!({"field": "name"})),
            "{bad}: {error}"
        );
        assert!(error.message.contains("choose another name"), "{error}");
    }
    for good in [
        "...",
        ".a",
        "deadbee",
        "deadbeef.1",
        "t-deadbeef",
        "facade-bead",
        "deadbeefs",
    ] {
        assert!(named(good).is_ok(), "{good}");
    }
}

/// The table of fields against the types that read them.
#[test]
fn every_field_of_a_configuration_is_in_the_table() {
    use super::super::{
        GithubActionsConfig, KubernetesConfig, LocalConfig, SshConfig, WebhookConfig,
    };
    let schemas = [
        (Mechanism::Local, schemars::schema_for!(LocalConfig)),
        (Mechanism::Ssh, schemars::schema_for!(SshConfig)),
        (
            Mechanism::Kubernetes,
            schemars::schema_for!(KubernetesConfig),
        ),
        (
            Mechanism::GithubActions,
            schemars::schema_for!(GithubActionsConfig),
        ),
        (Mechanism::Webhook, schemars::schema_for!(WebhookConfig)),
    ];
    for (mechanism, schema) in schemas {
        let properties = schema.as_value()["properties"].as_object().unwrap();
        let mut there: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut table = mechanism.fields().to_vec();
        there.sort_unstable();
        table.sort_unstable();
        assert_eq!(there, table, "{mechanism}");
    }
}
