use super::*;
use proptest::prelude::*;
use serde_json::json;

pub(super) fn project() -> ProjectId {
    ProjectId::new("p").unwrap()
}

pub(super) fn terms(project: &ProjectId, now: i64) -> Terms<'_> {
    Terms {
        project,
        heartbeat_every: Duration::from_secs(10),
        now: Timestamp::from_millis(now),
    }
}

fn request() -> RegisterRequest {
    RegisterRequest {
        handle: "ada".into(),
        agent_type: "claude-code".into(),
        capabilities: vec!["rust".into()],
        ..Default::default()
    }
}

fn registered(request: &RegisterRequest) -> Result<Agent, WireError> {
    register(
        request,
        AgentGuid::generate(),
        None,
        false,
        &terms(&project(), 5),
    )
}

fn put(value: &Value) -> Result<AgentPut, Unreadable> {
    let guid = value["guid"].as_str().and_then(|guid| guid.parse().ok());
    read_put(guid.unwrap(), value.to_string().as_bytes())
}

#[test]
fn what_a_registration_leaves_out_has_defaults() {
    let agent = registered(&request()).unwrap();
    assert_eq!(agent.status, AgentStatus::Online);
    assert_eq!(agent.boundaries, ["default"]);
    assert_eq!(agent.max_concurrent_tasks, 1);
    assert_eq!(agent.heartbeat_interval_ms, Some(10_000));
    assert_eq!(agent.registered_at, Timestamp::from_millis(5));
}

#[test]
fn type_and_boundaries_are_found_in_the_metadata() {
    let agent = registered(&RegisterRequest {
        agent_type: String::new(),
        metadata: Some(json!({"agentType": "codex", "boundaries": ["work", "home", "work"]})),
        ..request()
    })
    .unwrap();
    assert_eq!(agent.agent_type, "codex");
    assert_eq!(agent.boundaries, ["work", "home"]);
}

#[test]
fn a_registration_that_breaks_a_rule_is_refused_with_its_field() {
    let many = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>();
    let long = "x".repeat(300);
    let bad = [
        (
            RegisterRequest {
                handle: "a b".into(),
                ..request()
            },
            "handle",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                handle: String::new(),
                ..request()
            },
            "handle",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                agent_type: String::new(),
                ..request()
            },
            "agentType",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                capabilities: vec![],
                ..request()
            },
            "capabilities",
            ErrorCode::InvalidRequest,
        ),
        (
            RegisterRequest {
                capabilities: vec!["a\tb".into()],
                ..request()
            },
            "capability",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                capabilities: vec![long.clone()],
                ..request()
            },
            "capability",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                capabilities: many(65),
                ..request()
            },
            "capability",
            ErrorCode::InvalidRequest,
        ),
        (
            RegisterRequest {
                boundaries: Some(many(65)),
                ..request()
            },
            "boundary",
            ErrorCode::InvalidRequest,
        ),
        (
            RegisterRequest {
                boundaries: Some(vec![" é".into()]),
                ..request()
            },
            "boundary",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                max_concurrent_tasks: Some(0),
                ..request()
            },
            "maxConcurrentTasks",
            ErrorCode::InvalidRequest,
        ),
        (
            RegisterRequest {
                max_concurrent_tasks: Some(1001),
                ..request()
            },
            "maxConcurrentTasks",
            ErrorCode::InvalidRequest,
        ),
        (
            RegisterRequest {
                heartbeat_interval_ms: Some(99),
                ..request()
            },
            "heartbeatIntervalMs",
            ErrorCode::InvalidRequest,
        ),
        (
            RegisterRequest {
                hostname: Some(long),
                ..request()
            },
            "hostname",
            ErrorCode::TooLarge,
        ),
        (
            RegisterRequest {
                limit_group: Some("my account".into()),
                ..request()
            },
            "limitGroup",
            ErrorCode::InvalidToken,
        ),
        (
            RegisterRequest {
                metadata: Some(json!("m".repeat(MAX_METADATA))),
                ..request()
            },
            "metadata",
            ErrorCode::TooLarge,
        ),
    ];
    for (request, field, code) in bad {
        let error = registered(&request).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(field), "{error}");
        assert!(error.message.len() < 300, "{error}");
    }
    assert!(
        registered(&RegisterRequest {
            capabilities: many(64),
            ..request()
        })
        .is_ok()
    );
}

