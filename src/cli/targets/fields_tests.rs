use super::*;
use serde_json::json;

#[test]
fn flags_are_a_flat_configuration_with_values_of_their_kind() {
    let fields = Fields {
        host: Some("build-2".into()),
        env: vec![("A".into(), "1".into())],
        set: vec![
            ("port".into(), "22".into()),
            ("privateKeyPath".into(), "/k".into()),
            ("jumpHost".into(), String::new()),
        ],
        ..Fields::default()
    };
    let expected = json!({
        "host": "build-2", "env": {"A": "1"}, "port": 22, "privateKeyPath": "/k", "jumpHost": null,
    });
    assert_eq!(Value::Object(fields.config()), expected);
    assert!(pair("no").is_err() && pair("=x").is_err());
}

/// A file with a registration, and flags.
fn both(file: Value, fields: &Fields) -> RegisterTarget {
    let mut request: RegisterTarget = serde_json::from_value(file).unwrap();
    fields.go_before(&mut request).unwrap();
    request
}

fn config_of(request: RegisterTarget) -> Value {
    let new = request.check().unwrap();
    new.config.stored().unwrap()[new.config.mechanism().key()].clone()
}

#[test]
fn flags_go_before_a_file_of_whatever_shape() {
    let fields = Fields {
        host: Some("flag".into()),
        env: vec![("A".into(), "flag".into())],
        set: vec![
            ("port".into(), "23".into()),
            ("jumpHost".into(), String::new()),
        ],
        boundaries: vec![String::new()],
        description: Some(String::new()),
        ..Fields::default()
    };
    let ssh = json!({
        "host": "file", "user": "u", "command": "c", "port": 22, "jumpHost": "j", "env": {"A": "file", "B": "file"},
    });
    let common = json!({
        "name": "x", "agentType": "t", "capabilities": ["c"], "mechanism": "ssh",
        "classifications": ["eu"], "boundaries": ["eu"], "description": "d",
    });
    let shaped = |with: Value| {
        let mut file = common.clone();
        file.as_object_mut()
            .unwrap()
            .extend(with.as_object().unwrap().clone());
        file
    };
    for file in [
        shaped(json!({"config": {"mechanism": "ssh", "ssh": ssh}})),
        shaped(json!({"config": ssh})),
        shaped(ssh.clone()),
    ] {
        let request = both(file.clone(), &fields);
        assert_eq!(request.description, None);
        let new = request.clone().check().unwrap();
        assert!(new.boundaries.is_empty(), "{file}");
        let config = config_of(request);
        assert_eq!(
            (&config["host"], &config["port"]),
            (&json!("flag"), &json!(23)),
            "{file}"
        );
        assert_eq!(config["env"], json!({"A": "flag", "B": "file"}), "{file}");
        assert_eq!(config.get("jumpHost"), None, "{file}");
    }
}

#[test]
fn a_command_that_was_given_is_a_line_whatever_the_file_starts() {
    let fields = Fields {
        command: Some("a && b".into()),
        ..Fields::default()
    };
    let of = |config: Value| json!({"name": "x", "agentType": "t", "capabilities": ["c"], "mechanism": "local", "config": config});
    for config in [
        json!({"local": {"command": "c", "args": ["-x"]}}),
        json!({"local": {"command": "c"}}),
        json!({"command": "c", "args": ["-x"]}),
        json!({"command": "c", "shell": false}),
    ] {
        let config = config_of(both(of(config), &fields));
        assert_eq!(
            (&config["command"], &config["shell"]),
            (&json!("a && b"), &json!(true))
        );
    }
}

