//! Which room of `actors/` may know which: the floors of the house, read off the paths that a file names.

/// A room, the rooms that it may not know, and why.
const ROOMS: &[(&str, &[&str], &str)] = &[
    (
        "domain",
        &[
            "nats",
            "supervision",
            "liveness",
            "settings",
            "clock",
            "agent_registry",
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
            "stores",
            "events",
        ],
        "a verdict takes values: no clock, no network, no actor, no settings type",
    ),
    (
        "deadline_queue",
        &[
            "nats",
            "supervision",
            "liveness",
            "settings",
            "clock",
            "agent_registry",
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
            "stores",
            "events",
            "domain",
        ],
        "a data structure knows what it is given",
    ),
    (
        "keyed_writer",
        &[
            "supervision",
            "liveness",
            "settings",
            "clock",
            "agent_registry",
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
            "stores",
            "events",
            "domain",
        ],
        "it knows how a write ends, and nothing of what is written",
    ),
    (
        "notifier",
        &[
            "nats",
            "supervision",
            "liveness",
            "settings",
            "clock",
            "agent_registry",
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
            "stores",
            "events",
            "domain",
        ],
        "whoever tells something knows what it tells; that is told knows nobody",
    ),
    (
        "liveness",
        &[
            "agent_registry",
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
            "settings",
        ],
        "whether it was their silence or our stall is asked by actors, and asks none",
    ),
    (
        "shared_agents",
        &[
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
        ],
        "whoever reads a bucket for all projects is told where to hand over what it has read",
    ),
    (
        "work_ledger",
        &[
            "agent_registry",
            "work_dispatcher",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
        ],
        "the truth about work knows nobody who acts on it",
    ),
    (
        "agent_registry",
        &[
            "work_dispatcher",
            "work_ledger",
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
        ],
        "who is there knows nothing of work",
    ),
    (
        "work_dispatcher",
        &[
            "gc_reaper",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
        ],
        "who matches work buries nobody",
    ),
    (
        "dlq_retrier",
        &[
            "agent_registry",
            "work_dispatcher",
            "gc_reaper",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
        ],
        "dead letters know the ledger only",
    ),
    (
        "target_manager",
        &[
            "gc_reaper",
            "dlq_retrier",
            "project",
            "projects",
            "shared_agents",
        ],
        "where agents can be started is known to nobody who buries them",
    ),
    (
        "gc_reaper",
        &[
            "work_dispatcher",
            "dlq_retrier",
            "target_manager",
            "project",
            "projects",
            "shared_agents",
        ],
        "who buries the dead gives their work back by what it was given, not by another actor",
    ),
];

/// What a file of a room names of a room that it may not know, with the reason; tests and comments may.
pub fn forbidden(path: &str, line: &str) -> Option<String> {
    let inside = path.strip_prefix("actors/src/")?;
    if path.ends_with("tests.rs") || path.contains("/tests/") || line.trim_start().starts_with("//")
    {
        return None;
    }
    let room = inside.split(['/', '.']).next()?;
    let (_, others, why) = ROOMS.iter().find(|(name, ..)| *name == room)?;
    let named = |other: &&&str| {
        let path = format!("crate::{other}");
        line.match_indices(&path).any(|(at, _)| {
            let next = line[at + path.len()..].chars().next();
            !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    };
    let other = others.iter().find(named)?;
    Some(format!("actors/src/{room} may not know {other}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_into_a_room_that_is_above_is_found() {
        let line = "use crate::work_dispatcher::reports_consumer;";
        assert!(forbidden("actors/src/liveness/barrier.rs", line).is_some());
        assert!(forbidden("actors/src/liveness.rs", line).is_some());
        assert!(
            forbidden("actors/src/project.rs", line).is_none(),
            "it puts them together"
        );
        assert!(forbidden("actors/src/liveness/tests.rs", line).is_none());
        assert!(forbidden("actors/src/domain/a.rs", "use crate::settings_of::A;").is_none());
        assert!(forbidden("actors/src/domain/a.rs", "    crate::settings::A").is_some());
    }
}