#[test]
fn a_known_guid_that_registers_again_keeps_what_is_the_coordinators() {
    let project = project();
    let run = |run: &str| RegisterRequest {
        instance_id: Some(run.into()),
        ..request()
    };
    let first = Agent {
        target_id: Some("t".into()),
        hostname: Some("h".into()),
        ..registered(&run("one")).unwrap()
    };
    let again = |request: &RegisterRequest| {
        let terms = terms(&project, 9);
        register(request, first.guid, Some(&first), false, &terms).unwrap()
    };
    for other in [run("two"), request()] {
        assert_eq!(again(&other).target_id, None, "another run was not born");
    }
    let again = again(&run("one"));
    assert_eq!(again.registered_at, first.registered_at);
    assert_eq!(again.target_id, first.target_id);
    assert_eq!(
        again.hostname, None,
        "what the agent does not say any more is gone"
    );
}

#[test]
fn a_bare_entry_is_an_agent() {
    let guid = AgentGuid::generate();
    let put = put(&json!({"guid": guid, "capabilities": ["rust", "rust"]})).unwrap();
    let agent = merge(None, &put, false, Seen::Put, &terms(&project(), 5)).unwrap();
    assert_eq!(agent.capabilities, ["rust"]);
    assert_eq!(agent.boundaries, ["default"]);
    assert_eq!(agent.status, AgentStatus::Online);
    assert_eq!(agent.agent_type, "unknown");
    assert!(agent.handle.contains(&guid.to_string()));
}

#[test]
fn only_what_is_the_agents_counts_in_a_put() {
    let project = project();
    let known = Agent {
        target_id: Some("t".into()),
        hostname: Some("h".into()),
        ..registered(&request()).unwrap()
    };
    let put = put(&json!({
        "guid": known.guid, "capabilities": ["c++"], "status": "quarantined", "targetId": "mine",
        "registeredAt": "yesterday", "lastHeartbeat": 7, "projectId": "other", "scope": "team",
        "currentTaskCount": 3, "metadata": {"agentType": "codex"}, "anything": [],
    }))
    .unwrap();
    let agent = merge(Some(&known), &put, false, Seen::Put, &terms(&project, 9)).unwrap();
    let expected = Agent {
        capabilities: vec!["c++".into()],
        visibility: Some("team".into()),
        current_task_count: 3,
        agent_type: "codex".into(),
        metadata: Some(json!({"agentType": "codex"})),
        last_heartbeat: Timestamp::from_millis(9),
        ..known
    };
    assert_eq!(agent, expected);
}

#[test]
fn a_goodbye_is_believed_until_the_next_sign_of_life() {
    let project = project();
    let known = registered(&request()).unwrap();
    let said = |known: &Agent, status: &str| {
        let value = json!({"guid": known.guid, "capabilities": ["rust"], "status": status});
        merge(
            Some(known),
            &put(&value).unwrap(),
            false,
            Seen::Put,
            &terms(&project, 9),
        )
        .unwrap()
    };
    let gone = said(&known, "offline");
    assert_eq!(gone.status, AgentStatus::Offline);
    assert_eq!(on_heartbeat(gone.status, None, false), AgentStatus::Online);
    assert_eq!(said(&gone, "busy").status, AgentStatus::Busy);
    assert_eq!(said(&gone, "moon-phase").status, AgentStatus::Online);
}

