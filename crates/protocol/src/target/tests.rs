mod refused;

use super::*;
use crate::{Encoding, ErrorCode, WireError};
use proptest::prelude::*;
use serde_json::{Value, json};

pub(super) fn registration(body: &Value) -> Result<NewTarget, WireError> {
    let payload = serde_json::to_vec(body).unwrap();
    let request: RegisterTarget = Encoding::Json.decode_request(&payload)?;
    request.check()
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it is always written in place"
)]
pub(super) fn with_config(mechanism: &str, config: Value) -> Result<NewTarget, WireError> {
    registration(&json!({
        "name": "t", "agentType": "claude-code", "capabilities": ["rust"], "mechanism": mechanism, "config": config,
    }))
}

pub(super) fn target(new: NewTarget) -> Target {
    let now = Timestamp::from_millis(1_800_000_000_000);
    new.into_target(TargetId::generate(), "test".to_owned(), now)
}

pub(super) fn raw(config: Value) -> RawConfig {
    serde_json::from_value(config).unwrap()
}

#[test]
fn nested_flat_and_top_level_are_the_same_configuration() {
    let fields = json!({"host": "h", "user": "u", "command": "c", "port": 2222});
    let mut flat = fields.clone();
    flat["mechanism"] = "ssh".into();
    let mut top = flat.clone();
    top["name"] = "t".into();
    top["agentType"] = "claude-code".into();
    top["capabilities"] = json!(["rust"]);
    let nested = with_config("ssh", json!({"mechanism": "ssh", "ssh": fields})).unwrap();
    let bare = with_config("ssh", json!({"ssh": fields})).unwrap();
    let flat = with_config("ssh", flat).unwrap();
    let top = registration(&top).unwrap();
    assert_eq!(nested, bare);
    assert_eq!(flat, top);
    assert_eq!(nested.config.of(), flat.config.of());
    let (nested, flat) = (target(nested), target(flat));
    let answered = serde_json::to_value(&nested.config).unwrap();
    assert_eq!(answered["ssh"]["host"], "h");
    let answered = serde_json::to_value(&flat.config).unwrap();
    assert_eq!(
        (&answered["host"], &answered["mechanism"]),
        (&"h".into(), &"ssh".into())
    );
    assert!(answered.get("ssh").is_none());
    assert_eq!(
        flat.stored().unwrap()["config"]["ssh"]["host"],
        "h",
        "stored nested"
    );
}

#[test]
fn a_flat_command_is_a_line_and_a_nested_one_is_a_program() {
    let of = |config| match with_config("local", config).unwrap().config.of() {
        MechanismConfig::Local(config) => config.clone(),
        _ => panic!("another mechanism"),
    };
    assert!(of(json!({"command": "a && b"})).shell);
    assert!(!of(json!({"command": "a", "args": ["b"]})).shell);
    assert!(!of(json!({"local": {"command": "a"}})).shell);
    assert!(of(json!({"local": {"command": "a", "shell": true}})).shell);
    let flat = with_config("local", json!({"command": "a && b"}))
        .unwrap()
        .config;
    assert_eq!(flat.stored().unwrap()["local"]["shell"], true);
    assert_eq!(
        serde_json::to_value(&flat).unwrap(),
        json!({"mechanism": "local", "command": "a && b", "detached": true})
    );
    let config = json!({"repo": "o/r", "workflowFile": "w.yml"});
    let github = with_config("github-actions", config).unwrap().config;
    assert_eq!(
        github.stored().unwrap()["githubActions"]["workflow"],
        "w.yml"
    );
    assert_eq!(
        serde_json::to_value(&github).unwrap()["workflowFile"],
        "w.yml"
    );
}

