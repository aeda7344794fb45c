use super::*;
use crate::domain::agent::{Terms, register, with_status};
use loom_protocol::ProjectId;
use loom_protocol::agent::{ListAgentsRequest, RegisterRequest};
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

fn agent(n: usize, capabilities: &[&str], boundary: &str) -> Agent {
    let project = ProjectId::new("p").unwrap();
    let request = RegisterRequest {
        handle: format!("a{n}"),
        agent_type: if n.is_multiple_of(2) { "even" } else { "odd" }.into(),
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        boundaries: Some(vec![boundary.into()]),
        ..Default::default()
    };
    let terms = Terms {
        project: &project,
        heartbeat_every: Duration::from_secs(10),
        now: Timestamp::from_millis(i64::try_from(n / 3).unwrap()),
    };
    register(&request, AgentGuid::generate(), None, false, &terms).unwrap()
}

fn directory(agents: &[Agent]) -> Arc<AgentDirectory> {
    let directory = AgentDirectory::new();
    for agent in agents {
        directory.put(agent.clone());
    }
    directory
}

fn handles(found: &AgentsFound) -> Vec<&str> {
    found
        .agents
        .iter()
        .map(|agent| agent.handle.as_str())
        .collect()
}

#[test]
fn pages_go_forth_and_back_without_a_gap() {
    let agents: Vec<Agent> = (0..25).map(|n| agent(n, &["rust"], "default")).collect();
    let directory = directory(&agents);
    let filter = AgentFilter::default();
    let mut cursor = None;
    let mut forth = Vec::new();
    let last = loop {
        let page = directory.find(&filter, cursor.as_deref(), 10).unwrap();
        assert_eq!(page.info.total, 25);
        forth.push(page.agents.clone());
        cursor.clone_from(&page.info.next_cursor);
        if !page.info.has_more {
            break page;
        }
    };
    assert_eq!(forth.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let seen: Vec<AgentGuid> = forth.concat().iter().map(|agent| agent.guid).collect();
    let mut expected = agents.clone();
    expected.sort_by_key(Place::of);
    assert_eq!(
        seen,
        expected.iter().map(|agent| agent.guid).collect::<Vec<_>>()
    );

    let mut cursor = last.info.prev_cursor;
    for page in [&forth[1], &forth[0]] {
        let back = directory.find(&filter, cursor.as_deref(), 10).unwrap();
        assert_eq!(&back.agents, page);
        assert!(back.info.has_more);
        cursor = back.info.prev_cursor;
    }
    assert_eq!(cursor, None);
}

#[test]
fn a_page_of_ten_looks_at_about_ten_however_many_agents_there_are() {
    let examined = |count: usize| {
        let agents: Vec<Agent> = (0..count)
            .map(|n| {
                let capability = format!("c{}", n % 7);
                agent(
                    n,
                    &[&capability, "common"],
                    if n < 50 { "small" } else { "large" },
                )
            })
            .collect();
        let directory = directory(&agents);
        let filters = [
            AgentFilter::default(),
            AgentFilter {
                capability: Some("common".into()),
                boundary: Some("large".into()),
                ..AgentFilter::default()
            },
            AgentFilter {
                capability: Some("common".into()),
                boundary: Some("small".into()),
                ..AgentFilter::default()
            },
            AgentFilter {
                agent_type: Some("odd".into()),
                status: Some(AgentStatus::Online),
                ..AgentFilter::default()
            },
            AgentFilter {
                boundary: Some("nowhere".into()),
                ..AgentFilter::default()
            },
        ];
        filters.map(|filter| directory.find(&filter, None, 10).unwrap().examined)
    };
    for (few, many) in examined(100).into_iter().zip(examined(10_000)) {
        assert!(many <= few.max(30) && many <= 60, "{few} and {many}");
    }
}

#[test]
fn counts_are_the_greater_of_what_is_said_and_what_is_leased() {
    let one = agent(1, &["rust"], "default");
    let guid = one.guid;
    let directory = directory(&[one]);
    let now = Timestamp::from_millis(99);
    directory.set_lease_count(guid, 2, now);
    let entry = directory.get(guid).unwrap();
    entry.set_own_count(1);
    assert_eq!(entry.snapshot().current_task_count, 2);
    assert_eq!(entry.snapshot().last_activity, now);
    entry.set_own_count(5);
    assert_eq!(directory.snapshot(guid).unwrap().current_task_count, 5);
    assert_eq!(directory.touch(guid, now), Some(AgentStatus::Online));
    directory.put(with_status(entry.agent(), AgentStatus::Busy));
    let after = directory.snapshot(guid).unwrap();
    assert_eq!((after.current_task_count, after.last_heartbeat), (5, now));
}

#[test]
fn leases_that_are_known_before_the_agent_are_its_own() {
    let one = agent(1, &["rust"], "default");
    let known = Arc::new(AtomicUsize::new(2));
    let asked = known.clone();
    let directory = AgentDirectory::with_leases(move |_, set| set(asked.load(Ordering::Relaxed)));
    directory.set_lease_count(one.guid, 7, Timestamp::default());
    let entry = directory.put(one.clone());
    assert_eq!((entry.leases(), entry.take_unannounced_count()), (2, None));
    // One that is known is told of each change, and not asked about.
    known.store(3, Ordering::Relaxed);
    assert_eq!(directory.put(one.clone()).leases(), 2);
    directory.remove(one.guid);
    assert_eq!(directory.put(one).leases(), 3);
}

#[test]
fn agents_are_found_by_the_beginning_of_a_guid_and_by_handle() {
    let mut agents: Vec<Agent> = (0..8).map(|n| agent(n, &["rust"], "default")).collect();
    for (n, agent) in agents.iter_mut().enumerate() {
        agent.guid = format!("0000000{n}-0000-4000-8000-000000000000")
            .parse()
            .unwrap();
    }
    let directory = directory(&agents);
    assert_eq!(directory.guids_like("00000003-", 9), [agents[3].guid]);
    let whole = agents[4].guid.to_string();
    assert_eq!(directory.guids_like(&whole, 9), [agents[4].guid]);
    assert_eq!(directory.guids_like("0000", 5).len(), 5);
    for none in ["f", "nope", ""] {
        assert!(directory.guids_like(none, 9).is_empty(), "{none}");
    }
    let several = directory.guids_of_handle(&agents[0].handle);
    let same = agents.iter().filter(|a| a.handle == agents[0].handle);
    assert_eq!(several, same.map(|a| a.guid).collect::<Vec<_>>());
    assert!(directory.guids_of_handle("nobody").is_empty());
}

#[test]
fn cursors_and_statuses_that_do_not_exist_are_refused() {
    let directory = AgentDirectory::new();
    for bad in [
        "",
        "x",
        "a",
        "a5",
        "a5.x",
        "c5.00000000-0000-4000-8000-000000000000",
        "é1.1",
    ] {
        let error = directory
            .find(&AgentFilter::default(), Some(bad), 1)
            .unwrap_err();
        assert!(error.message.contains("cursor"), "{error}");
    }
    let request = ListAgentsRequest {
        status: Some("asleep".into()),
        ..Default::default()
    };
    assert!(
        AgentFilter::of(&request)
            .unwrap_err()
            .message
            .contains("asleep")
    );
}

proptest! {
    #[test]
    fn a_listing_is_what_a_scan_finds(
        kinds in prop::collection::vec((0usize..4, 0usize..3, prop::sample::select(&AgentStatus::ALL[..])), 0..60),
        capability in prop::option::of(0usize..4), boundary in prop::option::of(0usize..3),
        status in prop::option::of(prop::sample::select(&AgentStatus::ALL[..])),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20), limit in 1usize..20,
    ) {
        const CAPABILITIES: [&str; 4] = ["a", "b", "c", "d"];
        const BOUNDARIES: [&str; 3] = ["x", "y", "z"];
        let mut agents: Vec<Agent> = kinds.iter().enumerate().map(|(n, (capability, boundary, status))| {
            let capabilities = [CAPABILITIES[*capability], CAPABILITIES[(capability + n) % 4]];
            with_status(&agent(n, &capabilities, BOUNDARIES[*boundary]), *status)
        }).collect();
        let directory = directory(&agents);
        for index in removed {
            if !agents.is_empty() {
                let gone = agents.remove(index.index(agents.len()));
                prop_assert!(directory.remove(gone.guid).is_some());
            }
        }
        let filter = AgentFilter {
            capability: capability.map(|n| CAPABILITIES[n].into()),
            boundary: boundary.map(|n| BOUNDARIES[n].into()),
            status,
            agent_type: None,
        };
        agents.sort_by_key(Place::of);
        let expected: Vec<&str> = agents.iter().filter(|agent| {
            filter.capability.as_ref().is_none_or(|c| agent.capabilities.contains(c))
                && filter.boundary.as_ref().is_none_or(|b| agent.boundaries.contains(b))
                && filter.status.is_none_or(|s| agent.status == s)
        }).map(|agent| agent.handle.as_str()).collect();
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = directory.find(&filter, cursor.as_deref(), limit).unwrap();
            prop_assert!(page.info.total >= page.info.count);
            seen.extend(handles(&page).into_iter().map(String::from));
            cursor.clone_from(&page.info.next_cursor);
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(seen, expected);
        let totals = directory.totals();
        prop_assert_eq!(totals.total, agents.len());
        prop_assert_eq!(totals.by_status.values().sum::<usize>(), agents.len());
        prop_assert_eq!(totals.by_type.values().sum::<usize>(), agents.len());
        prop_assert_eq!(directory.all().len(), agents.len());
    }
}