#[test]
fn unreadable_entries_say_why() {
    let guid = AgentGuid::generate();
    let other = AgentGuid::generate();
    let entries = [
        (
            json!({"guid": other, "capabilities": ["a"]}).to_string(),
            "key",
        ),
        (json!({"capabilities": [7]}).to_string(), "not text"),
        (json!({"capabilities": {}}).to_string(), "not a list"),
        (
            json!({"maxConcurrentTasks": "many"}).to_string(),
            "whole number",
        ),
        ("[]".to_string(), "not an object"),
        ("{".to_string(), "JSON"),
        (String::new(), "JSON"),
        ("x".repeat(MAX_METADATA * 5), "bytes"),
    ];
    for (value, reason) in entries {
        let error = read_put(guid, value.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let put = put(&json!({"guid": guid, "capabilities": ["a\tb"]})).unwrap();
    assert!(merge(None, &put, false, Seen::Put, &terms(&project(), 1)).is_err());
}

fn written(agent: &Agent) -> OwnEntry<'_> {
    OwnEntry {
        agent: std::borrow::Cow::Borrowed(agent),
        shutdown_order: Some(loom_protocol::agent::Directive {
            kind: loom_protocol::agent::DirectiveKind::Shutdown,
            work_item_id: None,
            attempt: None,
            reason: Some("enough".into()),
            grace_ms: Some(5),
            instance_id: None,
        }),
        shutdown_cause: Some(loom_protocol::event::ShutdownReason::IdleTimeout),
    }
}

#[test]
fn what_the_registry_wrote_is_read_back_and_is_an_agent_for_others() {
    let agent = registered(&request()).unwrap();
    let value = serde_json::to_vec(&written(&agent)).unwrap();
    assert_eq!(read_own(agent.guid, &value), Ok(written(&agent)));
    assert_eq!(serde_json::from_slice::<Agent>(&value).unwrap(), agent);
    assert_eq!(
        read_put(agent.guid, &value).unwrap().handle,
        Some(agent.handle)
    );
}

pub(super) fn status() -> impl Strategy<Value = AgentStatus> {
    prop::sample::select(&AgentStatus::ALL[..])
}

proptest! {
    #[test]
    fn an_agent_decides_only_what_is_its_own(
        current in status(), said in prop::option::of(status()), leaving in any::<bool>(),
    ) {
        use AgentStatus::{Busy, Draining, Offline, Online, Paused, Quarantined};
        let heard = on_heartbeat(current, said, leaving);
        prop_assert_ne!(heard, Offline, "who speaks is not offline");
        if matches!(current, Paused | Quarantined) {
            prop_assert_eq!(heard, current);
        } else {
            prop_assert!(matches!(heard, Online | Busy | Draining));
            prop_assert!(!leaving || heard == Draining);
        }
        prop_assert_eq!(on_heartbeat(heard, said, leaving), heard, "saying it twice changes nothing");
    }

    #[test]
    fn a_put_is_read_or_refused_and_merging_it_twice_is_merging_it_once(
        bytes in "[ -~]{0,8}", tasks in any::<Option<u32>>(), slots in any::<Option<u32>>(),
        status in prop::option::of("[a-z]{0,8}"), known in any::<bool>(),
    ) {
        let project = project();
        let terms = terms(&project, 7);
        let known = known.then(|| registered(&request()).unwrap());
        let guid = known.as_ref().map_or_else(AgentGuid::generate, |known| known.guid);
        let put = put(&json!({
            "guid": guid, "capabilities": [bytes], "currentTaskCount": tasks,
            "maxConcurrentTasks": slots, "status": status, "handle": bytes,
        })).unwrap();
        if let Ok(once) = merge(known.as_ref(), &put, false, Seen::Put, &terms) {
            prop_assert_eq!(merge(Some(&once), &put, false, Seen::Put, &terms), Ok(once.clone()));
            let value = serde_json::to_vec(&written(&once)).unwrap();
            prop_assert_eq!(read_own(guid, &value), Ok(written(&once)), "what is written can be read");
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let guid = AgentGuid::generate();
        prop_assert!(read_put(guid, &bytes).is_err());
        prop_assert!(read_own(guid, &bytes).is_err());
    }
}