#[test]
fn secrets_are_stored_and_never_answered_or_printed() {
    let config = json!({"local": {"command": "x", "env": {"A": "s3cret-one", "N": 7}}});
    let target = target(with_config("local", config).unwrap());
    let stored = target.stored().unwrap();
    assert_eq!(
        stored["config"]["local"]["env"],
        json!({"A": "s3cret-one", "N": "7"})
    );
    assert_eq!(serde_json::from_value::<Target>(stored).unwrap(), target);
    let answered = serde_json::to_string(&target.clone().answer()).unwrap();
    for shown in [answered, format!("{target:?}")] {
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains(MASK) && shown.contains("\"A\""), "{shown}");
    }
    let packed = Encoding::MessagePack.encode(&target).unwrap();
    assert!(!String::from_utf8_lossy(&packed).contains("s3cret"));
    let asked: RegisterTarget =
        serde_json::from_value(json!({"config": {"env": "s3cret"}, "url": "s3cret"})).unwrap();
    assert!(!format!("{asked:?}").contains("s3cret"));
    let ticket = BirthTicket::generate();
    assert!(!format!("{ticket:?}").contains(ticket.expose()));
    assert_eq!(ticket.expose().len(), 64 + BirthTicket::PREFIX.len());
    let said = format!("a {} b{}", ticket.expose(), ticket.expose());
    assert_eq!(BirthTicket::hide_all(&said), "a *** b***");
}

