//! What is refused of a target, and how it is named.

use super::*;

#[test]
fn what_is_refused_is_named_by_its_field() {
    let ssh = |field: &str, value: Value| {
        let mut config = json!({"host": "h", "user": "u", "command": "c"});
        config[field] = value;
        (
            "ssh",
            json!({ "ssh": config }),
            format!("config.ssh.{field}"),
        )
    };
    let hook = |field: &str, value: Value| {
        let mut config = json!({"url": "http://h/x"});
        config[field] = value;
        ("webhook", config, format!("config.{field}"))
    };
    for (mechanism, config, field) in [
        ssh("host", json!("")),
        ssh("host", Value::Null),
        ssh("host", json!("-oProxyCommand=x")),
        ssh("host", json!("h;x")),
        ssh("user", json!("-l")),
        ssh("command", json!(" ")),
        ssh("port", json!(0)),
        ssh("port", json!(70_000)),
        ssh("privateKeyPath", json!("/k/%d")),
        ssh("jumpHost", json!("a@b@c")),
        ssh("jumpHost", json!("h:0")),
        ssh("jumpHost", json!("u@-x")),
        ssh("connectionTimeoutMs", json!(0)),
        ssh("knownHosts", json!("off")),
        hook("url", json!("")),
        hook("url", json!("ftp://h")),
        hook("url", json!("http://")),
        hook("url", json!("http://u:p@h/")),
        hook("url", json!("http://h:0/")),
        hook("url", json!("http://h:99999/")),
        hook("url", json!("http://h/a b")),
        hook("method", json!("DELETE")),
        hook("bodyTemplate", json!("{{secret}}")),
        hook("successCodes", json!([])),
        hook("successCodes", json!([500])),
        hook("host", json!("h")),
        (
            "local",
            json!({"command": "c", "host": "h"}),
            "config.host".into(),
        ),
        (
            "kubernetes",
            json!({"kubernetes": {"url": "http://h", "image": "i"}}),
            "config.kubernetes.url".into(),
        ),
        (
            "webhook",
            json!({"url": "http://h", "successCodes": [200, 99_999]}),
            "config.successCodes.1".into(),
        ),
        hook("timeoutMs", json!(0)),
        hook("secretEnvVar", json!("A-B")),
        (
            "webhook",
            json!({"url": "http://h", "headers": {"A": "***"}}),
            "config.headers.A".into(),
        ),
        (
            "webhook",
            json!({"url": "http://h", "headers": {"A b": "x"}}),
            "config.headers.A b".into(),
        ),
        (
            "webhook",
            json!({"url": "http://h", "headers": {"A": "x\ny"}}),
            "config.headers.A".into(),
        ),
        (
            "webhook",
            json!({"url": "http://h", "headers": {"Host": "x"}}),
            "config.headers.Host".into(),
        ),
        ("local", json!({"local": {}}), "config.local.command".into()),
        (
            "local",
            json!({"command": "a", "shell": true, "args": ["b"]}),
            "config.args".into(),
        ),
        (
            "local",
            json!({"command": "a\u{0}b"}),
            "config.command".into(),
        ),
        (
            "local",
            json!({"command": "a", "env": {"1A": "x"}}),
            "config.env.1A".into(),
        ),
        (
            "local",
            json!({"command": "a", "env": {"A": []}}),
            "config.env".into(),
        ),
        ("local", json!({"ssh": {}}), "config.ssh".into()),
        (
            "local",
            json!({"mechanism": "ssh", "command": "a"}),
            "config.mechanism".into(),
        ),
        ("local", json!({"local": 7}), "config.local".into()),
        (
            "kubernetes",
            json!({"namespace": "N", "jobNamePrefix": "j", "image": "i"}),
            "config.namespace".into(),
        ),
        (
            "github-actions",
            json!({"repo": "r", "workflow": "w"}),
            "config.repo".into(),
        ),
        (
            "github-actions",
            json!({"repo": "o/r", "workflow": "w", "inputs": {"a": "{{spinupid}}"}}),
            "config.inputs.a".into(),
        ),
    ] {
        let error = with_config(mechanism, config.clone()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{config}: {error}");
        assert_eq!(
            error.details.as_ref().unwrap()["field"],
            field,
            "{config}: {error}"
        );
        assert!(error.message.starts_with(&field), "{error}");
    }
}

#[test]
fn what_is_written_in_a_text_field_is_text_in_each_mechanism_that_has_it() {
    let is_text = |mechanism: Mechanism, field: &str| {
        let error = with_config(mechanism.as_str(), json!({ field: 5 })).unwrap_err();
        error.message.ends_with("; write text")
    };
    for field in Mechanism::ALL.into_iter().flat_map(Mechanism::fields) {
        let mut with = Mechanism::ALL.into_iter().filter(|of| of.has_field(field));
        let in_each = with.all(|of| is_text(of, field));
        assert_eq!(Mechanism::is_text_field(field), in_each, "{field}");
    }
    assert!(Mechanism::is_text_field("workflowFile"));
}

#[test]
fn what_is_missing_is_named_and_told_from_what_is_blank() {
    let body = |without: &str| {
        let mut body = json!({"name": "t", "agentType": "a", "capabilities": ["c"], "mechanism": "local", "command": "x"});
        body.as_object_mut().unwrap().remove(without);
        body
    };
    for (field, named) in [
        ("name", "name is missing or empty"),
        ("agentType", "agentType is missing or empty"),
        ("capabilities", "capabilities is missing or empty"),
        ("command", "config.command is missing or empty"),
    ] {
        let error = registration(&body(field)).unwrap_err();
        assert!(error.message.starts_with(named), "{error}");
    }
    let blank = with_config("local", json!({"command": " "})).unwrap_err();
    assert!(blank.message.contains("is only spaces"), "{blank}");
    let optional = json!({"command": "c", "workingDirectory": ""});
    let empty = with_config("local", optional).unwrap_err();
    assert!(
        empty.message.contains("workingDirectory is empty"),
        "{empty}"
    );
}

#[test]
fn what_every_target_has_is_checked() {
    let body = |field: &str, value: Value| {
        let mut body = json!({"name": "t", "agentType": "a", "capabilities": ["c"], "mechanism": "local", "command": "x"});
        body[field] = value;
        body
    };
    registration(&body("maxAgents", json!(5))).unwrap();
    for (field, value, code) in [
        ("name", json!("a b"), ErrorCode::InvalidToken),
        ("name", json!("x".repeat(300)), ErrorCode::InvalidToken),
        ("name", json!(""), ErrorCode::InvalidToken),
        ("agentType", json!(""), ErrorCode::InvalidToken),
        ("capabilities", json!([]), ErrorCode::InvalidRequest),
        ("capabilities", json!(vec!["c"; 65]), ErrorCode::TooLarge),
        ("boundaries", json!([" x"]), ErrorCode::InvalidToken),
        ("maxAgents", json!(0), ErrorCode::InvalidRequest),
        ("maxAgents", json!(-1), ErrorCode::InvalidRequest),
        ("mechanism", json!("teleport"), ErrorCode::InvalidRequest),
        ("mechanism", Value::Null, ErrorCode::InvalidRequest),
        ("description", json!("x".repeat(5000)), ErrorCode::TooLarge),
        (
            "healthCheck",
            json!({"intervalMs": 5}),
            ErrorCode::InvalidRequest,
        ),
        ("config", json!("text"), ErrorCode::InvalidRequest),
        (
            "config",
            json!({"command": "x".repeat(10_000_000)}),
            ErrorCode::TooLarge,
        ),
    ] {
        let error = registration(&body(field, value)).unwrap_err();
        assert_eq!(error.code, code, "{field}: {error}");
        assert!(error.message.contains(field), "{error}");
    }
    assert!(
        !registration(&body("enabled", json!(false)))
            .unwrap()
            .enabled
    );
    let old = registration(&body("classifications", json!(["b"]))).unwrap();
    assert_eq!(old.boundaries, ["b"]);
}
