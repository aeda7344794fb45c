use super::tests::{project, status, terms};
use super::*;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn a_key_is_a_uuid_in_either_case_or_its_digits() {
    let guid = AgentGuid::generate();
    let text = guid.to_string();
    let digits = text.replace('-', "");
    let upper = text.to_uppercase();
    for key in [&text, &upper, &digits, &digits.to_uppercase()] {
        assert_eq!(guid_of_key(key), Ok(guid), "{key}");
    }
    for key in [
        "x",
        "",
        &text[1..],
        &format!("{{{text}}}"),
        &format!("urn:uuid:{text}"),
    ] {
        assert!(guid_of_key(key).is_err(), "{key}");
    }
}

#[test]
fn an_entry_of_an_existing_client_is_taken_as_it_comes() {
    let guid = AgentGuid::generate();
    let entry = json!({
        "handle": "Ada's agent", "agentType": "claude-code", "scope": "team", "visibility": "public",
        "natsUrl": "nats://host", "status": "sleeping", "currentTaskCount": "2",
        "maxConcurrentTasks": "3", "heartbeatIntervalMs": "60000", "spindownAfterIdleMs": 0,
        "registeredAt": "last week", "lastHeartbeat": "", "lastActivity": null, "hostname": "",
        "extra": {"deep": [1]},
    });
    let put = read_put(guid, entry.to_string().as_bytes()).unwrap();
    let agent = merge(None, &put, false, Seen::Put, &terms(&project(), 9)).unwrap();
    assert_eq!(agent.guid, guid);
    assert_eq!(agent.handle, "Ada's agent");
    assert_eq!(agent.status, AgentStatus::Online);
    assert_eq!(agent.visibility.as_deref(), Some("public"));
    assert_eq!(
        (agent.current_task_count, agent.max_concurrent_tasks),
        (2, 3)
    );
    assert_eq!(agent.heartbeat_interval_ms, Some(60_000));
    assert_eq!(agent.spindown_after_idle_ms, None, "0 is never");
    assert_eq!(agent.registered_at, Timestamp::from_millis(9));
    assert!(agent.capabilities.is_empty());
    let bare = read_put(guid, b"{}").unwrap();
    let bare = merge(None, &bare, false, Seen::Put, &terms(&project(), 9)).unwrap();
    assert_eq!(bare.heartbeat_interval_ms, None, "it never named one");
}

fn found_at(stored_at: i64) -> Seen {
    Seen::Found {
        stored_at: Timestamp::from_millis(stored_at),
        in_our_time: false,
        terms: crate::settings::AgentSettings::default().reap_terms(),
    }
}

proptest! {
    /// A wrong clock kills nobody who puts, and an old entry revives nobody.
    #[test]
    fn a_time_in_an_entry_counts_only_where_the_entry_was_found(
        said in prop::option::of(-10_000_000_i64..10_000_000), age in 0_i64..10_000_000,
    ) {
        let now = 20_000_000_000;
        let guid = AgentGuid::generate();
        let said = said.map(|ago| Timestamp::from_millis(now - ago));
        let entry = json!({"lastHeartbeat": said.map(|said| said.to_string())});
        let put = read_put(guid, entry.to_string().as_bytes()).unwrap();
        let project = project();
        let terms = terms(&project, now);
        let put_now = merge(None, &put, false, Seen::Put, &terms).unwrap();
        prop_assert_eq!(put_now.status, AgentStatus::Online);
        prop_assert_eq!(put_now.last_heartbeat, terms.now);
        let seen = found_at(now - age);
        let found = merge(None, &put, false, seen, &terms).unwrap();
        let said_age = said.map_or(0, |said| now - said.as_millis());
        let silent = 180_000;
        let is_alive = age < silent && said_age < silent;
        prop_assert_eq!(found.status == AgentStatus::Online, is_alive);
        prop_assert!(found.last_heartbeat <= terms.now);
        // Whoever is known to live is not declared silent by an entry.
        let known = merge(Some(&put_now), &put, false, seen, &terms).unwrap();
        prop_assert_eq!(known.status, AgentStatus::Online);
        prop_assert_eq!(known.last_heartbeat, terms.now);
    }

    /// Our verdict in a client's entry is read back as it was, and touches nothing else.
    #[test]
    fn a_verdict_is_all_that_changes_in_a_clients_entry(
        said in status(), until in prop::option::of(1_i64..1_000), extra in "[a-z]{0,8}",
    ) {
        let guid = AgentGuid::generate();
        let entry = json!({"handle": "a b", "status": said, "pausedUntil": "x", "mine": extra});
        let value = entry.to_string();
        let put = read_put(guid, value.as_bytes()).unwrap();
        let project = project();
        let agent = merge(None, &put, false, Seen::Put, &terms(&project, 0)).unwrap();
        let agent = match until {
            Some(until) => pause(&agent, Timestamp::from_millis(until), "limit").unwrap(),
            None => agent,
        };
        let written = with_verdict(value.as_bytes(), &agent).unwrap();
        prop_assert_eq!(Verdict::shown_in(&written), Verdict::of(&agent));
        let read: Value = serde_json::from_slice(&written).unwrap();
        prop_assert_eq!(&read["mine"], &entry["mine"]);
        prop_assert_eq!(&read["handle"], &entry["handle"]);
        prop_assert_eq!(read["status"].as_str(), Some(agent.status.as_str()));
        prop_assert_eq!(read.get("pausedUntil").is_some(), until.is_some());
    }
}