#[test]
fn an_update_merges_and_keeps_what_is_masked() {
    let config = json!({"webhook": {"url": "http://h", "headers": {"A": "one", "B": "two"}, "secretEnvVar": "S"}});
    let target = target(with_config("webhook", config).unwrap());
    let updates: TargetUpdates = serde_json::from_value(json!({
        "config": {"webhook": {"headers": {"A": "***", "B": null, "C": "three"}, "secretEnvVar": null, "timeoutMs": 5}},
        "tags": ["x"], "description": "d",
    })).unwrap();
    let updated = updates.apply(&target, target.updated_at).unwrap();
    let MechanismConfig::Webhook(webhook) = updated.config.of() else {
        panic!("another mechanism")
    };
    let headers: Vec<_> = webhook.headers.expose().collect();
    assert_eq!(headers, [("A", "one"), ("C", "three")]);
    assert_eq!((&webhook.secret_env_var, webhook.timeout_ms), (&None, 5));
    assert_eq!(updated.tags, ["x"]);
    for (config, field) in [
        (
            json!({"webhook": {"headers": {"D": "***"}}}),
            "config.webhook.headers.D",
        ),
        (json!({"url": null}), "config.url"),
        (json!({"ssh": {"host": "h"}}), "config.ssh"),
    ] {
        let error = target.config.updated(&raw(config)).unwrap_err();
        assert_eq!(error.details.unwrap()["field"], field);
    }
    let many: Value = (0..2000)
        .map(|n| (format!("H{n}"), Value::from("x".repeat(40))))
        .collect();
    let error = target
        .config
        .updated(&raw(json!({ "headers": many })))
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[test]
fn the_filters_of_a_list_hold_together() {
    let new = with_config("local", json!({"command": "x"})).unwrap();
    let mut one = target(new);
    one.tags = vec!["fast".into()];
    let filter = |filter: Value| serde_json::from_value::<ListTargetsRequest>(filter).unwrap();
    assert!(
        filter(
            json!({"type": "claude-code", "capability": "rust", "boundary": "any", "tag": "fast"})
        )
        .matches(&one)
    );
    assert!(!filter(json!({"mechanism": "ssh"})).matches(&one));
    one.boundaries = vec!["b".into()];
    assert!(!filter(json!({"boundary": "any"})).matches(&one));
    one.status = TargetStatus::Disabled;
    assert!(!filter(json!({})).matches(&one));
    assert!(filter(json!({"includeDisabled": true})).matches(&one));
    assert!(filter(json!({"status": "disabled"})).matches(&one));
}

fn any_config() -> impl Strategy<Value = (Mechanism, Value)> {
    let text = || "[a-z\"'$ \n\\\\é]{0,12}";
    let env = || prop::collection::btree_map("[A-Z]{1,3}", "s3cret-[a-z*]{0,8}", 0..4);
    let local = (text(), env(), any::<bool>(), prop::option::of(text())).prop_map(
        |(command, env, detached, dir)| {
            let mut config =
                json!({"command": format!("x{command}"), "env": env, "detached": detached});
            if let Some(dir) = dir {
                config["workingDirectory"] = format!("/{dir}").into();
            }
            (Mechanism::Local, config)
        },
    );
    let ssh = ("[a-z]{1,9}", 1..=u16::MAX, text(), env()).prop_map(|(host, port, command, env)| {
        (Mechanism::Ssh, json!({"host": host, "user": "u", "port": port, "command": format!("x{command}"), "env": env}))
    });
    let webhook = ("[a-z]{1,9}", env(), 1..9999_u64).prop_map(|(host, headers, timeout)| {
        (
            Mechanism::Webhook,
            json!({"url": format!("https://{host}/"), "headers": headers, "timeoutMs": timeout}),
        )
    });
    prop_oneof![local, ssh, webhook]
}

proptest! {
    #[test]
    fn what_is_stored_is_read_again_and_what_is_answered_has_no_secret((mechanism, fields) in any_config(), flat: bool) {
        let config = if flat { fields } else { json!({ mechanism.key(): fields }) };
        let read = TargetConfig::read(mechanism, &raw(config)).unwrap();
        prop_assert_eq!(read.shape() == ConfigShape::Flat, flat);
        let stored = serde_json::to_vec(&read.stored().unwrap()).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<TargetConfig>(&stored).unwrap(), &read);
        let answered = serde_json::to_value(&read).unwrap();
        prop_assert!(!answered.to_string().contains("s3cret"));
        // What is answered, sent back as an update, changes nothing.
        prop_assert_eq!(read.updated(&raw(answered)).unwrap(), read);
    }

    #[test]
    fn an_update_twice_is_an_update_once((mechanism, fields) in any_config(), changes in any_config(), flat: bool, masked: bool) {
        let read = TargetConfig::read(mechanism, &raw(fields)).unwrap();
        let (other, mut changes) = changes;
        if masked {
            changes["env"]["A"] = MASK.into();
        }
        let changes = raw(if flat { changes } else { json!({ other.key(): changes }) });
        if let Ok(once) = read.updated(&changes) {
            prop_assert_eq!(once.updated(&changes).unwrap(), once);
        }
    }

    #[test]
    fn no_bytes_upset_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200), packed: bool) {
        let encoding = if packed { Encoding::MessagePack } else { Encoding::Json };
        if let Ok(request) = encoding.decode_request::<RegisterTarget>(&bytes) {
            let _ = request.check();
        }
    }

    #[test]
    fn no_value_in_a_field_upsets_the_reader(
        at in 0..14_usize, value in any_value(), flat: bool, mechanism in prop::sample::select(Mechanism::ALL.to_vec()),
    ) {
        let fields = [
            "command", "args", "env", "workingDirectory", "host", "user", "port", "jumpHost", "url", "headers",
            "bodyTemplate", "successCodes", "shell", "mechanism",
        ];
        let config = json!({ fields[at]: value });
        let config = if flat { config } else { json!({ mechanism.key(): config }) };
        let body = json!({"name": "t", "agentType": "a", "capabilities": ["c"], "mechanism": mechanism, "config": config});
        let _ = registration(&body);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}|[-@:\\[\\]{}*\0]{0,9}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[A-Za-z*]{0,4}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

#[test]
fn the_words_of_states_are_those_of_the_wire() {
    fn check<T: serde::Serialize + Copy>(all: &[T], word: fn(T) -> &'static str) {
        for one in all {
            assert_eq!(serde_json::to_value(one).unwrap(), json!(word(*one)));
        }
    }
    check(&TargetStatus::ALL, TargetStatus::as_str);
    check(&HealthStatus::ALL, HealthStatus::as_str);
    check(&SpinUpStatus::ALL, SpinUpStatus::as_str);
    check(&Mechanism::ALL, Mechanism::as_str);
}