#[test]
fn a_flag_of_another_mechanism_is_refused_by_its_name() {
    let fields = |change: fn(&mut Fields)| {
        let mut fields = Fields::default();
        change(&mut fields);
        fields
    };
    let host = fields(|f| f.host = Some("h".into()));
    let env = fields(|f| f.env = vec![("A".into(), "b".into())]);
    let set = fields(|f| f.set = vec![("commend".into(), "b".into())]);
    let args = fields(|f| f.set = vec![("command".into(), "[\"run\"]".into())]);
    for (fields, mechanism, parts) in [
        (
            &host,
            Mechanism::Local,
            ["--host is for the mechanism ssh", "is local"],
        ),
        (&env, Mechanism::Webhook, ["--env is for", "is webhook"]),
        (
            &set,
            Mechanism::Local,
            ["--set commend", "did you mean command?"],
        ),
        (&args, Mechanism::Webhook, ["--set command", "url"]),
    ] {
        let error = fields.check_for(mechanism).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    for (fields, mechanism) in [
        (&host, Mechanism::Ssh),
        (&env, Mechanism::Kubernetes),
        (&args, Mechanism::Kubernetes),
    ] {
        assert!(fields.check_for(mechanism).is_ok());
    }
}

#[test]
fn a_field_of_the_wire_is_named_by_its_flag() {
    for (field, named) in [
        ("maxAgents", "--max-agents"),
        ("config.ssh.host", "--host"),
        ("config.url", "--address"),
        ("config.local.env.A", "--env A"),
        ("config.ssh.port", "--set port"),
        ("config.kubernetes.resources.cpu", "--set resources (cpu)"),
        ("config.webhook.successCodes.1", "--set successCodes"),
        ("healthCheck.intervalMs", "healthCheck.intervalMs"),
    ] {
        assert_eq!(flag(field), named);
    }
    let fields = Fields {
        max_agents: Some(0),
        env: vec![("A".into(), "b".into())],
        ..Fields::default()
    };
    assert_eq!(
        fields.flag_given("maxAgents").as_deref(),
        Some("--max-agents")
    );
    assert_eq!(
        fields.flag_given("config.env.A").as_deref(),
        Some("--env A")
    );
    assert_eq!(fields.flag_given("config.env.B"), None);
    assert_eq!(fields.flag_given("tags"), None);
}

#[test]
fn text_is_text_whatever_it_looks_like_and_json_where_that_is_meant() {
    for (field, written, is) in [
        (
            "bodyTemplate",
            r#"{"id":"{{targetId}}"}"#,
            json!(r#"{"id":"{{targetId}}"}"#),
        ),
        ("ref", "1.0", json!("1.0")),
        ("ref", r#""1.0""#, json!("1.0")),
        ("host", "true", json!("true")),
        ("command", r#"["run", "it"]"#, json!(["run", "it"])),
        ("inputs", r#"{"a": "b"}"#, json!({"a": "b"})),
        ("port", "22", json!(22)),
        ("jumpHost", "", Value::Null),
    ] {
        assert_eq!(value_of(field, written), is, "{field}");
    }
}

#[test]
fn a_field_that_was_set_is_named_by_the_flag_that_set_it() {
    let fields = Fields {
        set: vec![("command".into(), "agent".into())],
        host: Some("h".into()),
        ..Fields::default()
    };
    for (field, named) in [
        ("config.command", "--set command"),
        ("config.host", "--host"),
        ("maxAgents", "--max-agents"),
    ] {
        assert_eq!(fields.flag_of(field), named);
    }
}

#[test]
fn what_is_given_and_says_nothing_is_refused_by_its_flag() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (fields, said) in [
        (
            Fields {
                command: Some(String::new()),
                ..Fields::default()
            },
            "--command is empty",
        ),
        (
            Fields {
                address: Some(" ".into()),
                ..Fields::default()
            },
            "--address is empty",
        ),
        (
            Fields {
                capabilities: names(&[""]),
                ..Fields::default()
            },
            "--capability is empty",
        ),
        (
            Fields {
                boundaries: names(&["eu", ""]),
                ..Fields::default()
            },
            "--boundary has an empty name among others (eu,)",
        ),
    ] {
        for is_new in [true, false] {
            let error = fields.check_not_empty(is_new).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
    let cleared = Fields {
        boundaries: names(&[""]),
        tags: names(&[""]),
        description: Some(String::new()),
        ..Fields::default()
    };
    assert!(cleared.check_not_empty(false).is_ok());
}
